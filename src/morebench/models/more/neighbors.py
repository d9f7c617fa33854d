"""Nearest neighbours by cosine, exact: faiss where present, scikit-learn elsewhere."""

from __future__ import annotations

import importlib.util

import numpy as np


def unit(x_nd: np.ndarray) -> np.ndarray:
    """Return rows of length 1 (rows of zeros stay)."""
    length = np.linalg.norm(x_nd, axis=1, keepdims=True)
    return np.ascontiguousarray(x_nd / np.maximum(length, 1e-12), dtype=np.float32)


def nearest(query_nd: np.ndarray, reference_md: np.ndarray, k: int) -> np.ndarray:
    """Return (n, k) int64: the nearest reference rows of each query row, nearest first."""
    k = min(k, len(reference_md))
    query, reference = unit(query_nd), unit(reference_md)
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        index = faiss.IndexFlatIP(reference.shape[1])
        index.add(reference)
        return index.search(query, k)[1]
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(reference)
    return found.kneighbors(query, return_distance=False)
