"""Labels for embeddings that come without: those of the nearest cells whose label is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from morebench.errors import listed
from morebench.metrics.undefined import UndefinedMetric
from morebench.tasks.contract import Candidate, TaskData

K_TRANSFER = 15


def with_labels(c: Candidate, data: TaskData) -> Candidate:
    """Return a candidate that has labels: its own, or else those that its embedding transfers.

    A cell gets the most frequent label among its 15 nearest shown cells (fewer where fewer are
    shown), the first by name of equals; the shares are its probabilities. Distances are
    Euclidean in the embedding, as in every other metric. What a method says itself is never
    replaced, and what did not run stays as it is.

    Raises
    ------
    ValueError
        The embedding does not have the dataset's cells, or has values that are not finite.
    UndefinedMetric
        Fewer than two types are shown: every cell would get the same label.
    """
    output = c.output
    if c.state != "ok" or output is None or output.labels is not None or output.embedding is None:
        return c
    from sklearn.neighbors import KNeighborsClassifier

    shown = np.flatnonzero([label is not None for label in data.shown])
    taught = sorted(set(data.shown[shown].astype(str)))
    if len(taught) < 2:
        raise UndefinedMetric(
            f"the split shows {len(taught)} classes ({listed(taught)}); labels are transferred "
            "from 2 or more"
        )
    z_nd = np.asarray(output.embedding, dtype=np.float64)
    if len(z_nd) != len(data.batch):
        raise ValueError(f"embedding: found {len(z_nd)} rows; valid: {len(data.batch)}")
    model = KNeighborsClassifier(min(K_TRANSFER, len(shown)))
    model.fit(z_nd[shown], data.shown[shown].astype(str))
    values = model.predict_proba(z_nd)
    found = replace(
        output,
        labels=model.classes_[values.argmax(axis=1)].astype(str),
        probabilities=pd.DataFrame(values, columns=list(model.classes_)),
    )
    return replace(c, output=found)
