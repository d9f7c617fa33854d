"""Simulated RNA, ATAC and protein counts of cells that share one state.

Symbols: n cells, k types, s state dimensions, g genes, p peaks, a proteins, b batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data.bundled import assemble
from morebench.data.planted import apportion, compose, log_normal_factors, require

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

# The shape of the simulation; what decides its difficulty for a study is a parameter.
STATE_DIM = 16
TYPES_PER_LINEAGE = 3
LINEAGE_SD = 0.6
TYPE_SD, RARE_SD = 0.3, 0.75
WITHIN_SD = 0.22
PATH_LENGTH = 2.2
LOADING_SHARE = 0.15
LOADING_SD = 0.55
# Batch effects are not one shift for all cells: lineages and donors have their own part.
LINEAGE_EFFECT = 0.3
DONOR_EFFECT = 0.25
DEPTH_EFFECT = 0.5
DONORS_PER_BATCH = 2
GENE_DEPTH, PEAK_DEPTH = 700.0, 200.0
GENE_SHAPE, PROTEIN_SHAPE = 3.0, 6.0
PROTEIN_SIGNAL, PROTEIN_BACKGROUND = 40.0, 12.0
PEAK_WIDTH, GENE_SPACING, CHROMOSOMES = 500, 10_000, 4


def sim_multiome(
    *,
    n_cells: int,
    n_genes: int,
    n_peaks: int,
    n_proteins: int,
    n_types: int,
    n_rare: int,
    rare_fraction: float,
    n_batches: int,
    batch_effect: float,
    missing_fraction: float,
    seed: int,
) -> MuData:
    """Simulate a multiome whose modalities see the same cell states.

    A cell's state is its type's centre (lineage plus type), a place along a path of its
    type, and noise. Sparse loadings turn states into log fold changes of genes. Counts:

    * ``rna``: gamma-Poisson of proportions times a library size (the model of Splatter,
      Zappia et al. 2017);
    * ``atac``: Poisson of low rate; a peak follows its nearest gene (``var['nearest_gene']``);
    * ``adt``: gamma-Poisson of a signal that follows the gene (``var['gene']``) plus a
      background of unbound antibody.

    Each modality has its own batch factors, log-normal per batch and feature, with
    smaller parts per batch and lineage and per donor, and a depth per batch; all scale
    with ``batch_effect``.

    Parameters
    ----------
    n_cells, n_genes, n_peaks, n_proteins
    n_types
        All types, the rare ones included.
    n_rare
        The last types, each of ``rint(rare_fraction * n_cells)`` cells (at least 2).
    rare_fraction
    n_batches
        Types are shared out to them equally; each has two donors.
    batch_effect
        Sd of the log factors; 0 leaves batches alike.
    missing_fraction
        ``rint(missing_fraction * n_cells)`` cells lack ``atac`` or ``adt`` (a fair coin).
    seed

    Returns
    -------
    MuData
        ``rna`` (all cells), ``atac``, ``adt``; obs ``batch``, ``donor``, ``cell_type``,
        ``cell_type_coarse`` (the lineage). ``uns['planted']`` holds the strengths and rare
        types; ``mod[m].uns['batch_factors']`` the (features, n_batches) factors.

    Raises
    ------
    ConfigError
        If a size or strength is out of range.
    """
    strengths = dict(locals())
    _check(**strengths)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(7)]
    # Dealt out in turn, so that every rare type has common relatives in its lineage.
    lineage_k = np.arange(n_types) % max(2, round(n_types / TYPES_PER_LINEAGE))
    type_n = _types(n_cells, n_types, n_rare, rare_fraction, streams[0])
    batch_n = compose(type_n, n_batches, 0.0, streams[1])
    group = np.array([f"{b}-{t}" for b, t in zip(batch_n, type_n, strict=True)])
    half_n = np.zeros(n_cells, dtype=int)
    for cells in pd.Series(range(n_cells)).groupby(group).indices.values():
        half_n[streams[1].permutation(cells)] = np.arange(len(cells)) % DONORS_PER_BATCH
    donor_n = batch_n * DONORS_PER_BATCH + half_n
    spread_k = np.where(np.arange(n_types) < n_types - n_rare, TYPE_SD, RARE_SD)
    state_ns = _states(type_n, lineage_k, spread_k, streams[2])
    fold_ng = state_ns @ _loadings(n_genes, streams[3])

    width = len(str(n_cells))
    cells = pd.Index([f"cell{i + 1:0{width}d}" for i in range(n_cells)])
    genes = np.array([f"gene{i + 1:04d}" for i in range(n_genes)])
    groups = (batch_n, lineage_k[type_n], donor_n)
    modalities = {
        "rna": _rna(fold_ng, genes, groups, batch_effect, streams[4]),
        "atac": _atac(fold_ng, genes, n_peaks, groups, batch_effect, streams[5]),
        "adt": _adt(fold_ng, genes, n_proteins, groups, batch_effect, streams[6]),
    }
    lacks = np.full(n_cells, "none", dtype=object)
    gone = streams[0].permutation(n_cells)[: int(np.rint(missing_fraction * n_cells))]
    lacks[gone] = np.where(streams[0].random(len(gone)) < 0.5, "atac", "adt")
    for name, modality in modalities.items():
        modality.obs_names = cells
        modalities[name] = modality[lacks != name].copy()

    names = [f"type{t + 1:02d}" for t in range(n_types)]
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical([f"batch{b + 1}" for b in batch_n]),
            "donor": pd.Categorical([f"donor{d + 1:02d}" for d in donor_n]),
            "cell_type": pd.Categorical([names[t] for t in type_n]),
            "cell_type_coarse": pd.Categorical([f"lineage{x + 1}" for x in lineage_k[type_n]]),
        },
        index=cells,
    )
    data = assemble(modalities, obs)
    data.uns["planted"] = {
        "strengths": strengths,
        "batches": [f"batch{b + 1}" for b in range(n_batches)],
        "rare_types": names[n_types - n_rare :],
    }
    return data


def _check(**given: Any) -> None:
    """Raise ConfigError for a size or strength out of range."""
    for key in ("n_cells", "n_genes", "n_peaks", "n_proteins"):
        require(given[key] >= 1, key, given[key], "an integer >= 1")
    require(given["n_types"] >= 2, "n_types", given["n_types"], "an integer >= 2")
    require(
        given["n_proteins"] <= given["n_genes"],
        "n_proteins",
        given["n_proteins"],
        f"at most n_genes = {given['n_genes']}",
    )
    require(
        0 <= given["n_rare"] < given["n_types"],
        "n_rare",
        given["n_rare"],
        f"0 to {given['n_types'] - 1}, fewer than n_types",
    )
    require(
        0 <= given["rare_fraction"] * max(given["n_rare"], 1) < 0.5,
        "rare_fraction",
        given["rare_fraction"],
        "fractions whose sum over the n_rare types is below .5",
    )
    require(given["n_batches"] >= 1, "n_batches", given["n_batches"], "an integer >= 1")
    require(given["batch_effect"] >= 0, "batch_effect", given["batch_effect"], "a number >= 0")
    require(
        0 <= given["missing_fraction"] < 1,
        "missing_fraction",
        given["missing_fraction"],
        "a fraction in [0, 1)",
    )
    enough = 10 * given["n_types"]
    require(given["n_cells"] >= enough, "n_cells", given["n_cells"], f"at least {enough}")


def _types(
    n_cells: int, n_types: int, n_rare: int, rare_fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the (n,) type codes in random order; the last ``n_rare`` types are rare."""
    rare = [max(2, int(np.rint(rare_fraction * n_cells)))] * n_rare
    shares = rng.uniform(0.5, 1.5, size=n_types - n_rare)
    sizes = [*apportion(shares, n_cells - sum(rare), rng), *rare]
    return rng.permutation(np.repeat(np.arange(n_types), sizes))


