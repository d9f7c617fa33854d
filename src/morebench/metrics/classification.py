"""Agreement of predicted with true cell types, on many resamples; calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from morebench.metrics.resampling import Statistic


def paired_codes(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, int]:
    """Return a number for each cell's pair of true and predicted type.

    Predictions that are no type of the truth (``unknown`` among them) share one number:
    they are wrong, whatever they say.

    Returns
    -------
    codes : (n,) array of int
        ``true * (t + 1) + predicted``, with t for a prediction outside the truth.
    t : int
        Types present in the truth.
    """
    types, true = np.unique(truth.astype(str), return_inverse=True)
    guess = predicted.astype(str)
    at = np.minimum(np.searchsorted(types, guess), len(types) - 1)
    at = np.where(types[at] == guess, at, len(types))
    return true * (len(types) + 1) + at, len(types)


def confusions(codes: np.ndarray, t: int, indices: np.ndarray) -> np.ndarray:
    """Confusion matrices (r, t, t + 1) of the resamples ``indices`` (r, n)."""
    size = t * (t + 1)
    offset = np.arange(len(indices))[:, None] * size
    counts = np.bincount((codes[indices] + offset).ravel(), minlength=len(indices) * size)
    return counts.reshape(len(indices), t, t + 1)


def _over_present(values: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Mean over the types that a resample has; NaN where it has none of them."""
    present = support > 0
    with np.errstate(invalid="ignore"):
        return np.where(present, values, 0.0).sum(axis=1) / present.sum(axis=1)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of cells predicted right, (r,)."""
    return np.einsum("rtt->r", confusion[:, :, :-1]) / confusion.sum(axis=(1, 2))


def balanced_accuracy(confusion: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
    """Mean recall over the types present in the truth, or those of the ``chosen`` (t,), (r,)."""
    which = slice(None) if chosen is None else chosen
    right = np.einsum("rtt->rt", confusion[:, :, :-1])[:, which]
    support = confusion.sum(axis=2)[:, which]
    return _over_present(right / np.maximum(support, 1), support)


def macro_f1(confusion: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
    """Mean F1 over the types present in the truth, or those of the ``chosen`` (t,), (r,).

    ``2 TP / (cells of the type + cells predicted as the type)``.
    """
    which = slice(None) if chosen is None else chosen
    right = np.einsum("rtt->rt", confusion[:, :, :-1])[:, which]
    support = confusion.sum(axis=2)[:, which]
    predicted = confusion[:, :, :-1].sum(axis=1)[:, which]
    return _over_present(2 * right / np.maximum(support + predicted, 1), support)


def calibration_errors(
    confidence: np.ndarray, right: np.ndarray, indices: np.ndarray, n_bins: int = 15
) -> np.ndarray:
    """Expected calibration error of the most probable class (Guo et al. 2017, eq. 3), (r,).

    Parameters
    ----------
    confidence : (n,) array
        Probability of the most probable class.
    right : (n,) array of bool
        Whether that class is the true one.
    indices : (r, n) array of int
        Resamples.
    n_bins
        Bins of equal width over [0, 1].
    """
    at = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gap = confidence - right
    offset = np.arange(len(indices))[:, None] * n_bins
    sums = np.bincount(
        (at[indices] + offset).ravel(), gap[indices].ravel(), minlength=len(indices) * n_bins
    )
    return np.abs(sums.reshape(len(indices), n_bins)).sum(axis=1) / indices.shape[1]


def statistic(
    metric: Callable[[np.ndarray], np.ndarray], truth: np.ndarray, predicted: np.ndarray
) -> Statistic:
    """Return a metric of predicted types as a function of resampled cells."""
    codes, t = paired_codes(truth, predicted)
    return lambda indices: metric(confusions(codes, t, indices))
