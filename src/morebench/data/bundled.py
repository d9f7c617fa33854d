"""Real cells that ship inside scanpy, as they are and with planted technical effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data import planted
from morebench.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

MAX_DEVIATION = 0.25

# The correlation-derived labels confuse monocytes with dendritic cells and the T cell
# states with each other; the coarse level joins what they confuse.
COARSE = {
    "CD14+ Monocyte": "Myeloid cell",
    "CD19+ B": "B cell",
    "CD34+": "Progenitor",
    "CD4+/CD25 T Reg": "T cell",
    "CD4+/CD45RA+/CD25- Naive T": "T cell",
    "CD4+/CD45RO+ Memory": "T cell",
    "CD56+ NK": "NK cell",
    "CD8+ Cytotoxic T": "T cell",
    "CD8+/CD45RA+ Naive Cytotoxic": "T cell",
    "Dendritic": "Myeloid cell",
}


def recover_counts(log_counts_ng: sp.spmatrix) -> tuple[sp.csr_matrix, np.ndarray]:
    """Undo depth scaling and log1p: every cell's values over its smallest non-zero one.

    Right where each cell has a gene with a single count, as shallow droplet data have.

    Parameters
    ----------
    log_counts_ng : (n, g) sparse matrix
        ``log1p(scale_n * counts_ng)``.

    Returns
    -------
    counts : (n, g) csr matrix of float32
        Integers.
    deviation : (n,) array
        Largest distance of a cell's values from integers.

    Raises
    ------
    DataError
        If a cell is empty, or a value is further than ``MAX_DEVIATION`` from an integer.
    """
    values = sp.csr_matrix(log_counts_ng, dtype=np.float64, copy=True)
    values.eliminate_zeros()
    stored_n = np.diff(values.indptr)
    if (stored_n == 0).any():
        raise DataError(f"counts: cell {int(np.argmin(stored_n))} has no counts")
    scaled = np.expm1(values.data)
    ratio = scaled / np.repeat(np.minimum.reduceat(scaled, values.indptr[:-1]), stored_n)
    counts = np.rint(ratio)
    deviation = np.maximum.reduceat(np.abs(ratio - counts), values.indptr[:-1])
    if deviation.max() > MAX_DEVIATION:
        raise DataError(
            f"counts: the values of {int((deviation > MAX_DEVIATION).sum())} cells are no "
            f"integer multiples of their smallest (deviation {deviation.max():.3f}; "
            f"valid: <= {MAX_DEVIATION})"
        )
    out = sp.csr_matrix(
        (counts.astype(np.float32), values.indices, values.indptr), shape=values.shape
    )
    out.sort_indices()
    return out, deviation


def assemble(modalities: Mapping[str, AnnData], obs: pd.DataFrame) -> MuData:
    """Join modalities into a MuData whose cells and global obs are those of ``obs``.

    Raises
    ------
    DataError
        If the joined cells are not those of ``obs``, in order.
    """
    import mudata

    # Modality var columns stay where they are; pulling would duplicate them globally.
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData(dict(modalities))
    if list(data.obs_names) != list(obs.index):
        raise DataError("modalities: their joined cells are not those of obs, in order")
    data.obs = obs.copy()
    return data


def _read_pbmc68k() -> tuple[sp.csr_matrix, pd.Index, pd.DataFrame]:
    import scanpy as sc

    source = sc.datasets.pbmc68k_reduced()
    counts, _ = recover_counts(source.raw.X)
    cell_type = source.obs["bulk_labels"].astype(str)
    unknown = sorted(set(cell_type) - set(COARSE))
    if unknown:
        raise DataError(f"pbmc68k_reduced: bulk_labels holds {unknown}; valid: {sorted(COARSE)}")
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(cell_type),
            "cell_type_coarse": pd.Categorical(cell_type.map(COARSE)),
            "phase": pd.Categorical(source.obs["phase"].astype(str)),
        },
        index=pd.Index(source.obs_names.astype(str), name=None),
    )
    return counts, pd.Index(source.raw.var_names.astype(str), name=None), obs


def _rna(counts: sp.csr_matrix, cells: pd.Index, genes: pd.Index) -> AnnData:
    from anndata import AnnData

    return AnnData(counts, obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes))


def pbmc68k() -> MuData:
    """Return 700 real PBMCs (765 genes) of Zheng et al. 2017, as counts.

    Source: ``scanpy.datasets.pbmc68k_reduced()``, which ships inside scanpy; its ``.raw``
    holds log counts, from which ``recover_counts`` gets the integers. The labels come
    from the correlation with sorted profiles (label source ``derived``), not from experts.

    Returns
    -------
    MuData
        ``rna``; obs ``batch`` (constant ``pbmc68k``), ``cell_type``,
        ``cell_type_coarse``, ``phase``.
    """
    counts, genes, obs = _read_pbmc68k()
    obs.insert(0, "batch", pd.Series("pbmc68k", index=obs.index, dtype="category"))
    return assemble({"rna": _rna(counts, obs.index, genes)}, obs)


def pbmc68k_batches(
    *,
    n_batches: int,
    gene_effect: float,
    depth: Sequence[float],
    ambient: float,
    imbalance: float,
    doublet_rate: float,
    doublet_heterotypic: float,
    seed: int,
) -> MuData:
    """Return the cells of ``pbmc68k`` with planted batch effects and doublets.

    In the order of an experiment: cells are shared out to batches (``planted.compose``
    on ``cell_type``), doublets form (sums of two untouched cells of a batch, kinds by
    ``cell_type_coarse``), ambient molecules enter, genes are captured with batch-wise
    factors, and batches are sequenced to different depths. Each step draws from a
    generator of its own, so a change of one strength leaves the other draws alone. Cells
    are shuffled at the end, so that no position tells a doublet.

    The parents of a doublet stay in the data, which makes doublets somewhat easier to
    find than those of an experiment.

    Parameters
    ----------
    n_batches
        Two or more.
    gene_effect
        Sd of the log factors per batch and gene; 0 is neutral.
    depth : (n_batches,) fractions
        Share of molecules kept in each batch; 1 is neutral.
    ambient
        Share of a cell's molecules replaced by ambient ones; 0 is neutral.
    imbalance
        Sd of the log odds of a type's shares over batches; 0 shares equally.
    doublet_rate
        Doublets added per singlet of a batch.
    doublet_heterotypic
        Share of doublets that join two coarse types.
    seed

    Returns
    -------
    MuData
        ``rna``; obs ``batch``, ``cell_type`` and ``cell_type_coarse`` and ``phase``
        (missing for doublets), ``is_doublet``, ``doublet_kind`` (missing for singlets).
        ``uns['planted']`` holds strengths, steps and composition;
        ``mod['rna'].uns['gene_factors']`` the (g, n_batches) factors. A doublet's id
        joins those of its parents by ``+``.

    Raises
    ------
    ConfigError
        If a strength is out of range.
    DataError
        If the cells do not suffice for the batches or doublets asked for.
    """
    planted.require(n_batches >= 2, "n_batches", n_batches, "an integer >= 2")
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
    counts, genes, obs = _read_pbmc68k()
    types = obs["cell_type"].astype(str).to_numpy()
    batch = planted.compose(types, n_batches, imbalance, streams[0])
    composition = pd.crosstab(types, batch)

    pairs = planted.doublets(
        counts,
        batch,
        obs["cell_type_coarse"].astype(str).to_numpy(),
        doublet_rate,
        doublet_heterotypic,
        streams[1],
    )
    ids = obs.index.to_numpy()
    added = pd.Index([f"{ids[a]}+{ids[b]}" for a, b in zip(pairs.first, pairs.second, strict=True)])
    singlet = np.arange(len(obs) + len(added)) < len(obs)
    obs = obs.reindex(obs.index.append(added))
    code = np.concatenate([batch, pairs.batch])
    batches = [f"batch{b + 1}" for b in range(n_batches)]
    named = pd.Series(np.array(batches)[code], index=obs.index)
    obs.insert(0, "batch", named.astype(pd.CategoricalDtype(batches)))
    obs["is_doublet"] = ~singlet
    kind = np.full(len(obs), None, dtype=object)
    kind[~singlet] = pairs.kind
    obs["doublet_kind"] = pd.Categorical(kind, categories=["heterotypic", "homotypic"])

    made = planted.ambient(sp.vstack([counts, pairs.counts]), code, ambient, streams[2])
    made, factors_bg = planted.gene_effect(made, code, gene_effect, streams[3])
    made = planted.depth(made, code, depth, streams[4])

    order = streams[5].permutation(len(obs))
    obs = obs.iloc[order]
    rna = _rna(made[order], obs.index, genes)
    rna.uns["gene_factors"] = factors_bg.T.copy()
    data = assemble({"rna": rna}, obs)
    data.uns["planted"] = _record(
        strengths={
            "n_batches": n_batches,
            "gene_effect": gene_effect,
            "depth": [float(f) for f in depth],
            "ambient": ambient,
            "imbalance": imbalance,
            "doublet_rate": doublet_rate,
            "doublet_heterotypic": doublet_heterotypic,
            "seed": seed,
        },
        batches=batches,
        composition=composition,
        doublets=np.bincount(pairs.batch, minlength=n_batches),
    )
    return data


def _record(
    strengths: dict[str, Any],
    batches: list[str],
    composition: pd.DataFrame,
    doublets: np.ndarray,
) -> dict[str, Any]:
    """Return the truth of the planted effects in plain types (json and h5mu hold them)."""
    return {
        "steps": ["compose", "doublets", "ambient", "gene_effect", "depth"],
        "strengths": strengths,
        "batches": batches,
        "cell_types": [str(t) for t in composition.index],
        "singlets_by_type_and_batch": composition.to_numpy().tolist(),
        "doublets_by_batch": doublets.tolist(),
    }
