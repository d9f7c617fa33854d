"""Scrublet: a doublet score from simulated doublets, one run a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import DataError, Unsupported, listed
from morebench.methods.annoy_trees import one_thread

MODALITY = "rna"
# Scrublet runs from five cells on, but up to 20 cells it uses fewer than three neighbours
# (round(sqrt(n) / 2)) and finds hardly a gene with min_counts in min_cells cells.
MIN_CELLS = 20
MIN_GENES = 3


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    expected_doublet_rate: float,
    sim_doublet_ratio: float,
    min_counts: float,
    min_cells: int,
    min_gene_variability_pctl: float,
    n_prin_comps: int,
    use_approx_neighbors: bool,
) -> MethodOutput:
    """Score every cell by its neighbourhood of simulated doublets, batch by batch.

    A batch that is too small (fewer than ``MIN_CELLS`` cells, or fewer than ``MIN_GENES``
    genes pass the gene filter) takes its scores from one run over the whole dataset.
    Components are at most cells - 1 and genes - 1. Annoy builds its trees on one thread:
    else the number of CPU cores would decide what it finds.

    Parameters
    ----------
    data
        The split's input, with ``all_genes_file``; every cell must be fit-visible.
    seed
        ``random_state`` of Scrublet.
    threads
        Not used: Scrublet has no threads of its own.
    expected_doublet_rate
        Share of doublets that is expected, in (0, 1).
    sim_doublet_ratio
        Simulated doublets a cell.
    min_counts, min_cells, min_gene_variability_pctl
        Gene filter: at least ``min_counts`` normalised counts in ``min_cells`` cells, and
        variability above that percentile.
    n_prin_comps
        Principal components, at most.
    use_approx_neighbors
        Whether neighbours are searched by annoy, the package's default, or exactly.

    Returns
    -------
    MethodOutput
        ``doublet_score`` (n,); ``notes["batches"]`` holds for each batch the threshold, how
        it was found and how many cells lie above it.

    Raises
    ------
    Unsupported
        A cell is not fit-visible.
    DataError
        Counts are missing, empty for a cell, or too few for a run over the whole dataset.

    Notes
    -----
    Wolock, Lopez and Klein 2019, Cell Systems 8, 281-291.
    """
    n_hidden = int((~data.fit_visible).sum())
    if n_hidden:
        raise Unsupported(
            "Scrublet scores the cells it simulates doublets from, and the split hides "
            f"{n_hidden} of {data.n_cells} cells from fitting"
        )
    counts = read_counts(data)
    gene_filter: dict[str, Any] = {
        "min_counts": min_counts,
        "min_cells": min_cells,
        "min_gene_variability_pctl": min_gene_variability_pctl,
    }
    model: dict[str, Any] = {
        "expected_doublet_rate": expected_doublet_rate,
        "sim_doublet_ratio": sim_doublet_ratio,
        "random_state": seed,
    }
    search: dict[str, Any] = {
        "n_prin_comps": n_prin_comps,
        "use_approx_neighbors": use_approx_neighbors,
    }
    batch = data.batch
    scores = np.full(data.n_cells, np.nan)
    notes: dict[str, dict[str, Any]] = {}
    everything: np.ndarray | None = None
    for name in np.unique(batch):
        cells = np.flatnonzero(batch == name)
        n_kept = genes_kept(counts[cells], **gene_filter) if len(cells) >= MIN_CELLS else 0
        if n_kept >= MIN_GENES:
            scrub = _fit(counts[cells], n_kept, search, gene_filter, model)
            scores[cells] = scrub.doublet_scores_obs_
            found = _threshold(scrub)
            source = "batch"
        else:
            if everything is None:
                whole = _fit_whole(counts, search, gene_filter, model)
                everything, whole_found = whole.doublet_scores_obs_, _threshold(whole)
            scores[cells] = everything[cells]
            found = whole_found
            source = "whole dataset, fallback: the batch is too small for a run of its own"
        notes[str(name)] = {
            "n_cells": len(cells),
            "scored_with": source,
            **found,
            "n_called": int((scores[cells] > found["threshold"]).sum()),
        }
    neighbours = "approximate: annoy, one thread" if use_approx_neighbors else "exact"
    return MethodOutput(doublet_score=scores, notes={"neighbours": neighbours, "batches": notes})


def read_counts(data: MethodInput) -> sp.csr_matrix:
    """Read the counts of all genes, in the order of ``data.cell_ids``.

    Parameters
    ----------
    data
        Its ``all_genes_file`` is the prepared MuData file, of which only the group
        ``mod/rna`` is read.

    Returns
    -------
    (n, all genes) csr matrix of float32

    Raises
    ------
    Unsupported
        There is no RNA, or a cell without RNA.
    DataError
        There is no file, or a cell without counts.
    """
    import h5py
    import pandas as pd
    from anndata.io import read_elem

    if data.all_genes_file is None:
        raise DataError("all_genes_file: found None; scrublet needs the counts of all genes")
    path = Path(data.all_genes_file)
    with h5py.File(path, "r") as file:
        key = f"mod/{MODALITY}"
        if key not in file:
            found = list(file["mod"]) if "mod" in file else list(file)
            raise Unsupported(f"{path}: no {key}, found {listed(found)}; scrublet needs RNA counts")
        rna = read_elem(file[key])
    rows = pd.Index(rna.obs_names).get_indexer(data.cell_ids)
    missing = data.cell_ids[rows < 0]
    if len(missing):
        raise Unsupported(
            f"{path}: {len(missing)} of {data.n_cells} cells have no {MODALITY} "
            f"({listed(missing, 3)}); scrublet needs RNA counts of every cell"
        )
    counts = sp.csr_matrix(rna.X, dtype=np.float32)[rows]
    empty = data.cell_ids[np.asarray(counts.sum(axis=1)).ravel() == 0]
    if len(empty):
        raise DataError(
            f"{path}: {len(empty)} cells have no {MODALITY} count at all ({listed(empty, 3)}); "
            "scrublet needs at least one (set a minimum of counts in the dataset's QC)"
        )
    return counts


def genes_kept(
    counts: sp.spmatrix, *, min_counts: float, min_cells: int, min_gene_variability_pctl: float
) -> int:
    """Return how many genes Scrublet's own filter keeps of (cells, genes) counts."""
    from scrublet import helper_functions

    kept = helper_functions.filter_genes(
        helper_functions.tot_counts_norm(sp.csc_matrix(counts)),
        min_counts=min_counts,
        min_cells=min_cells,
        min_vscore_pctl=min_gene_variability_pctl,
    )
    return len(kept)


