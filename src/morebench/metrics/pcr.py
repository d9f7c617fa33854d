"""Principal component regression: how much variance the batch explains."""

from __future__ import annotations

import numpy as np

from morebench.metrics.undefined import UndefinedMetric


def batch_variance(x_nd: np.ndarray, batch: np.ndarray) -> float:
    """Share of the variance of an embedding that the batch explains, 0..1.

    Principal component regression (Buttner et al. 2019) weighs the R^2 of the batch on
    each component by the component's variance. With all components kept this is the
    between-batch over the total sum of squares, which no rotation changes:
    ``sum_b n_b |m_b - m|^2 / sum_n |x_n - m|^2``. So no decomposition is needed.

    Raises
    ------
    UndefinedMetric
        If all cells lie on one point.
    """
    x = np.asarray(x_nd, dtype=np.float64)
    raw = float(np.square(x).sum())
    x = x - x.mean(axis=0)
    total = float(np.square(x).sum())
    if total <= 1e-24 * raw:  # what rounding leaves of zero
        raise UndefinedMetric("all cells lie on one point: no variance to explain")
    names, codes, sizes = np.unique(batch, return_inverse=True, return_counts=True)
    sums = np.stack([x[codes == g].sum(axis=0) for g in range(len(names))])
    return float((np.square(sums).sum(axis=1) / sizes).sum() / total)


def pcr_comparison(before: float, after: float) -> float:
    """Share of the batch's variance that was removed, not below 0.

    ``max(0, (before - after) / before)``; Luecken et al. 2022, equals
    ``scib_metrics.pcr_comparison(..., categorical=True)``.

    Parameters
    ----------
    before, after
        :func:`batch_variance` of the uncorrected PCA and of the embedding.

    Raises
    ------
    UndefinedMetric
        If the batch explained nothing before.
    """
    if before <= 0:
        raise UndefinedMetric("the batch explains no variance before integration")
    return max(0.0, (before - after) / before)
