"""Silhouettes: of types, of batches inside types (BRAS), of isolated types."""

from __future__ import annotations

import numpy as np

from morebench.metrics.undefined import UndefinedMetric

_CHUNK_ELEMENTS = 1 << 23


def _distance_sums(x: np.ndarray, codes: np.ndarray, n_groups: int, metric: str) -> np.ndarray:
    """Sum of distances from every cell to the cells of every group, (n, g)."""
    n = len(x)
    onehot = np.zeros((n, n_groups))
    onehot[np.arange(n), codes] = 1.0
    sums = np.empty((n, n_groups))
    if metric == "cosine":
        # Linear in the other cell, so no distance matrix is needed.
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        sizes = onehot.sum(axis=0)
        sums = sizes - unit @ (unit.T @ onehot)
        # What rounding leaves of zero must not be compared with itself later.
        sums[sums < 1e-12 * sizes] = 0.0
        return sums
    x = x - x.mean(axis=0)
    squares = np.square(x).sum(axis=1)
    step = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        d = x[rows] @ x.T
        d *= -2.0
        d += squares[rows, None]
        d += squares[None, :]
        np.maximum(d, 0.0, out=d)
        own = np.arange(rows.start, rows.stop)
        d[own - start, own] = 0.0
        np.sqrt(d, out=d)
        sums[rows] = d @ onehot
    return sums


def _silhouettes(
    sums: np.ndarray, codes: np.ndarray, sizes: np.ndarray, between: str
) -> np.ndarray:
    n = len(codes)
    own = np.arange(n), codes
    inside = sums[own]
    others = sums.copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        if between == "nearest":
            others /= sizes
            others[own] = np.inf
            outside = others.min(axis=1)
        else:
            others[own] = 0.0
            outside = others.sum(axis=1) / (n - sizes[codes])
        inside = inside / (sizes[codes] - 1)
        values = (outside - inside) / np.maximum(inside, outside)
    return np.nan_to_num(values)


def silhouette_samples(x_nd: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Euclidean silhouette of each cell, Rousseeuw 1987; 0 for a type of one cell.

    Returns
    -------
    (n,) array in -1..1

    Raises
    ------
    UndefinedMetric
        With one type only.
    """
    names, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise UndefinedMetric(f"one cell type only among the scored cells: {names[0]}")
    x = np.asarray(x_nd, dtype=np.float64)
    sums = _distance_sums(x, codes, len(names), "euclidean")
    return _silhouettes(sums, codes, sizes, "nearest")


def silhouette_label(samples: np.ndarray) -> float:
    """Mean silhouette of types, rescaled to 0..1 (Luecken et al. 2022).

    Parameters
    ----------
    samples : (n,) array
        From :func:`silhouette_samples`, which isolated labels share.
    """
    return float((samples.mean() + 1) / 2)


def isolated_labels(
    samples: np.ndarray, labels: np.ndarray, batch: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean rescaled silhouette of the types that are in the fewest batches.

    Luecken et al. 2022; equals ``scib_metrics.isolated_labels`` where it is defined here.

    Returns
    -------
    value, isolated : (n,) array of bool
        The score and the cells of isolated types.

    Raises
    ------
    UndefinedMetric
        Where every type is in every batch, so that no type is isolated (the reference
        then returns the mean over all types).
    """
    n_batches = len(np.unique(batch))
    names = np.unique(labels)
    spread = np.array([len(np.unique(batch[labels == name])) for name in names])
    if spread.min() == n_batches:
        raise UndefinedMetric("every cell type is in every batch: none is isolated")
    chosen = names[spread == spread.min()]
    value = np.mean([(samples[labels == name].mean() + 1) / 2 for name in chosen])
    return float(value), np.isin(labels, chosen)


def bras(x_nd: np.ndarray, labels: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
    """Batch removal adapted silhouette: 1 - |silhouette of batch| inside each type.

    Cosine distances; the distance to other batches is the mean over all their cells.
    Mean inside each type, then over types. Rautenstrauch and Ohler 2025; equals
    ``scib_metrics.bras``. Types with one batch, or one cell a batch, are left out.

    Returns
    -------
    value, tested : (n,) array of bool
        The score and the cells of the types that it rests on.

    Raises
    ------
    UndefinedMetric
        If no type can be tested, or cells at the origin have no direction (the reference
        gives their whole type a perfect score).
    """
    x = np.asarray(x_nd, dtype=np.float64)
    n_zero = int((~x.any(axis=1)).sum())
    if n_zero:
        raise UndefinedMetric(f"cosine distance: {n_zero} cells lie at the origin")
    # Scaled first: the norm of a tiny row would underflow when squared.
    x = x / np.abs(x).max(axis=1, keepdims=True)
    tested = np.zeros(len(x), dtype=bool)
    means = []
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)
        names, codes, sizes = np.unique(batch[cells], return_inverse=True, return_counts=True)
        if len(names) in (1, len(cells)):
            continue
        sums = _distance_sums(x[cells], codes, len(names), "cosine")
        means.append(np.mean(1 - np.abs(_silhouettes(sums, codes, sizes, "mean_other"))))
        tested[cells] = True
    if not means:
        raise UndefinedMetric("no cell type has two batches with several cells")
    return float(np.mean(means)), tested
