"""Derived datasets: labels that a split shows made wrong, or hidden.

As in ``derive``: streams of their own, and larger changes of a seed hold the smaller ones.
"""

from __future__ import annotations

import numpy as np

from morebench.data.spec import Derive
from morebench.errors import DataError, listed

_MISSING, _NOISE, _OTHER = 10, 11, 12  # none of those in ``derive``


def _stream(change: Derive, what: int) -> np.random.Generator:
    return np.random.default_rng([change.seed, what])


def degrade_labels(
    label_n: np.ndarray, change: Derive, where: str
) -> tuple[np.ndarray, dict[str, int]]:
    """Hide some of the labels that a split shows, and make some of the others wrong.

    ``label_missing`` of the shown labels are hidden; of those left, ``label_noise`` are
    replaced by another type that the split showed, each as likely. A cell whose label is
    hidden already stays so.

    Parameters
    ----------
    label_n : (n,) array of object
        Labels that the split shows, None elsewhere; not changed.

    Returns
    -------
    label_n : (n,) array of object
    facts
        ``n_label_missing`` and ``n_label_noise``: how many were changed.

    Raises
    ------
    DataError
        There is no other type to put in a label's place.
    """
    found = label_n.copy()
    n = len(label_n)
    shown = np.flatnonzero([label is not None for label in label_n])
    types = sorted({label_n[i] for i in shown})
    # One number a cell, whatever the split: what is wrong in one is mostly wrong in all.
    order = shown[np.argsort(_stream(change, _MISSING).random(n)[shown], kind="stable")]
    n_missing = round(change.label_missing * len(shown))
    found[order[:n_missing]] = None
    left = np.sort(order[n_missing:])
    order = left[np.argsort(_stream(change, _NOISE).random(n)[left], kind="stable")]
    n_noise = round(change.label_noise * len(left))
    if n_noise and len(types) < 2:
        raise DataError(
            f"{where}: label_noise needs two types, the split shows {listed(types)} only"
        )
    step_n = _stream(change, _OTHER).random(n)
    for i in order[:n_noise]:
        others = [t for t in types if t != label_n[i]]
        found[i] = others[int(step_n[i] * len(others))]
    return found, {"n_label_missing": n_missing, "n_label_noise": n_noise}
