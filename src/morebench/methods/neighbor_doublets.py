"""Doublet scores from simulated doublets among a cell's neighbours: by PCA, by MoRE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ConfigError, DataError, Unsupported
from morebench.methods.simulated_doublets import (
    add_pairs,
    default_neighbors,
    draw_pairs,
    neighbor_share,
)

# As for Scrublet: in fewer cells there is no neighbourhood to speak of.
MIN_CELLS = 20

#: Takes rows of the dataset and pairs of positions among them; returns the embeddings of
#: these cells (n, d) and of the simulated doublets (s, d), in one space.
Embed = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    sim_ratio: float,
    n_neighbors: int | None,
    n_components: int,
) -> MethodOutput:
    """Score cells by the simulated doublets around them in a PCA, batch by batch.

    Values are log(1 + 10,000 x share) of the split's genes, not scaled. The PCA is fitted
    on a batch's own cells, and simulated doublets are projected.

    Parameters
    ----------
    data
        The split's input; every cell must be fit-visible.
    seed
        Of the pairs, and of the PCA's start vector.
    threads
        Not used.
    sim_ratio
        Simulated doublets a cell.
    n_neighbors
        Neighbours of a cell; None: ``simulated_doublets.default_neighbors``.
    n_components
        Principal components, at most.

    Returns
    -------
    MethodOutput
        ``doublet_score`` (n,) in [0, 1]: see ``simulated_doublets.neighbor_share``;
        ``notes["batches"]`` says for each batch what it was scored with.

    Raises
    ------
    Unsupported
        A cell is not fit-visible.
    ConfigError
        A parameter below what can be meant.
    DataError
        Fewer than ``MIN_CELLS`` cells in the whole dataset.

    Notes
    -----
    McGinnis, Murrow and Gartner 2019, Cell Systems 8, 329-337 (the score); Wolock, Lopez
    and Klein 2019, Cell Systems 8, 281-291 (the number of neighbours).
    """
    if n_components < 1:
        raise ConfigError(f"n_components: found {n_components}; valid: 1 or more")

    def embed(rows: np.ndarray, pairs_s2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.decomposition import PCA

        from morebench.models.more.tokens import log_normalise

        counts_ng = data.counts_ng[rows]
        x_ng, x_sg = log_normalise(counts_ng), log_normalise(add_pairs(counts_ng, pairs_s2))
        p = min(n_components, len(rows) - 1, x_ng.shape[1] - 1)
        if p < 1:
            raise DataError(f"genes: found {x_ng.shape[1]}; valid: 2 or more")
        model = PCA(p, svd_solver="arpack", random_state=seed).fit(x_ng)
        return model.transform(x_ng), model.transform(x_sg)

    score_n, notes = _by_batch(data, "knn_doublets", embed, sim_ratio, n_neighbors, seed)
    return MethodOutput(doublet_score=score_n, notes=notes)


def run_more(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    sim_ratio: float,
    n_neighbors: int | None,
    **settings: Any,
) -> MethodOutput:
    """Score cells by the simulated doublets around them in MoRE's embedding.

    One model without labels is fitted on all observed cells. It is inductive: the simulated
    doublets, which it has not seen, are embedded by it. Pairs are drawn and neighbours are
    sought within batches, as in ``run``. Of several modalities only the one that the
    split's genes are of takes part.

    Parameters
    ----------
    data, sim_ratio, n_neighbors
        As in ``run``.
    seed, threads
        Of all that is drawn; of torch.
    **settings
        Every field of ``models.more.settings.Settings``. With a ``backbone``, frozen
        features of observed and simulated cells are computed here, which takes long.

    Returns
    -------
    MethodOutput
        As of ``run``, with trained and frozen parameters.

    Raises
    ------
    Unsupported, ConfigError, DataError
        As ``run``.
    """
    from morebench.models.more.cells import one_modality
    from morebench.models.more.devices import threads_of
    from morebench.models.more.model import MoRE
    from morebench.models.more.settings import Settings

    chosen = Settings.from_dict(settings)
    _check(data, "more_doublets", sim_ratio, n_neighbors)
    genes = data.genes.astype(str)
    cells = one_modality(data.counts_ng, genes, data.batch, where="input")
    model = MoRE.fit_cells(cells, None, chosen, seed=seed, device="auto", threads=threads)
    with threads_of(threads):
        observed_nd = model.embed(cells)

        def embed(rows: np.ndarray, pairs_s2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            counts_sg = add_pairs(data.counts_ng[rows], pairs_s2)
            # A pair across batches (fallback only) counts as of the first cell's batch.
            batch_s = data.batch[rows][pairs_s2[:, 0]]
            return observed_nd[rows], model.embed(one_modality(counts_sg, genes, batch_s))

        score_n, notes = _by_batch(data, "more_doublets", embed, sim_ratio, n_neighbors, seed)
    return MethodOutput(
        doublet_score=score_n,
        parameters_trained=model.parameters_trained,
        parameters_frozen=model.parameters_frozen,
        notes=notes,
    )


def _check(data: MethodInput, method: str, sim_ratio: float, n_neighbors: int | None) -> None:
    n_hidden = int((~data.fit_visible).sum())
    if n_hidden:
        raise Unsupported(
            f"{method} scores the cells it simulates doublets from, and the split hides "
            f"{n_hidden} of {data.n_cells} cells from fitting"
        )
    if sim_ratio <= 0:
        raise ConfigError(f"sim_ratio: found {sim_ratio}; valid: above 0")
    if n_neighbors is not None and n_neighbors < 1:
        raise ConfigError(f"n_neighbors: found {n_neighbors}; valid: 1 or more, or null")
    if data.n_cells < MIN_CELLS:
        raise DataError(
            f"{method}: {data.n_cells} cells in the whole dataset; valid: {MIN_CELLS} or more"
        )


def _by_batch(
    data: MethodInput,
    method: str,
    embed: Embed,
    sim_ratio: float,
    n_neighbors: int | None,
    seed: int,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return scores (n,) and notes: one run a batch, small batches by one over all cells."""
    _check(data, method, sim_ratio, n_neighbors)
    batch = data.batch
    score_n = np.full(data.n_cells, np.nan)
    notes: dict[str, dict[str, Any]] = {}
    whole: tuple[np.ndarray, dict[str, Any]] | None = None
    for place, name in enumerate(np.unique(batch)):
        rows = np.flatnonzero(batch == name)
        if len(rows) >= MIN_CELLS:
            # A stream of its own: what the cells of other batches are does not matter.
            found_n, facts = _score(rows, embed, sim_ratio, n_neighbors, [seed, place])
            score_n[rows] = found_n
            source = "batch"
        else:
            if whole is None:
                everything = np.arange(data.n_cells)
                whole = _score(everything, embed, sim_ratio, n_neighbors, [seed, len(batch)])
            score_n[rows], facts = whole[0][rows], whole[1]
            source = "whole dataset, fallback: the batch is too small for a run of its own"
        notes[str(name)] = {"n_cells": len(rows), "scored_with": source, **facts}
    return score_n, {"batches": notes}


def _score(
    rows: np.ndarray,
    embed: Embed,
    sim_ratio: float,
    n_neighbors: int | None,
    seed: list[int],
) -> tuple[np.ndarray, dict[str, Any]]:
    n_simulated = max(1, round(sim_ratio * len(rows)))
    pairs_s2 = draw_pairs(len(rows), n_simulated, np.random.default_rng(seed))
    z_nd, z_sd = embed(rows, pairs_s2)
    k = default_neighbors(len(rows), n_simulated) if n_neighbors is None else n_neighbors
    k = min(k, len(rows) + n_simulated - 1)
    return neighbor_share(z_nd, z_sd, k), {"n_simulated": n_simulated, "n_neighbors": k}
