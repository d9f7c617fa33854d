"""Exact nearest neighbours, computed once an embedding and shared by every metric."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morebench.errors import DataError

#: Neighbours (the cell itself included) of each family of metrics, as in the Benchmarker
#: of scib-metrics 0.5.10: LISI 90, kBET 50, Leiden and graph connectivity 15.
K_LISI = 90
K_KBET = 50
K_GRAPH = 15

# Candidates searched beyond k, so that float32 rounding inside faiss cannot lose a true
# neighbour at the border once distances are recomputed in float64.
_MARGIN = 8
_CHUNK_ELEMENTS = 1 << 24


@dataclass(frozen=True)
class Neighbors:
    """The k nearest neighbours of every cell, itself first.

    Attributes
    ----------
    indices : (n, k) array of int64
        Sorted by distance, ties by index; column 0 is the cell itself.
    distances : (n, k) array of float32
        Euclidean distances; column 0 is 0.
    """

    indices: np.ndarray
    distances: np.ndarray

    @property
    def n_cells(self) -> int:
        """Number of cells, n."""
        return len(self.indices)

    @property
    def k(self) -> int:
        """Neighbours a cell, itself included."""
        return self.indices.shape[1]

    def subset(self, k: int) -> Neighbors:
        """Return the k nearest of them; all where there are fewer than k."""
        k = min(k, self.k)
        return Neighbors(self.indices[:, :k], self.distances[:, :k])


def checked_embedding(x_nd: np.ndarray) -> np.ndarray:
    """Return an (n, d) embedding as contiguous float64, or raise.

    Raises
    ------
    DataError
        If it is not a matrix, is empty, or holds a value that is not finite.
    """
    x = np.ascontiguousarray(x_nd, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise DataError(f"embedding: found shape {x.shape}; valid: (cells, dimensions), not empty")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(axis=1).sum())
        raise DataError(f"embedding: {bad} cells hold NaN or infinity; valid: finite numbers")
    return x


def exact_neighbors(x_nd: np.ndarray, k: int = K_LISI, *, threads: int = 1) -> Neighbors:
    """Find the k nearest cells of every cell, itself included and first.

    Candidates, a few more than k, come from ``faiss.IndexFlatL2`` on the centred embedding
    in float32; their distances are then recomputed in float64 and sorted, and the cell
    itself put first, which faiss does not promise among duplicates.

    Parameters
    ----------
    x_nd : (n, d) array
        Embedding.
    k
        Neighbours a cell, itself included; clipped to n where there are fewer cells, so
        that on small data a metric sees every cell rather than an error.
    threads
        OpenMP threads of the search; the answer does not depend on them.

    Raises
    ------
    DataError
        If the embedding is empty or not finite.
    """
    import faiss

    x = checked_embedding(x_nd)
    n = len(x)
    k = int(min(k, n))
    centred = x - x.mean(axis=0)
    # One common scale: float32 inside faiss overflows near 1e19.
    scale = float(np.abs(centred).max()) or 1.0
    x32 = np.ascontiguousarray(centred / scale, dtype=np.float32)
    before = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    faiss.omp_set_num_threads(max(1, threads))
    # Distances by differences: the matrix product |x|^2 + |y|^2 - 2xy that faiss takes for
    # many queries loses the digits that order the cells of a tight cluster.
    faiss.cvar.distance_compute_blas_threshold = n + 1
    try:
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x32)
        _, found = index.search(x32, min(n, k + _MARGIN))
    finally:
        faiss.omp_set_num_threads(before[0])
        faiss.cvar.distance_compute_blas_threshold = before[1]
    indices = np.empty((n, k), dtype=np.int64)
    distances = np.empty((n, k), dtype=np.float32)
    step = max(1, _CHUNK_ELEMENTS // (found.shape[1] * x.shape[1]))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        indices[rows], distances[rows] = _reranked(x, found[rows], start, k)
    return Neighbors(indices, distances)


def _reranked(
    x: np.ndarray, found: np.ndarray, start: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sort candidates by exact distance, with the cell itself first."""
    own = np.arange(start, start + len(found))
    # Among many duplicates a cell may be missing from its own candidates.
    lacks_self = ~(found == own[:, None]).any(axis=1)
    found = found.copy()
    found[lacks_self, -1] = own[lacks_self]
    squared = np.square(x[found] - x[own][:, None, :]).sum(axis=2)
    squared[found == own[:, None]] = -1.0
    order = np.lexsort((found, squared), axis=1)[:, :k]
    near = np.take_along_axis(squared, order, axis=1)
    return np.take_along_axis(found, order, axis=1), np.sqrt(np.maximum(near, 0.0))
