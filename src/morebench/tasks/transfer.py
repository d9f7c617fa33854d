"""What an embedding says by itself of a cell: its nearest cells with a shown label."""

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
    labels, probabilities = nearest_labels(output.embedding, data)
    return replace(c, output=replace(output, labels=labels, probabilities=probabilities))


def said_by_neighbours(given: Candidate, labelled: Candidate, data: TaskData) -> np.ndarray | None:
    """Return (n,) labels of the nearest shown cells in a method's embedding; None without one.

    Parameters
    ----------
    given, labelled
        A candidate that is ok, before and after ``with_labels``: where that asked the neighbours,
        they are not asked again.
    """
    if given.output is None or given.output.embedding is None:
        return None
    if given is not labelled:
        assert labelled.output is not None
        return labelled.output.labels
    return nearest_labels(given.output.embedding, data)[0]


def nearest_labels(embedding: np.ndarray, data: TaskData) -> tuple[np.ndarray, pd.DataFrame]:
    """Return (n,) labels and (n, types) shares of the nearest shown cells: see ``with_labels``."""
    from sklearn.neighbors import KNeighborsClassifier

    z_nd, shown = _cells(embedding, data)
    taught = sorted(set(data.shown[shown].astype(str)))
    if len(taught) < 2:
        raise UndefinedMetric(
            f"the split shows {len(taught)} classes ({listed(taught)}); labels are transferred "
            "from 2 or more"
        )
    model = KNeighborsClassifier(min(K_TRANSFER, len(shown)))
    model.fit(z_nd[shown], data.shown[shown].astype(str))
    values = model.predict_proba(z_nd)
    labels = model.classes_[values.argmax(axis=1)].astype(str)
    return labels, pd.DataFrame(values, columns=list(model.classes_))


def distance_to_shown(embedding: np.ndarray, data: TaskData) -> np.ndarray:
    """Return the mean distance of each cell to the shown cells that ``with_labels`` would ask.

    The k-nearest-neighbour outlier score of Angiulli and Pizzuti 2002 (PKDD, 15-26), which
    needs no labels but those that say which cells are shown. Unlike the share of the most
    frequent label it goes on growing where all neighbours agree. A shown cell is its own
    nearest neighbour.

    Parameters
    ----------
    embedding : (n, d) array

    Returns
    -------
    (n,) array of float64
        In the embedding's own unit, >= 0.

    Raises
    ------
    ValueError
        The embedding does not have the dataset's cells, or has values that are not finite.
    """
    from sklearn.neighbors import NearestNeighbors

    z_nd, shown = _cells(embedding, data)
    model = NearestNeighbors(n_neighbors=min(K_TRANSFER, len(shown))).fit(z_nd[shown])
    distance_nk, _ = model.kneighbors(z_nd)
    return distance_nk.mean(axis=1)


def _cells(embedding: np.ndarray, data: TaskData) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n, d) embedding in float64 and the places of the shown cells."""
    z_nd = np.asarray(embedding, dtype=np.float64)
    if len(z_nd) != len(data.batch):
        raise ValueError(f"embedding: found {len(z_nd)} rows; valid: {len(data.batch)}")
    return z_nd, np.flatnonzero([label is not None for label in data.shown])
