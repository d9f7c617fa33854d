"""Datasets that morebench makes by itself, without a network."""

from __future__ import annotations

from collections.abc import Mapping

from morebench.registry.specs import DatasetSpec, by_name, frozen

DATASETS: Mapping[str, DatasetSpec] = by_name(
    DatasetSpec("pbmc68k", "morebench.data.bundled:pbmc68k", "700 real PBMCs (Zheng et al. 2017)"),
    DatasetSpec(
        "pbmc68k_batches",
        "morebench.data.bundled:pbmc68k_batches",
        "pbmc68k with planted technical effects and doublets",
        frozen(
            n_batches=3,
            gene_effect=0.4,
            depth=(1.0, 0.7, 0.5),
            ambient=0.05,
            imbalance=1.0,
            doublet_rate=0.06,
            doublet_heterotypic=0.8,
            seed=0,
        ),
    ),
    DatasetSpec(
        "sim_multiome",
        "morebench.data.simulate:sim_multiome",
        "simulated RNA + ATAC + protein with shared cell states",
        frozen(
            n_cells=900,
            n_genes=800,
            n_peaks=1200,
            n_proteins=30,
            n_types=8,
            n_rare=2,
            rare_fraction=0.02,
            n_batches=3,
            batch_effect=0.4,
            missing_fraction=0.15,
            seed=0,
        ),
    ),
    DatasetSpec(
        "sim_large",
        "morebench.data.simulate_large:sim_large",
        "simulated RNA of as many cells as wanted",
        frozen(
            n_cells=10_000,
            n_genes=2000,
            n_types=12,
            n_batches=4,
            counts_per_cell=300,
            batch_effect=0.2,
            seed=0,
        ),
    ),
)
