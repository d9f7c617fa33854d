"""Local inverse Simpson's index: iLISI, cLISI and CiLISI."""

from __future__ import annotations

import numpy as np

from morebench.metrics.neighbors import Neighbors, exact_neighbors
from morebench.metrics.undefined import UndefinedMetric

#: Neighbours of CiLISI beside the cell itself, and its perplexity (scIntegrationMetrics).
CILISI_NEIGHBORS = 30


def _coded(groups: np.ndarray) -> tuple[np.ndarray, int]:
    names, codes = np.unique(groups, return_inverse=True)
    return codes, len(names)


def _median_lisi(
    neighbors: Neighbors, groups: np.ndarray, what: str, cells: np.ndarray | None
) -> tuple[float, int]:
    """Median LISI of the cells, or of some of them, and the number of groups.

    The reference's own code runs here: it finds each cell's weights by a bisection in
    float32 that stops within 1e-5, so other arithmetic stops elsewhere for one cell in
    forty and moves the median by up to 1e-5.
    """
    codes, n_groups = _coded(groups)
    if n_groups < 2:
        raise UndefinedMetric(f"one {what} only among the scored cells: {groups[0]}")
    perplexity = neighbors.k // 3
    if perplexity < 2:
        raise UndefinedMetric(f"LISI needs at least 6 cells; found {neighbors.n_cells}")
    rows = np.arange(neighbors.n_cells) if cells is None else cells
    from scib_metrics.utils import compute_simpson_index

    simpson = compute_simpson_index(
        knn_dists=neighbors.distances[rows],
        knn_idx=neighbors.indices[rows],
        row_idx=rows[:, None],
        labels=codes,
        n_labels=n_groups,
        perplexity=np.float64(perplexity),
    )
    simpson = np.asarray(simpson)
    if (simpson < 0).mean() > 0.5:
        # The reference marks cells without weights by -1, and scales that like a value:
        # an iLISI below 0, a cLISI above 1.
        raise UndefinedMetric("LISI has no weights: the neighbours of most cells are equally far")
    return float(np.median(1 / simpson)), n_groups


def ilisi(neighbors: Neighbors, batch: np.ndarray, cells: np.ndarray | None = None) -> float:
    """Batch mixing: ``(median LISI - 1) / (batches - 1)``; 1 is perfect mixing.

    LISI is the effective number of batches among a cell's neighbours (90), weighted so
    that their perplexity is a third of them (Korsunsky et al. 2019; scaled as in Luecken
    et al. 2022). Equals ``scib_metrics.ilisi_knn``.

    Parameters
    ----------
    batch : (n,) array
    cells : (m,) array of int, or None
        Places of the cells whose neighbours count; None stands for all.

    Raises
    ------
    UndefinedMetric
        With one batch, fewer than 6 cells, or neighbours that are all equally far.
    """
    median, n = _median_lisi(neighbors, batch, "batch", cells)
    return (median - 1) / (n - 1)


def clisi(neighbors: Neighbors, labels: np.ndarray, cells: np.ndarray | None = None) -> float:
    """Purity of types: ``(types - median LISI) / (types - 1)``; 1 is pure.

    As :func:`ilisi`, for types. Equals ``scib_metrics.clisi_knn``.

    Raises
    ------
    UndefinedMetric
        With one type, fewer than 6 cells, or neighbours that are all equally far.
    """
    median, n = _median_lisi(neighbors, labels, "cell type", cells)
    return (n - median) / (n - 1)


def cilisi(
    x_nd: np.ndarray, labels: np.ndarray, batch: np.ndarray, *, threads: int = 1
) -> tuple[float, np.ndarray]:
    """Cell-type aware iLISI: batch mixing inside each type, so mixing types gains nothing.

    For every type with at least two batches and three cells: LISI of the batch among the
    ``k = min(30, cells - 1)`` nearest cells of the type, normalised by the batches of
    that type, ``(LISI - 1) / (batches - 1)``; the mean over all those cells.

    Andreatta et al. 2024 (STACAS), package scIntegrationMetrics
    (github.com/carmonalab/scIntegrationMetrics, ``getIntegrationMetrics``, ``CiLISI``). It
    asks for perplexity k among k neighbours, which only equal weights have: they are used
    as such, where the package approaches them by bisection. A type of one batch, NaN
    there, is left out here and shows in the coverage.

    Returns
    -------
    value
        Mean over tested cells, 0..1.
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
        codes, n_batches = _coded(batch[cells])
        if n_batches < 2 or len(cells) < 3:
            continue
        k = min(CILISI_NEIGHBORS, len(cells) - 1)
        near = codes[exact_neighbors(x_nd[cells], k + 1, threads=threads).indices[:, 1:]]
        shares = np.stack([(near == g).mean(axis=1) for g in range(n_batches)])
        values[cells] = (1 / np.square(shares).sum(axis=0) - 1) / (n_batches - 1)
        tested[cells] = True
    if not tested.any():
        raise UndefinedMetric("no cell type has two batches and three cells")
    return float(values[tested].mean()), tested
