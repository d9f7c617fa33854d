"""The input of a split: highly variable genes and PCA of its fit-visible cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data.mapping import check_size
from morebench.data.pca import BLOCK, ScaledPCA
from morebench.data.prepare import main_modality
from morebench.data.spec import Features
from morebench.errors import DataError, listed
from morebench.io.backed import (
    BackedCounts,
    Counts,
    blocks_of,
    found_in,
    in_memory,
    without_counts,
)
from morebench.sample import sample_rows

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

TARGET_SUM = 1e4
MIN_RANKED = 2  # a batch of one cell has no dispersion: scanpy fails on it, or crashes


@dataclass
class SplitInput:
    """The input of a split, with what its figures need.

    Attributes
    ----------
    data
        Counts of the chosen genes (zeros, where these stay in a file), ``obsm['X_pca']``, batch,
        ``fit_visible``.
    counts : (n, g) csr matrix, or in a file
        Those counts.
    genes : (all genes that pass ``min_cells``, 6) DataFrame
        ``gene, n_cells, mean, dispersion, dispersion_norm, highly_variable``.
    facts
        PCA variance ratios and sizes.
    """

    data: AnnData
    counts: Counts
    genes: pd.DataFrame
    facts: dict[str, Any]


def log_normalise(counts_ng: sp.csr_matrix, target_sum: float = TARGET_SUM) -> sp.csr_matrix:
    """Return log1p of counts scaled to ``target_sum`` a cell; empty cells stay empty."""
    total = np.asarray(counts_ng.sum(1), dtype=np.float64).ravel()
    factor = np.divide(target_sum, total, out=np.zeros_like(total), where=total > 0)
    scaled = (sp.diags(factor) @ counts_ng).tocsr().astype(np.float32)
    return scaled.log1p()


def choose_genes(
    counts_ng: sp.csr_matrix, log_ng: sp.csr_matrix, batch: np.ndarray, features: Features
) -> pd.DataFrame:
    """Choose highly variable genes with scanpy.

    Parameters
    ----------
    counts_ng, log_ng : (n, g) csr matrices
        Raw counts (``seurat_v3`` uses them) and log-normalised values (the others do).
    batch : (n,) array of str
        With ``batch_aware``, genes are ranked within batches and the ranks combined;
        cells of a batch of fewer than ``MIN_RANKED`` cells take no part.

    Returns
    -------
    (g, 4) DataFrame
        ``mean, dispersion, dispersion_norm, highly_variable``.

    Raises
    ------
    DataError
        scanpy cannot rank genes by this flavour within batches this small.
    """
    import anndata
    import scanpy as sc

    names, sizes = np.unique(batch, return_counts=True)
    within = names[sizes >= MIN_RANKED]
    aware = features.batch_aware and len(within) > 0
    ranked = np.isin(batch, within) if aware else np.ones(len(batch), dtype=bool)
    by_rank = features.flavor == "seurat_v3"
    data = anndata.AnnData((counts_ng if by_rank else log_ng)[ranked])
    data.obs["batch"] = pd.Categorical(batch[ranked])
    try:
        sc.pp.highly_variable_genes(
            data,
            n_top_genes=min(features.n_top, data.n_vars),
            flavor=features.flavor,
            batch_key="batch" if aware and len(within) > 1 else None,
        )
    except ValueError as error:
        found = listed(f"{n}: {s}" for n, s in zip(names, sizes, strict=True))
        raise DataError(
            f"features.flavor: {features.flavor!r} cannot rank genes in cells by batch of {found} "
            f"({' '.join(str(error).split())[:200]}); valid here: seurat, or batch_aware: false"
        ) from error
    spread = ("variances", "variances_norm") if by_rank else ("dispersions", "dispersions_norm")
    return pd.DataFrame(
        {
            "mean": data.var["means"].to_numpy(dtype=float),
            "dispersion": data.var[spread[0]].to_numpy(dtype=float),
            "dispersion_norm": data.var[spread[1]].to_numpy(dtype=float),
            "highly_variable": data.var["highly_variable"].to_numpy(dtype=bool),
        }
    )


def make_input(
    prepared: MuData,
    fit_visible: np.ndarray,
    features: Features,
    where: str,
    in_file: Mapping[str, BackedCounts] | None = None,
) -> SplitInput:
    """Make the input that every method of a split is given; labels are not read.

    In memory are the cells that genes and PCA are fitted on, and a block of the others.

    Parameters
    ----------
    prepared
        The prepared dataset, n cells.
    fit_visible : (n,) array of bool
    in_file
        Its counts by modality, where ``prepared`` does not hold them.

    Raises
    ------
    DataError
        Fewer fitted cells or genes than dimensions; cells without the main modality.
    """
    import anndata

    main = main_modality(list(prepared.mod))
    part = prepared.mod[main]
    if part.n_obs != prepared.n_obs:
        raise DataError(
            f"{where}: {prepared.n_obs - part.n_obs} cells lack {main}, which single-modality "
            "methods need; leave them out with 'exclude:'"
        )
    counts: Counts = sp.csr_matrix(part.X) if in_file is None else in_file[main]
    batch = prepared.obs["batch"].astype(str).to_numpy()
    visible = np.flatnonzero(fit_visible)
    fitted = visible[sample_rows(batch[visible], features.sample, features.seed)]
    counts_fg = in_memory(counts[fitted])
    found = found_in(counts_fg)
    enough = found >= features.min_cells
    check_size(len(fitted), int(enough.sum()), features.n_pcs, where)
    counts_fg = counts_fg[:, enough]
    log_fg = log_normalise(counts_fg)
    genes = choose_genes(counts_fg, log_fg, batch[fitted], features)
    chosen = genes["highly_variable"].to_numpy()
    check_size(len(fitted), int(chosen.sum()), features.n_pcs, where)
    pca = ScaledPCA(log_fg[:, chosen], features.n_pcs)
    counts = counts[:, enough]
    logs = (log_normalise(block)[:, chosen] for block in blocks_of(counts, BLOCK))
    pca_np = np.concatenate([pca.transform(log_bg) for log_bg in logs])

    obs = prepared.obs[[c for c in ("batch", "donor", "platform") if c in prepared.obs]].copy()
    obs["fit_visible"] = fit_visible
    names = part.var_names[enough]
    counts = counts[:, chosen]
    held = without_counts(counts.shape) if isinstance(counts, BackedCounts) else counts
    data = anndata.AnnData(
        held, obs=obs, var=pd.DataFrame(index=names[chosen]), obsm={"X_pca": pca_np}
    )
    genes.insert(0, "gene", names.astype(str))
    genes.insert(1, "n_cells", found[enough])
    facts = {
        "pca_variance_ratio": [float(r) for r in pca.variance_ratio],
        "n_genes": int(chosen.sum()),
        "n_genes_considered": int(enough.sum()),
        "n_fitted": len(fitted),
        "flavor": features.flavor,
        "modality": main,
    }
    return SplitInput(data, counts, genes, facts)
