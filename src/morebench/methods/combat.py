"""ComBat: each gene's location and scale by batch, shrunk by empirical Bayes; then PCA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import DataError, listed
from morebench.methods.transductive import need_every_cell, need_two_batches
from morebench.models.more.tokens import log_normalise

if TYPE_CHECKING:
    from anndata import AnnData

MIN_CELLS = 2  # a batch of one cell has no variance
MAX_SCALED = 10.0  # as in the PCA of the split's input


def run(data: MethodInput, *, seed: int, threads: int, n_components: int) -> MethodOutput:
    """Correct the split's genes with ``scanpy.pp.combat`` and embed cells by their PCA.

    Corrected values are scaled, clipped and decomposed as the split's own PCA is, so that
    the control ``pca`` is the same without the correction.

    Parameters
    ----------
    data
        The split's input; every cell must be fit-visible.
    seed
        Not used: neither ComBat nor the exact PCA draws anything.
    threads
        Of linear algebra.
    n_components
        Width of the embedding.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_components); ``notes`` with the number of genes corrected.

    Raises
    ------
    Unsupported
        A cell is not fit-visible, there is one batch only, or a batch of one cell.
    DataError
        There are fewer cells or varying genes than components, or ComBat has no solution.

    Notes
    -----
    Johnson, Li and Rabinovic 2007, Biostatistics 8, 118-127; parametric adjustments,
    without covariates.
    """
    need_every_cell(data, "ComBat")
    need_two_batches(data, "ComBat", MIN_CELLS)
    import scanpy as sc
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=threads):
        adata = corrected(data)
        valid = min(adata.shape)
        if not 1 <= n_components <= valid:
            raise DataError(
                f"n_components: found {n_components}, for {adata.n_obs} cells and "
                f"{adata.n_vars} genes that vary within a batch; valid is 1 to {valid}"
            )
        sc.pp.scale(adata, max_value=MAX_SCALED)
        # exact, whichever side is shorter: no start vector, so no seed
        solver: Any = "covariance_eigh" if adata.n_obs > adata.n_vars else "full"
        x_nd = sc.pp.pca(adata.X, n_comps=n_components, svd_solver=solver)
    notes = {"n_genes": adata.n_vars, "n_genes_left_out": len(data.genes) - adata.n_vars}
    return MethodOutput(embedding=np.asarray(x_nd, dtype=np.float32), notes=notes)


def corrected(data: MethodInput) -> AnnData:
    """Return the log-normalised values of the split's genes, corrected by ComBat.

    Genes without any variance inside batches are left out: they say nothing, and the
    undefined number that scanpy makes of one ends the iteration of all the others.

    Parameters
    ----------
    data
        The split's input.

    Returns
    -------
    AnnData (n, genes kept)
        ``X`` is an array of float64.

    Raises
    ------
    DataError
        No gene varies, or the result is not finite.
    """
    import scanpy as sc
    from anndata import AnnData

    x_ng = log_normalise(data.counts_ng).toarray()
    varies_g = np.zeros(x_ng.shape[1], dtype=bool)
    for name in np.unique(data.batch):
        varies_g |= np.ptp(x_ng[data.batch == name], axis=0) > 0
    if not varies_g.any():
        raise DataError(f"counts: none of {len(varies_g)} genes varies within a batch")
    adata = AnnData(
        x_ng[:, varies_g],
        obs=pd.DataFrame({"batch": pd.Categorical(data.batch)}, index=data.cell_ids.astype(str)),
        var=pd.DataFrame(index=data.genes[varies_g].astype(str)),
    )
    # a gene that is constant in one batch starts at a scale of 0, which the iteration leaves
    with np.errstate(divide="ignore", invalid="ignore"):
        adata.X = sc.pp.combat(adata, key="batch", inplace=False)
    bad = adata.var_names[~np.isfinite(adata.X).all(axis=0)]
    if len(bad):
        raise DataError(
            f"ComBat: no finite value for {len(bad)} of {adata.n_vars} genes ({listed(bad, 3)}); "
            "valid are batches with enough cells to estimate how scales vary over genes"
        )
    return adata
