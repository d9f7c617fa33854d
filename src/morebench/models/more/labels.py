"""Labels as training takes them: shown ones as codes, hidden ones apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from morebench.errors import DataError, listed
from morebench.models.more.cells import column

#: What a cell without a credible type is called.
UNKNOWN = "unknown"


def shown_labels(data: Any, key: str, unlabeled: str | None) -> np.ndarray:
    """Return (n,) array of object: labels, None where they are not known."""
    if key not in data.obs.columns:
        column(data, key)  # raises, and says what there is
    values = data.obs[key]
    shown = np.array(values.astype(str), dtype=object)
    shown[values.isna().to_numpy()] = None
    if unlabeled is not None:
        shown[shown == str(unlabeled)] = None
    return shown


def label_codes(shown: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes and (n,) their codes, -1 where hidden."""
    if shown is None:
        return np.empty(0, dtype=str), np.full(n, -1)
    classes = np.unique([str(v) for v in shown if v is not None])
    if UNKNOWN in classes:
        raise DataError(
            f"labels: a class is called {UNKNOWN!r}, which is what cells without a credible type "
            "are called; valid: other names, and no label for cells whose type is not known"
        )
    if len(classes) < 2:
        raise DataError(
            f"labels: found {len(classes)} classes ({listed(classes)}); valid: 2 or more"
        )
    place = {name: i for i, name in enumerate(classes)}
    return classes, np.array([-1 if v is None else place[str(v)] for v in shown])
