"""Scrublet, then Harmony: called doublets are kept out of the fit and projected afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ConfigError, listed
from morebench.methods import harmony, scrublet
from morebench.methods.pca import first_components
from morebench.methods.transductive import need_two_batches


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
    n_components: int,
    theta: float | None,
    lamb: float | None,
    sigma: float,
    nclust: int | None,
    max_iter_harmony: int,
    n_neighbors: int,
) -> MethodOutput:
    """Call doublets batch by batch, fit Harmony without them, project them onto its result.

    A called cell is moved by the mean correction (corrected minus uncorrected components)
    of its nearest kept cells of the same batch, so that every method is scored on the same
    cells. A batch whose cells are all called keeps them, since nothing else says how it is
    to be corrected.

    Parameters
    ----------
    data
        The split's input, with ``all_genes_file``; every cell must be fit-visible.
    seed, threads
        Of Scrublet and of Harmony.
    expected_doublet_rate, sim_doublet_ratio, min_counts, min_cells
        As in ``scrublet.run``, like the next three.
    min_gene_variability_pctl, n_prin_comps, use_approx_neighbors
        Of Scrublet.
    n_components, theta, lamb, sigma, nclust, max_iter_harmony
        As in ``harmony.run``.
    n_neighbors
        Kept cells whose corrections a called cell takes the mean of; all of its batch where
        there are fewer.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_components), float32; ``notes`` with the number of cells called,
        by batch what Scrublet found, and what Harmony notes.

    Raises
    ------
    Unsupported
        A cell is not fit-visible or has no RNA, or there is one batch only.
    DataError
        As in ``scrublet.run`` and ``harmony.run``.
    ConfigError
        ``n_neighbors`` is below 1.

    Notes
    -----
    Wolock, Lopez and Klein 2019, Cell Systems 8, 281-291; Korsunsky et al. 2019, Nature
    Methods 16, 1289-1296. The projection is ours.
    """
    if n_neighbors < 1:
        raise ConfigError(f"n_neighbors: found {n_neighbors}; valid: 1 or more")
    need_two_batches(data, "Harmony")
    found = scrublet.run(
        data,
        seed=seed,
        threads=threads,
        expected_doublet_rate=expected_doublet_rate,
        sim_doublet_ratio=sim_doublet_ratio,
        min_counts=min_counts,
        min_cells=min_cells,
        min_gene_variability_pctl=min_gene_variability_pctl,
        n_prin_comps=n_prin_comps,
        use_approx_neighbors=use_approx_neighbors,
    )
    called, whole = called_cells(found, data.batch)
    kept = ~called
    fitted = harmony.run(
        _only(data, kept),
        seed=seed,
        threads=threads,
        n_components=n_components,
        theta=theta,
        lamb=lamb,
        sigma=sigma,
        nclust=nclust,
        max_iter_harmony=max_iter_harmony,
    )
    assert fitted.embedding is not None
    embedding = projected(
        first_components(data, n_components), fitted.embedding, kept, data.batch, n_neighbors
    )
    notes: dict[str, Any] = {
        "n_called": int(called.sum()),
        "scrublet": found.notes["batches"],
        "harmony": fitted.notes,
    }
    if whole:
        notes["kept_though_called"] = f"every cell of {listed(whole)}: a batch needs some"
    return MethodOutput(embedding=embedding, notes=notes)


def called_cells(found: MethodOutput, batch: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return which cells Scrublet calls doublets, by the threshold of each batch.

    Parameters
    ----------
    found
        What ``scrublet.run`` returned.
    batch : (n,) array of str

    Returns
    -------
    called : (n,) array of bool
    whole : list of str
        Batches whose cells lie all above the threshold; none of theirs is called here.
    """
    assert found.doublet_score is not None
    called = np.zeros(len(batch), dtype=bool)
    whole = []
    for name, note in found.notes["batches"].items():
        cells = batch == name
        above = cells & (found.doublet_score > note["threshold"])
        if above.sum() == cells.sum():
            whole.append(str(name))
        else:
            called |= above
    return called, whole


def projected(
    z_np: np.ndarray, corrected_kp: np.ndarray, kept: np.ndarray, batch: np.ndarray, k: int
) -> np.ndarray:
    """Move the cells that were left out by the mean correction of their neighbours.

    Parameters
    ----------
    z_np : (n, p) array
        Uncorrected components of every cell.
    corrected_kp : (kept cells, p) array
        Corrected components of the kept cells, in their order.
    kept : (n,) array of bool
        At least one cell of every batch.
    batch : (n,) array of str
        Neighbours are of the same batch, nearest in the uncorrected components.
    k
        Neighbours, at most.

    Returns
    -------
    (n, p) array of float32
    """
    from sklearn.neighbors import NearestNeighbors

    out_np = np.array(z_np, dtype=np.float64)
    out_np[kept] = corrected_kp
    shift_np = out_np - z_np
    for name in np.unique(batch[~kept]):
        near, left = (np.flatnonzero((batch == name) & m) for m in (kept, ~kept))
        search = NearestNeighbors(n_neighbors=min(k, len(near))).fit(z_np[near])
        places = search.kneighbors(z_np[left], return_distance=False)
        out_np[left] += shift_np[near[places]].mean(axis=1)
    return out_np.astype(np.float32)


def _only(data: MethodInput, kept: np.ndarray) -> MethodInput:
    """Return the input of some cells, as far as Harmony reads it."""
    return replace(
        data,
        cell_ids=data.cell_ids[kept],
        counts_ng=data.counts_ng[kept],
        pca_np=data.pca_np[kept],
        obs=data.obs[kept],
        fit_visible=data.fit_visible[kept],
        all_genes_file=None,
    )