def _states(
    type_n: np.ndarray, lineage_k: np.ndarray, spread_k: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return (n, s) states: centre of the lineage, of the type, a path within it, noise."""
    lineages = LINEAGE_SD * rng.standard_normal((lineage_k.max() + 1, STATE_DIM))
    own = spread_k[:, None] * rng.standard_normal((len(lineage_k), STATE_DIM))
    centres = lineages[lineage_k] + own
    paths = rng.standard_normal((len(lineage_k), STATE_DIM))
    paths *= PATH_LENGTH / np.linalg.norm(paths, axis=1, keepdims=True)
    place = rng.uniform(-0.5, 0.5, size=(len(type_n), 1))
    noise = WITHIN_SD * rng.standard_normal((len(type_n), STATE_DIM))
    return centres[type_n] + place * paths[type_n] + noise


def _loadings(n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Return sparse (s, g) loadings: log fold change of a gene by unit of state."""
    drawn = LOADING_SD * rng.standard_normal((STATE_DIM, n_genes))
    return drawn * (rng.random(drawn.shape) < LOADING_SHARE)


def _effects(
    groups: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_features: int,
    strength: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (n, f) factors of a modality, (n, 1) depths, and the (b, f) batch part."""
    batch_n, lineage_n, donor_n = groups
    n_batches = int(batch_n.max()) + 1
    batch_bf = log_normal_factors((n_batches, n_features), strength, rng)
    within = log_normal_factors(
        (n_batches, int(lineage_n.max()) + 1, n_features), LINEAGE_EFFECT * strength, rng
    )
    donor = log_normal_factors(
        (n_batches * DONORS_PER_BATCH, n_features), DONOR_EFFECT * strength, rng
    )
    depth_b = log_normal_factors((n_batches, 1), DEPTH_EFFECT * strength, rng)
    factors_nf = batch_bf[batch_n] * within[batch_n, lineage_n] * donor[donor_n]
    return factors_nf, depth_b[batch_n], batch_bf


def _counts(rate: np.ndarray, shape: float | None, rng: np.random.Generator) -> sp.csr_matrix:
    """Draw Poisson counts, or gamma-Poisson counts of inverse dispersion ``shape``."""
    mean = rate if shape is None else rate * rng.gamma(shape, 1 / shape, size=rate.shape)
    return sp.csr_matrix(rng.poisson(mean), dtype=np.float32)


def _modality(counts: sp.csr_matrix, var: pd.DataFrame, batch_bf: np.ndarray) -> AnnData:
    from anndata import AnnData

    cells = pd.DataFrame(index=[str(i) for i in range(counts.shape[0])])
    return AnnData(counts, obs=cells, var=var, uns={"batch_factors": batch_bf.T.copy()})


def _rna(
    fold_ng: np.ndarray,
    genes: np.ndarray,
    groups: tuple[np.ndarray, np.ndarray, np.ndarray],
    strength: float,
    rng: np.random.Generator,
) -> AnnData:
    factors, depth, batch_bg = _effects(groups, len(genes), strength, rng)
    abundance = rng.lognormal(0.0, 1.2, size=len(genes))
    level = abundance * np.exp(fold_ng) * factors
    library = GENE_DEPTH * depth * rng.lognormal(0.0, 0.3, size=(len(fold_ng), 1))
    rate = level / level.sum(axis=1, keepdims=True) * library
    return _modality(_counts(rate, GENE_SHAPE, rng), pd.DataFrame(index=genes), batch_bg)


def _atac(
    fold_ng: np.ndarray,
    genes: np.ndarray,
    n_peaks: int,
    groups: tuple[np.ndarray, np.ndarray, np.ndarray],
    strength: float,
    rng: np.random.Generator,
) -> AnnData:
    # Genes lie in a row on each chromosome; the k-th peak of a gene starts 2 k widths on.
    gene_p = np.sort(rng.permutation(np.arange(n_peaks) % len(genes)))
    rank_p = np.arange(n_peaks) - np.searchsorted(gene_p, gene_p)
    per_chromosome = -(-len(genes) // CHROMOSOMES)
    spacing = max(GENE_SPACING, 2 * PEAK_WIDTH * (int(rank_p.max()) + 1))
    start_p = (gene_p % per_chromosome) * spacing + 1000 + rank_p * 2 * PEAK_WIDTH
    names = [
        f"chr{g // per_chromosome + 1}_{x}_{x + PEAK_WIDTH}"
        for g, x in zip(gene_p, start_p, strict=True)
    ]
    factors, depth, batch_bp = _effects(groups, n_peaks, strength, rng)
    openness = rng.lognormal(0.0, 0.8, size=n_peaks)
    library = PEAK_DEPTH * depth * rng.lognormal(0.0, 0.3, size=(len(fold_ng), 1))
    rate = openness / openness.sum() * np.exp(fold_ng[:, gene_p]) * factors * library
    var = pd.DataFrame({"nearest_gene": genes[gene_p]}, index=names)
    return _modality(_counts(rate, None, rng), var, batch_bp)


def _adt(
    fold_ng: np.ndarray,
    genes: np.ndarray,
    n_proteins: int,
    groups: tuple[np.ndarray, np.ndarray, np.ndarray],
    strength: float,
    rng: np.random.Generator,
) -> AnnData:
    # Panels are made of markers: the genes that vary most over the cell states.
    marker_a = np.sort(np.argsort(-fold_ng.var(axis=0), kind="stable")[:n_proteins])
    factors, depth, batch_ba = _effects(groups, n_proteins, strength, rng)
    signal = PROTEIN_SIGNAL * rng.lognormal(0.0, 0.6, size=n_proteins)
    background = PROTEIN_BACKGROUND * rng.lognormal(0.0, 0.4, size=n_proteins)
    size = depth * rng.lognormal(0.0, 0.2, size=(len(fold_ng), 1))
    rate = (background + signal * np.exp(fold_ng[:, marker_a])) * factors * size
    var = pd.DataFrame(
        {"gene": genes[marker_a]}, index=[f"prot_{gene}" for gene in genes[marker_a]]
    )
    return _modality(_counts(rate, PROTEIN_SHAPE, rng), var, batch_ba)
