"""Zero-shot: where an embedding puts cells that its method was not fitted on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from morebench.errors import DataError
from morebench.metrics import clustering, connectivity, lisi, silhouette
from morebench.metrics.neighbors import (
    K_GRAPH,
    K_LISI,
    Neighbors,
    checked_embedding,
    exact_neighbors,
)
from morebench.metrics.undefined import UndefinedMetric
from morebench.tasks.contract import Candidate, Score, TaskData, unscored
from morebench.tasks.draws import over_draws

log = logging.getLogger(__name__)


@dataclass
class _Joint:
    """One embedding of the shown and the scored cells together.

    Attributes
    ----------
    x : (n, d) array of float64
    labels, batch : (n,) array of str
    asked : (m,) array of int
        Places of the scored cells, which alone are measured.
    """

    x: np.ndarray
    labels: np.ndarray
    batch: np.ndarray
    asked: np.ndarray
    seed: int
    threads: int

    @cached_property
    def neighbors(self) -> Neighbors:
        return exact_neighbors(self.x, K_LISI, threads=self.threads)

    @cached_property
    def leiden(self) -> tuple[float, float]:
        graph = connectivity.umap_connectivities(self.neighbors.subset(K_GRAPH))
        seed = clustering.LEIDEN_SEED + self.seed
        return clustering.leiden_nmi_ari(graph, self.labels, seed=seed, cells=self.asked)


def _silhouette(j: _Joint) -> float:
    samples = silhouette.silhouette_samples(j.x, j.labels)
    return silhouette.silhouette_label(samples[j.asked])


_COMPUTE: Mapping[str, Callable[[_Joint], float]] = {
    "unseen_ilisi": lambda j: lisi.ilisi(j.neighbors, j.batch, j.asked),
    "unseen_clisi": lambda j: lisi.clisi(j.neighbors, j.labels, j.asked),
    "unseen_silhouette": _silhouette,
    "unseen_nmi": lambda j: j.leiden[0],
    "unseen_ari": lambda j: j.leiden[1],
}


def joint_cells(data: TaskData) -> np.ndarray:
    """Return the places of the cells that are embedded together: shown ones, and scored ones.

    Both with a usable label by truth, neither with doublets by truth: (n,) array of int.
    """
    usable = np.array([label is not None for label in data.cell_type], dtype=bool)
    shown = np.array([label is not None for label in data.shown], dtype=bool)
    return np.flatnonzero(usable & (data.scored | shown) & (data.is_doublet != 1))


def _candidate(
    c: Candidate, data: TaskData, cells: np.ndarray, seed: int, threads: int
) -> list[Score]:
    if c.state != "ok":
        return [unscored(c, name, c.state, c.reason) for name in _COMPUTE]
    asked = np.flatnonzero(data.scored[cells])
    if not len(asked):
        reason = "no scored cell has a usable label"
        return [unscored(c, name, "not_applicable", reason) for name in _COMPUTE]
    x = None if c.output is None else c.output.embedding
    try:
        if x is None:
            raise DataError(f"{c.method}: state is ok, but there is no embedding")
        if len(x) != len(data.batch):
            raise DataError(f"{c.method}: embedding: found {len(x)} rows; valid: {len(data.batch)}")
        z = checked_embedding(x[cells])
    except DataError as error:
        log.error("%s", error)
        return [unscored(c, name, "failed", str(error)) for name in _COMPUTE]
    labels, batch = data.cell_type[cells].astype(str), data.batch[cells].astype(str)
    joint = _Joint(z, labels, batch, asked, seed, threads)
    return [_single(c, name, joint, int(data.scored.sum())) for name in _COMPUTE]


def _single(c: Candidate, metric: str, joint: _Joint, n_scored: int) -> Score:
    """Compute one metric; what goes wrong in it stays in it."""
    try:
        value = _COMPUTE[metric](joint)
    except UndefinedMetric as reason:
        return unscored(c, metric, "not_applicable", str(reason))
    except Exception as error:
        log.exception("metric %s failed for %s (seed %s)", metric, c.method, c.seed)
        return unscored(c, metric, "failed", f"{type(error).__name__}: {error}")
    n = len(joint.asked)
    return Score(c.method, c.track, c.seed, metric, value, n, n / n_scored)


def score(
    data: TaskData,
    candidates: Sequence[Candidate],
    *,
    seed: int,
    threads: int,
    params: Mapping[str, Any],
) -> list[Score]:
    """Score embeddings at the cells of a split that fitting has not seen.

    These cells are embedded together with those that the split shows. iLISI and cLISI are of
    their neighbours in that whole, the silhouette is theirs among all cells' types, and NMI and
    ARI compare their types with the Leiden clusters of the whole (of ten resolutions the one
    with their highest NMI). A type that was never shown counts as any other; its cells have
    no neighbours of other batches unless it is in several.

    Parameters
    ----------
    seed
        Leiden is seeded by 42 + seed.
    threads
        Of the neighbour search.
    params
        ``sample``: at most that many cells, drawn by batch and type; ``repeats``: draws. Those
        of other tasks are ignored.

    Returns
    -------
    list of Score
        One a candidate and metric. Coverage is the share of scored cells that a value rests on.
        Of several draws: see ``over_draws``.
    """
    from threadpoolctl import threadpool_limits

    def of(cells: np.ndarray) -> list[Score]:
        return [s for c in candidates for s in _candidate(c, data, cells, seed, threads)]

    with threadpool_limits(limits=1, user_api="blas"):
        return over_draws(data, joint_cells(data), of, seed=seed, params=params)
