"""AUROC, average precision and recall at the rate of a score, on many resamples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from morebench.metrics.resampling import Statistic


def _hits(
    positive: np.ndarray, score: np.ndarray, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return true and false positives (r, thresholds) down to each distinct score."""
    n = len(score)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    offset = np.arange(len(indices))[:, None] * n
    counts = np.bincount((indices + offset).ravel(), minlength=len(indices) * n)
    counts = counts.reshape(len(indices), n)[:, order]
    hits = np.cumsum(counts * positive[order], axis=1)[:, ends]
    return hits, np.cumsum(counts, axis=1)[:, ends] - hits


def auroc(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, ties counted half, (r,); NaN with one class only."""
    pairs = true[:, -1].astype(float) * false[:, -1]
    width = np.diff(false, axis=1, prepend=0)
    before = np.concatenate([np.zeros_like(true[:, :1]), true[:, :-1]], axis=1)
    area = (width * (true + before) / 2).sum(axis=1)
    return np.where(pairs > 0, area / np.where(pairs > 0, pairs, 1), np.nan)


def auprc(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Average precision ``sum (R_i - R_{i-1}) P_i``, (r,); NaN with one class only."""
    n_true, n_false = true[:, -1], false[:, -1]
    gained = np.diff(true, axis=1, prepend=0)
    precision = true / np.maximum(true + false, 1)
    value = (gained * precision).sum(axis=1) / np.maximum(n_true, 1)
    return np.where((n_true > 0) & (n_false > 0), value, np.nan)


def recall_at_rate(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Recall among the top-scoring cells, as many as there are positives, (r,).

    Cells whose score ties with the last one taken count by the mean over every order of
    theirs: a constant score gets the share of positives. NaN with one class only.
    """
    n_true, found = true[:, -1], true + false
    last = (found >= n_true[:, None]).argmax(axis=1)[:, None]
    zero = np.zeros_like(true[:, :1])
    true, found = np.hstack([zero, true]), np.hstack([zero, found])
    hits, taken = np.take_along_axis(true, last, 1), np.take_along_axis(found, last, 1)
    more_hits = np.take_along_axis(true, last + 1, 1) - hits
    tied = np.take_along_axis(found, last + 1, 1) - taken
    share = (n_true[:, None] - taken) / np.maximum(tied, 1)
    value = (hits + share * more_hits)[:, 0] / np.maximum(n_true, 1)
    return np.where((n_true > 0) & (found[:, -1] > n_true), value, np.nan)


def statistic(
    metric: Callable[[np.ndarray, np.ndarray], np.ndarray],
    positive: np.ndarray,
    score: np.ndarray,
) -> Statistic:
    """Return a metric of a score as a function of resampled cells.

    Parameters
    ----------
    positive : (n,) array of bool
    score : (n,) array
        Higher means more likely positive.
    """
    return lambda indices: metric(*_hits(positive, score, indices))