def _fit(
    counts: sp.spmatrix,
    n_kept: int,
    search: dict[str, Any],
    gene_filter: dict[str, Any],
    model: dict[str, Any],
) -> Any:
    import annoy
    import scrublet

    n_prin_comps = min(search["n_prin_comps"], counts.shape[0] - 1, n_kept - 1)
    scrub = scrublet.Scrublet(sp.csc_matrix(counts), **model)
    with one_thread(annoy):
        scrub.scrub_doublets(
            verbose=False, **gene_filter, **(search | {"n_prin_comps": n_prin_comps})
        )
    return scrub


def _fit_whole(
    counts: sp.spmatrix,
    search: dict[str, Any],
    gene_filter: dict[str, Any],
    model: dict[str, Any],
) -> Any:
    n_cells = counts.shape[0]
    n_kept = genes_kept(counts, **gene_filter) if n_cells >= MIN_CELLS else 0
    if n_kept < MIN_GENES:
        raise DataError(
            f"scrublet: {n_cells} cells in the whole dataset, of whose genes {n_kept} pass the "
            f"filter {gene_filter}; valid is at least {MIN_CELLS} cells and {MIN_GENES} genes"
        )
    return _fit(counts, n_kept, search, gene_filter, model)


def _threshold(scrub: Any) -> dict[str, Any]:
    if scrub.predicted_doublets_ is not None:
        return {
            "threshold": float(scrub.threshold_),
            "threshold_found": "minimum between the two modes of the simulated scores",
        }
    rate = scrub.expected_doublet_rate
    return {
        "threshold": float(np.quantile(scrub.doublet_scores_obs_, 1 - rate)),
        "threshold_found": (
            "threshold: none, fallback: quantile of the observed scores at the expected "
            f"doublet rate {rate}"
        ),
    }
