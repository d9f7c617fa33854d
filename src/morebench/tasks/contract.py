"""What a task is given and what it returns."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from morebench.contract import MethodOutput


@dataclass
class TaskData:
    """One (dataset, split) with its truth; every array is in the dataset's cell order.

    Attributes
    ----------
    batch : (n,) array of str
    cell_type : (n,) array of object
        Truth; None where the label is missing or not usable.
    is_doublet : (n,) array of float
        1, 0, or NaN where there is no truth.
    scored : (n,) array of bool
        The split's scored cells.
    shown : (n,) array of object
        The labels that the split shows, None elsewhere.
    pca_np : (n, p) array of float32
        Uncorrected PCA of the split's input, the reference of the PCR comparison.
    """

    dataset: str
    split: str
    batch: np.ndarray
    cell_type: np.ndarray
    is_doublet: np.ndarray
    scored: np.ndarray
    shown: np.ndarray
    pca_np: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Places of the scored cells that have a usable label, (m,) array of int."""
        usable = np.array([label is not None for label in self.cell_type], dtype=bool)
        return np.flatnonzero(self.scored & usable)


@dataclass
class Candidate:
    """One (method, seed) to be scored; ``output`` is None unless ``state`` is ``ok``."""

    method: str
    track: str
    seed: int
    state: str
    output: MethodOutput | None
    reason: str = ""


@dataclass(frozen=True)
class Score:
    """One number, or the typed reason why there is none (then ``value`` is NaN).

    ``status`` is ``ok``, ``not_applicable`` or the state of the method that failed;
    ``coverage`` is the share of the scored cells that the value rests on.
    """

    method: str
    track: str
    seed: int
    metric: str
    value: float
    n_cells: int
    coverage: float = 1.0
    ci_low: float = math.nan
    ci_high: float = math.nan
    status: str = "ok"
    reason: str = ""


def unscored(candidate: Candidate, metric: str, status: str, reason: str) -> Score:
    """Return a typed missing score: never 0, never dropped."""
    return Score(
        candidate.method,
        candidate.track,
        candidate.seed,
        metric,
        math.nan,
        0,
        0.0,
        status=status,
        reason=reason,
    )
