"""Graphs over cells: UMAP connectivities and graph connectivity."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from morebench.metrics.neighbors import Neighbors

_TOLERANCE = 1e-5  # SMOOTH_K_TOLERANCE of umap-learn
_MIN_SCALE = 1e-3  # MIN_K_DIST_SCALE of umap-learn
_SEARCH_STEPS = 64


def _smooth_distances(distances_nk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale (sigma) and the nearest non-zero distance (rho) of each cell.

    Bisection on sigma so that ``sum_j exp(-(d_j - rho) / sigma) = log2(k)``; McInnes,
    Healy and Melville 2018, algorithm 3 (``smooth_knn_dist``). Rounding as in umap-learn:
    float32 distances, scale and bounds, float64 terms.
    """
    d = distances_nk.astype(np.float32)
    n, k = d.shape
    target = np.log2(float(k))
    positive = np.where(d > 0, d, np.float32(np.inf)).min(axis=1)
    rho = np.where(np.isfinite(positive), positive, np.float32(0))
    excess = np.maximum(d[:, 1:] - rho[:, None], np.float32(0))
    lo = np.zeros(n, dtype=np.float32)
    hi = np.full(n, np.finfo(np.float32).max, dtype=np.float32)
    sigma = np.ones(n, dtype=np.float32)
    active = np.arange(n)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for _ in range(_SEARCH_STEPS):
            s = sigma[active]
            # exp(-0) is 1: cells at or below rho count fully, as in the reference.
            terms = np.exp(-(excess[active] / s[:, None].astype(np.float64)))
            # cumsum adds from left to right, as the loop of the reference does.
            total = np.cumsum(terms, axis=1)[:, -1]
            todo = np.abs(total - target) >= _TOLERANCE
            active, s, total = active[todo], s[todo], total[todo]
            if not len(active):
                break
            high = total > target
            hi[active] = np.where(high, s, hi[active])
            lo[active] = np.where(high, lo[active], s)
            unbounded = hi[active] >= np.finfo(np.float32).max
            middle = ((lo[active].astype(np.float64) + hi[active]) / 2).astype(np.float32)
            sigma[active] = np.where(~high & unbounded, s * np.float32(2), middle)
    floor = np.where(rho > 0, d.mean(axis=1), d.mean()) * _MIN_SCALE
    return np.maximum(sigma, floor.astype(np.float32)), rho


def umap_connectivities(neighbors: Neighbors) -> sp.csr_matrix:
    """Return the symmetric fuzzy graph of UMAP over given neighbours.

    ``A = P + P' - P * P'`` with ``p_ij = exp(-max(0, d_ij - rho_i) / sigma_i)``; McInnes,
    Healy and Melville 2018, section 3.1, as ``umap.umap_.fuzzy_simplicial_set`` with its
    defaults (here without numba, whose compilation costs seconds).

    Returns
    -------
    (n, n) csr matrix of float32
        Symmetric, values in (0, 1], empty diagonal, sorted indices.
    """
    n, k = neighbors.indices.shape
    if k < 2:
        return sp.csr_matrix((n, n), dtype=np.float32)
    sigma, rho = _smooth_distances(neighbors.distances)
    excess = np.maximum(neighbors.distances.astype(np.float32) - rho[:, None], np.float32(0))
    weights = np.exp(-(excess / sigma[:, None]).astype(np.float64)).astype(np.float32)
    weights[neighbors.indices == np.arange(n)[:, None]] = 0
    directed = sp.csr_matrix(
        (weights.ravel(), neighbors.indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n)
    )
    directed.sum_duplicates()
    directed.eliminate_zeros()
    transposed = directed.T.tocsr()
    graph = (directed + transposed - directed.multiply(transposed)).tocsr()
    graph.eliminate_zeros()
    graph.sort_indices()
    return graph


def graph_connectivity(neighbors: Neighbors, labels: np.ndarray) -> float:
    """Mean over types of the share of its cells in its largest connected part.

    The directed neighbour graph is restricted to each type; parts are strongly connected.
    Luecken et al. 2022, "Graph connectivity"; equals ``scib_metrics.graph_connectivity``.

    Parameters
    ----------
    neighbors
        15 neighbours in the reference.
    labels : (n,) array
        Type of each cell.
    """
    from scipy.sparse.csgraph import connected_components

    n, k = neighbors.indices.shape
    graph = sp.csr_matrix(
        (np.ones(n * k, np.float32), neighbors.indices.ravel(), np.arange(0, n * k + 1, k)),
        shape=(n, n),
    )
    shares = []
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)
        _, parts = connected_components(graph[cells][:, cells], connection="strong")
        shares.append(np.bincount(parts).max() / len(cells))
    return float(np.mean(shares))
