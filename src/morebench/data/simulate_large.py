"""Simulated RNA counts of very many cells, made block by block.

Symbols: n cells, k types, g genes, b batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data.bundled import assemble
from morebench.data.planted import require

if TYPE_CHECKING:
    from mudata import MuData

BLOCK = 10_000  # cells whose rates are dense at a time
MEAN_SD, TYPE_SD = 1.0, 0.7  # sd of log rates: of genes, and of types in a gene
DEPTH_SD = 0.3


def sim_large(
    *,
    n_cells: int,
    n_genes: int,
    n_types: int,
    n_batches: int,
    counts_per_cell: int,
    batch_effect: float,
    seed: int,
) -> MuData:
    """Simulate cells of some types and batches, as many as wanted.

    Log rates of genes are a gene's mean, plus its type's and its batch's shift (normal), and
    a cell's depth; counts are Poisson. Memory beyond the sparse result does not grow with
    the number of cells.

    Parameters
    ----------
    n_cells, n_genes, n_types, n_batches
    counts_per_cell
        Mean number of counts.
    batch_effect
        Sd of a batch's shift of a gene's log rate.
    seed

    Returns
    -------
    MuData
        ``rna``; obs ``batch`` and ``cell_type``, shares of types falling as 1 / rank.

    Raises
    ------
    ConfigError
        If a size or strength is out of range.
    """
    require(n_types >= 2, "n_types", n_types, "2 or more")
    require(n_batches >= 2, "n_batches", n_batches, "2 or more")
    require(n_cells >= 10 * n_types, "n_cells", n_cells, f"{10 * n_types} or more")
    require(n_genes >= 10, "n_genes", n_genes, "10 or more")
    require(counts_per_cell >= 1, "counts_per_cell", counts_per_cell, "1 or more")
    require(batch_effect >= 0, "batch_effect", batch_effect, "0 or more")
    rng = np.random.default_rng(seed)
    share_k = 1 / np.arange(1, n_types + 1)
    type_n = rng.choice(n_types, n_cells, p=share_k / share_k.sum())
    batch_n = rng.integers(n_batches, size=n_cells)
    mean_g = rng.normal(0, MEAN_SD, n_genes)
    type_kg = rng.normal(0, TYPE_SD, (n_types, n_genes))
    batch_bg = rng.normal(0, batch_effect, (n_batches, n_genes))
    blocks = []
    for start in range(0, n_cells, BLOCK):
        rows = slice(start, start + BLOCK)
        rate_ng = np.exp(mean_g + type_kg[type_n[rows]] + batch_bg[batch_n[rows]])
        depth_n = counts_per_cell * rng.lognormal(0, DEPTH_SD, len(rate_ng))
        rate_ng *= (depth_n / rate_ng.sum(1))[:, None]
        blocks.append(sp.csr_matrix(rng.poisson(rate_ng).astype(np.float32)))
    types = [f"type{i:02d}" for i in range(n_types)]
    batches = [f"b{i}" for i in range(n_batches)]
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.array(batches)[batch_n], categories=batches),
            "cell_type": pd.Categorical(np.array(types)[type_n], categories=types),
        },
        index=pd.Index([f"cell{i}" for i in range(n_cells)]),
    )
    return _as_mudata(sp.vstack(blocks, format="csr"), obs)


def _as_mudata(counts_ng: sp.csr_matrix, obs: pd.DataFrame) -> MuData:
    from anndata import AnnData

    genes = pd.Index([f"gene{i}" for i in range(counts_ng.shape[1])])
    cells = pd.DataFrame(index=obs.index)
    rna = AnnData(counts_ng, obs=cells, var=pd.DataFrame(index=genes))
    return assemble({"rna": rna}, obs)
