"""Denoised expression on entries that were held out: MoRE beside scVI and plain answers.

    MOREBENCH_DATA=/path/to/data python benchmarks/denoise.py [--dataset NAME.h5ad] [--seeds 0]

Of every cell, each count is kept with probability .9 (binomial thinning); methods are fitted
on what is kept and asked for each gene's share of the cell's counts. Held-out counts are then
scored by their mean Poisson deviance at the predicted share times the held-out library, on
the 2,000 most variable genes; smaller is better. ``mean`` predicts the average profile.
Nothing here is part of a ranking; all defaults.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import scipy.sparse as sp

KEPT = 0.9
FLOOR = 1e-8


def deviance(counts_ng: np.ndarray, share_ng: np.ndarray) -> float:
    """Mean Poisson deviance of counts at predicted shares of each cell's total."""
    share_ng = np.maximum(share_ng, FLOOR)
    share_ng = share_ng / share_ng.sum(1, keepdims=True)
    mean_ng = share_ng * counts_ng.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ng = np.where(counts_ng > 0, counts_ng * np.log(counts_ng / mean_ng), 0.0)
    return float(2 * np.nanmean(log_ng - counts_ng + mean_ng))


def more_share(
    counts: sp.csr_matrix, genes: np.ndarray, batch: np.ndarray, likelihood: str, seed: int
) -> np.ndarray:
    """Shares by MoRE without labels."""
    from morebench.models.more.cells import one_modality
    from morebench.models.more.model import MoRE
    from morebench.models.more.settings import Settings

    cells = one_modality(counts, genes, batch)
    model = MoRE.fit_cells(cells, None, Settings(likelihood=likelihood), seed=seed, device="cpu")
    found = model.denoise(cells)
    return np.expm1(found) if likelihood == "gaussian" else found


def scvi_share(
    counts: sp.csr_matrix, genes: np.ndarray, batch: np.ndarray, seed: int
) -> np.ndarray:
    """Shares by scVI at its defaults."""
    import anndata
    import pandas as pd
    import scvi

    scvi.settings.seed = seed
    index = [str(i) for i in range(len(batch))]
    data = anndata.AnnData(counts, obs=pd.DataFrame({"batch": batch}, index=index))
    data.var_names = list(genes)
    scvi.model.SCVI.setup_anndata(data, batch_key="batch")
    model = scvi.model.SCVI(data)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return np.asarray(model.get_normalized_expression(data))


def main() -> None:
    """Thin, fit, score, print."""
    import anndata
    import torch

    from morebench.models.more.genes import most_variable

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="cellbench_lungcelllines_multitech_doublets.h5ad")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = anndata.read_h5ad(Path(os.environ["MOREBENCH_DATA"]) / given.dataset)
    batch = data.obs["batch"].astype(str).to_numpy()
    full = sp.csr_matrix(data.X)
    top = most_variable(full, batch, "rna")
    counts, genes = full[:, top].toarray(), data.var_names.to_numpy()[top]
    for seed in given.seeds:
        rng = np.random.default_rng(seed)
        kept = rng.binomial(counts.astype(int), KEPT).astype(np.float32)
        held = counts - kept
        scored = (kept.sum(1) > 0) & (held.sum(1) > 0)
        sparse = sp.csr_matrix(kept)
        answers = {
            "mean": np.broadcast_to(kept.sum(0) / kept.sum(), kept.shape),
            "MoRE (gaussian)": more_share(sparse, genes, batch, "gaussian", seed),
            "MoRE (nb)": more_share(sparse, genes, batch, "nb", seed),
            "scVI": scvi_share(sparse, genes, batch, seed),
        }
        for name, share in answers.items():
            print(
                f"seed {seed}  {name:16s} {deviance(held[scored], share[scored]):.4f}", flush=True
            )


if __name__ == "__main__":
    main()
