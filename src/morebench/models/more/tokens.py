"""Tokens of a cell: its most informative features, with soft weights by their rank.

A feature informs where a cell expresses it above what cells usually do: its log-normalised
value against a background profile (mean and standard deviation over fit-visible cells).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from morebench.errors import DataError

TARGET_SUM = 1e4
MIN_WEIGHT = 0.2
CHUNK = 2048
SETTINGS = {"target_sum": TARGET_SUM, "min_weight": MIN_WEIGHT, "score": "z, median std added"}


@dataclass(frozen=True)
class Background:
    """What is usual: mean and standard deviation of log-normalised values, (g,) each."""

    mean_g: np.ndarray
    std_g: np.ndarray

    def digest(self) -> str:
        """SHA-256 of the two profiles."""
        hashed = hashlib.sha256(np.ascontiguousarray(self.mean_g, dtype="<f8").tobytes())
        hashed.update(np.ascontiguousarray(self.std_g, dtype="<f8").tobytes())
        return hashed.hexdigest()


@dataclass(frozen=True)
class Tokens:
    """Chosen features of cells, best first.

    index_nk : (n, k) array of int32
        Feature of each token; 0 where there is no token.
    weight_nk : (n, k) array of float32
        Soft weight in (0, 1], 0 where there is no token.
    n_tokens_n : (n,) array of int32
        How many of a cell's k places hold a token; they come first.
    """

    index_nk: np.ndarray
    weight_nk: np.ndarray
    n_tokens_n: np.ndarray


def log_normalise(counts_ng: sp.csr_matrix) -> sp.csr_matrix:
    """``log1p`` of counts scaled to ``TARGET_SUM`` per cell; an empty cell stays empty.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix
        Counts, >= 0. Unchanged.

    Returns
    -------
    (n, g) csr matrix of float64
        In canonical form: columns sorted within a cell, no explicit zeros.
    """
    x_ng = sp.csr_matrix(counts_ng, dtype=np.float64, copy=True)
    x_ng.sum_duplicates()
    x_ng.eliminate_zeros()
    bad = ~np.isfinite(x_ng.data) | (x_ng.data < 0)
    if bad.any():
        raise DataError(f"counts hold {x_ng.data[bad][0]}; counts are finite and >= 0")
    depth_n = np.asarray(x_ng.sum(axis=1)).ravel()
    scale_n = np.divide(TARGET_SUM, depth_n, out=np.zeros_like(depth_n), where=depth_n > 0)
    x_ng.data = np.log1p(x_ng.data * np.repeat(scale_n, np.diff(x_ng.indptr)))
    return x_ng


def background(counts_ng: sp.csr_matrix, fit_visible_n: np.ndarray) -> Background:
    """Background profile of the cells that a split lets a method fit on.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix
        Raw counts.
    fit_visible_n : (n,) array of bool
        Cells that count; at least one.

    Returns
    -------
    Background
        Zeros count as values, as in the dense matrix; population standard deviation.
    """
    rows = np.flatnonzero(fit_visible_n)
    if len(fit_visible_n) != counts_ng.shape[0] or not len(rows):
        raise DataError(
            f"fit_visible has {len(fit_visible_n)} entries, {len(rows)} of them true; expected "
            f"{counts_ng.shape[0]} entries with at least one true"
        )
    total_g, square_g = np.zeros(counts_ng.shape[1]), np.zeros(counts_ng.shape[1])
    for start in range(0, len(rows), CHUNK):
        x_ng = log_normalise(counts_ng[rows[start : start + CHUNK]])
        total_g += np.bincount(x_ng.indices, x_ng.data, len(total_g))
        square_g += np.bincount(x_ng.indices, x_ng.data**2, len(total_g))
    mean_g = total_g / len(rows)
    return Background(mean_g, np.sqrt(np.maximum(square_g / len(rows) - mean_g**2, 0)))


def choose_tokens(counts_ng: sp.csr_matrix, usual: Background, k: int) -> Tokens:
    """Choose the k most informative features of each cell among those that it expresses.

    The information of a feature is its z-score against the background. Its standard
    deviation is raised by the median over expressed features (the fudge factor of Tusher et
    al. 2001, eq. 1), else single counts of features that next to no cell expresses would
    come first everywhere. The weight is ``0.2 + 0.8 * positive part / largest of the cell``.
    Ties go to the lower feature index.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix
        Raw counts; read in chunks of cells, never made dense.
    usual
        Background profile of the same g features.
    k
        Tokens a cell, >= 1. A cell that expresses fewer features has fewer tokens.

    Returns
    -------
    Tokens
    """
    n, g = counts_ng.shape
    if k < 1 or len(usual.mean_g) != g:
        raise DataError(
            f"k = {k} tokens of {g} features against a background of {len(usual.mean_g)}; "
            "expected k >= 1 and a background of the same features"
        )
    expressed = usual.std_g > 0
    spread_g = usual.std_g + (np.median(usual.std_g[expressed]) if expressed.any() else 1.0)
    index_nk = np.zeros((n, k), dtype=np.int32)
    weight_nk = np.zeros((n, k), dtype=np.float32)
    n_tokens_n = np.zeros(n, dtype=np.int32)
    for start in range(0, n, CHUNK):
        x_ng = log_normalise(counts_ng[start : start + CHUNK])
        z = (x_ng.data - usual.mean_g[x_ng.indices]) / spread_g[x_ng.indices]
        for row, (a, b) in enumerate(zip(x_ng.indptr[:-1], x_ng.indptr[1:], strict=True), start):
            best = a + _best(z[a:b], k)
            n_tokens_n[row] = len(best)
            index_nk[row, : len(best)] = x_ng.indices[best]
            weight_nk[row, : len(best)] = _soft_rank(z[best])
    return Tokens(index_nk, weight_nk, n_tokens_n)


def _best(z: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest values, largest first, the first of equal ones."""
    keep = np.arange(len(z))
    if len(z) > k:
        keep = np.flatnonzero(z >= np.partition(z, len(z) - k)[len(z) - k])
    return keep[np.argsort(-z[keep], kind="stable")][:k]


def _soft_rank(z: np.ndarray) -> np.ndarray:
    positive = np.maximum(z, 0)
    top = positive.max(initial=0)
    return MIN_WEIGHT + (1 - MIN_WEIGHT) * (positive / top if top > 0 else positive)
