"""Which features a model reads: the most variable ones, where there are many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from morebench.models.more.cells import Cells
from morebench.models.more.expression import normalise

N_TOP = {"rna": 2_000}
N_TOP_OTHER = 10_000
MIN_CELLS = 5


def most_variable(counts_ng: sp.csr_matrix, batch: np.ndarray, kind: str) -> np.ndarray:
    """Return the indices of the most variable features, in their order.

    The log variance of normalised values is compared with a quadratic in their log mean,
    within each batch of 20 cells or more; features are ranked by the mean of their excess.
    All are returned where they are not more than ``N_TOP`` of the modality.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix
    batch : (n,) array
    kind
        The modality, which decides the normalisation and the number.
    """
    g, n_top = counts_ng.shape[1], N_TOP.get(kind, N_TOP_OTHER)
    if g <= n_top:
        return np.arange(g)
    names, size = np.unique(batch, return_counts=True)
    large = [batch == name for name in names[size >= 20]] or [np.ones(len(batch), dtype=bool)]
    excess_g = np.mean([_excess(counts_ng[rows], kind) for rows in large], axis=0)
    found_g = np.asarray((counts_ng > 0).sum(0)).ravel()
    excess_g[found_g < MIN_CELLS] = -np.inf
    return np.sort(np.argsort(-excess_g, kind="stable")[:n_top])


def _excess(counts_ng: sp.csr_matrix, kind: str) -> np.ndarray:
    frequency_g = np.asarray((counts_ng > 0).mean(0)).ravel()
    x_ng = normalise(counts_ng, kind, frequency_g)
    mean_g = np.asarray(x_ng.mean(0)).ravel()
    square_g = np.asarray(x_ng.multiply(x_ng).mean(0)).ravel()
    variance_g = np.maximum(square_g - mean_g**2, 0)
    some = (mean_g > 0) & (variance_g > 0)
    excess_g = np.zeros(len(mean_g))
    if some.sum() > 3:
        a, b = np.log(mean_g[some]), np.log(variance_g[some])
        excess_g[some] = b - np.polyval(np.polyfit(a, b, 2), a)
    return excess_g


def with_variable_features(cells: Cells) -> Cells:
    """Keep the most variable features of every modality."""
    parts = {}
    for name, m in cells.modalities.items():
        kept = most_variable(m.counts_ng[m.present], cells.batch[m.present], name)
        parts[name] = replace(m, counts_ng=m.counts_ng[:, kept], names=m.names[kept])
    return Cells(parts, cells.batch)
