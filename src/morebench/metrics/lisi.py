"""Local inverse Simpson's index: iLISI, cLISI and CiLISI."""

from __future__ import annotations

import numpy as np

from morebench.metrics.neighbors import Neighbors, exact_neighbors
from morebench.metrics.undefined import UndefinedMetric

_TOLERANCE = np.float32(1e-5)
_TRIES = 50
_CHUNK_ELEMENTS = 1 << 22
#: Perplexity of CiLISI in scIntegrationMetrics, and its neighbours beside the cell itself.
CILISI_PERPLEXITY = 30


def neighbor_weights(neighbors: Neighbors, perplexity: float) -> np.ndarray:
    """Weights of a cell's neighbours whose entropy is the logarithm of the perplexity.

    ``p_j ~ exp(-beta d_j)``, the cell itself excluded, beta found by bisection (van der
    Maaten and Hinton 2008; Korsunsky et al. 2019). Steps and float32 arithmetic follow
    ``scib_metrics.utils.compute_simpson_index``, which stops as soon as the entropy is
    within 1e-5: with other arithmetic it would stop elsewhere.

    Returns
    -------
    (n, k) array of float32
        Rows sum to 1; a row is NaN where all weight falls on one neighbour (entropy 0).
    """
    n, k = neighbors.indices.shape
    out = np.empty((n, k), dtype=np.float32)
    step = max(1, _CHUNK_ELEMENTS // k)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        not_self = neighbors.indices[rows] != np.arange(n)[rows, None]
        out[rows] = _weights(neighbors.distances[rows].astype(np.float32), not_self, perplexity)
    return out


def _entropy(
    d: np.ndarray, not_self: np.ndarray, beta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    p = np.exp(-d * beta[:, None])
    # The reference runs with denormal numbers flushed to zero.
    p[~not_self | (p < np.finfo(np.float32).tiny)] = 0
    total = p.sum(axis=1)
    safe = np.where(total == 0, np.float32(1), total)
    entropy = np.log(safe) + beta * (d * p).sum(axis=1) / safe
    return np.where(total == 0, np.float32(0), entropy), p / safe[:, None]


def _weights(d: np.ndarray, not_self: np.ndarray, perplexity: float) -> np.ndarray:
    n = len(d)
    goal = np.log(np.float32(perplexity))
    beta = np.ones(n, dtype=np.float32)
    low = np.full(n, -np.inf, dtype=np.float32)
    high = np.full(n, np.inf, dtype=np.float32)
    entropy, p = _entropy(d, not_self, beta)
    for _ in range(_TRIES):
        active = np.flatnonzero(np.abs(entropy - goal) >= _TOLERANCE)
        if not len(active):
            break
        b, lo, hi = beta[active], low[active], high[active]
        up = entropy[active] > goal
        low[active] = np.where(up, b, lo)
        high[active] = np.where(up, hi, b)
        raised = np.where(np.isinf(hi), b * 2, (b + hi) / 2)
        lowered = np.where(np.isinf(lo), b / 2, (b + lo) / 2)
        beta[active] = np.where(up, raised, lowered)
        entropy[active], p[active] = _entropy(d[active], not_self[active], beta[active])
    p[entropy == 0] = np.nan
    return p


def lisi_values(neighbors: Neighbors, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Effective number of groups among each cell's weighted neighbours.

    ``1 / sum_g (sum_{j in g} p_j)^2``, Korsunsky et al. 2019.

    Parameters
    ----------
    codes : (n,) array of int
        Group of each cell, 0..g-1.
    weights : (n, k) array
        From :func:`neighbor_weights`.

    Returns
    -------
    (n,) array of float32
        In 1..g, or -1 where the weights are undefined, as in the reference.
    """
    n_groups = int(codes.max()) + 1
    near = codes[neighbors.indices]
    simpson = np.zeros(len(near), dtype=np.float32)
    for group in range(n_groups):
        simpson += np.square(np.where(near == group, weights, np.float32(0)).sum(axis=1))
    undefined = np.isnan(weights).any(axis=1)
    return np.where(undefined, np.float32(-1), 1 / np.where(undefined, 1, simpson))


def _codes(groups: np.ndarray) -> tuple[np.ndarray, int]:
    names, codes = np.unique(groups, return_inverse=True)
    return codes, len(names)


def default_perplexity(neighbors: Neighbors) -> float:
    """Return a third of the neighbours (30 of 90), or raise where that is below 2."""
    perplexity = neighbors.k // 3
    if perplexity < 2:
        raise UndefinedMetric(f"LISI needs at least 6 cells; found {neighbors.n_cells}")
    return float(perplexity)


def _median_lisi(
    neighbors: Neighbors, groups: np.ndarray, weights: np.ndarray | None, what: str
) -> tuple[float, int]:
    codes, n_groups = _codes(groups)
    if n_groups < 2:
        raise UndefinedMetric(f"one {what} only among the scored cells: {groups[0]}")
    if weights is None:
        weights = neighbor_weights(neighbors, default_perplexity(neighbors))
    return float(np.median(lisi_values(neighbors, codes, weights))), n_groups


def ilisi(neighbors: Neighbors, batch: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Batch mixing: ``(median LISI - 1) / (batches - 1)``; 1 is perfect mixing.

    Luecken et al. 2022; equals ``scib_metrics.ilisi_knn``.

    Raises
    ------
    UndefinedMetric
        With one batch, or fewer than 6 cells.
    """
    median, n = _median_lisi(neighbors, batch, weights, "batch")
    return (median - 1) / (n - 1)


def clisi(neighbors: Neighbors, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Purity of types: ``(types - median LISI) / (types - 1)``; 1 is pure.

    Luecken et al. 2022; equals ``scib_metrics.clisi_knn``.

    Raises
    ------
    UndefinedMetric
        With one type, or fewer than 6 cells.
    """
    median, n = _median_lisi(neighbors, labels, weights, "cell type")
    return (n - median) / (n - 1)


def cilisi(
    x_nd: np.ndarray, labels: np.ndarray, batch: np.ndarray, *, threads: int = 1
) -> tuple[float, np.ndarray]:
    """Cell-type aware iLISI: batch mixing inside each type, so that it cannot reward
    a method that mixes types.

    For every type with at least two batches and three cells: LISI of the batch over the
    type's own cells (perplexity and neighbours ``min(30, cells - 1)``), normalised by
    the batches of that type to 0..1; the mean over all those cells. Andreatta et al. 2024
    (STACAS), package scIntegrationMetrics (github.com/carmonalab/scIntegrationMetrics,
    ``getIntegrationMetrics``, metric ``CiLISI``). There a type of one batch yields NaN;
    here it is left out and shows in the coverage.

    Returns
    -------
    value
        Mean over tested cells.
    tested : (n,) array of bool
        Cells that it rests on.

    Raises
    ------
    UndefinedMetric
        If no type has two batches and three cells.
    """
    values = np.zeros(len(labels))
    tested = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)
        codes, n_batches = _codes(batch[cells])
        if n_batches < 2 or len(cells) < 3:
            continue
        perplexity = min(CILISI_PERPLEXITY, len(cells) - 1)
        near = exact_neighbors(x_nd[cells], perplexity + 1, threads=threads)
        lisi = lisi_values(near, codes, neighbor_weights(near, float(perplexity)))
        values[cells] = (lisi - 1) / (n_batches - 1)
        tested[cells] = True
    if not tested.any():
        raise UndefinedMetric("no cell type has two batches and three cells")
    return float(values[tested].mean()), tested
