"""Integration: batches removed, biology kept, on the split's scored cells."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from morebench.errors import DataError
from morebench.metrics import (
    clustering,
    connectivity,
    graph_parts,
    kbet,
    lisi,
    pcr,
    scgraph,
    silhouette,
    totals,
)
from morebench.metrics.neighbors import (
    K_GRAPH,
    K_KBET,
    K_LISI,
    Neighbors,
    checked_embedding,
    exact_neighbors,
)
from morebench.metrics.undefined import UndefinedMetric
from morebench.registry import METRICS
from morebench.tasks.contract import Candidate, Score, TaskData, unscored
from morebench.tasks.draws import over_draws

log = logging.getLogger(__name__)


@dataclass
class _Cells:
    """What all candidates share: the scored cells with a usable label, and their truth."""

    index: np.ndarray
    labels: np.ndarray
    batch: np.ndarray
    pca_np: np.ndarray
    n_scored: int
    seed: int
    threads: int

    @cached_property
    def variance_before(self) -> float:
        return pcr.batch_variance(self.pca_np, self.batch)


@dataclass
class _Embedding:
    """One embedding of the cells, with what several metrics need computed once."""

    cells: _Cells
    x: np.ndarray

    @cached_property
    def neighbors(self) -> Neighbors:
        return exact_neighbors(self.x, K_LISI, threads=self.cells.threads)

    @cached_property
    def leiden(self) -> tuple[float, float]:
        seed = clustering.LEIDEN_SEED + self.cells.seed
        return clustering.leiden_nmi_ari(self.graph(K_GRAPH), self.cells.labels, seed=seed)

    @cached_property
    def kmeans(self) -> tuple[float, float]:
        return clustering.kmeans_nmi_ari(self.x, self.cells.labels, seed=self.cells.seed)

    @cached_property
    def silhouettes(self) -> np.ndarray:
        return silhouette.silhouette_samples(self.x, self.cells.labels)

    def graph(self, k: int) -> sp.csr_matrix:
        return connectivity.umap_connectivities(self.neighbors.subset(k))


@dataclass
class _Graph:
    """A method's own graph, restricted to the scored cells, in place of an embedding."""

    cells: _Cells
    connectivities: sp.csr_matrix

    @cached_property
    def leiden(self) -> tuple[float, float]:
        seed = clustering.LEIDEN_SEED + self.cells.seed
        return clustering.leiden_nmi_ari(self.connectivities, self.cells.labels, seed=seed)


#: A value and the cells it rests on; None stands for all of them.
_Result = tuple[float, np.ndarray | None]


def _bras(e: _Embedding) -> _Result:
    return silhouette.bras(e.x, e.cells.labels, e.cells.batch)


def _ilisi(e: _Embedding) -> _Result:
    return lisi.ilisi(e.neighbors, e.cells.batch), None


def _clisi(e: _Embedding) -> _Result:
    return lisi.clisi(e.neighbors, e.cells.labels), None


def _cilisi(e: _Embedding) -> _Result:
    return lisi.cilisi(e.x, e.cells.labels, e.cells.batch, threads=e.cells.threads)


def _kbet(e: _Embedding) -> _Result:
    graph = e.graph(K_KBET)
    return kbet.kbet(graph, e.cells.batch, e.cells.labels, threads=e.cells.threads)


def _graph_connectivity(e: _Embedding) -> _Result:
    return connectivity.graph_connectivity(e.neighbors.subset(K_GRAPH), e.cells.labels), None


def _pcr(e: _Embedding) -> _Result:
    after = pcr.batch_variance(e.x, e.cells.batch)
    return pcr.pcr_comparison(e.cells.variance_before, after), None


def _isolated_labels(e: _Embedding) -> _Result:
    return silhouette.isolated_labels(e.silhouettes, e.cells.labels, e.cells.batch)


def _scgraph(e: _Embedding) -> _Result:
    return scgraph.scgraph(e.x, e.cells.pca_np, e.cells.labels, e.cells.batch)


_COMPUTE: Mapping[str, Callable[[_Embedding], _Result]] = {
    "bras": _bras,
    "ilisi": _ilisi,
    "kbet": _kbet,
    "graph_connectivity": _graph_connectivity,
    "pcr": _pcr,
    "cilisi": _cilisi,
    "nmi_leiden": lambda e: (e.leiden[0], None),
    "ari_leiden": lambda e: (e.leiden[1], None),
    "silhouette_label": lambda e: (silhouette.silhouette_label(e.silhouettes), None),
    "clisi": _clisi,
    "nmi_kmeans": lambda e: (e.kmeans[0], None),
    "ari_kmeans": lambda e: (e.kmeans[1], None),
    "isolated_labels": _isolated_labels,
    "scgraph": _scgraph,
}

OF_A_GRAPH = "parts of the method's own graph, whose edges go both ways: more is connected"

# What is defined on a graph alone, as on one made of an embedding. LISI and kBET are not: scib
# widens a sparse graph by shortest paths or diffusion first, so its numbers are of another kind.
_ON_GRAPH: Mapping[str, Callable[[_Graph], _Result]] = {
    "graph_connectivity": lambda g: (
        graph_parts.graph_connectivity(g.connectivities, g.cells.labels),
        None,
    ),
    "nmi_leiden": lambda g: (g.leiden[0], None),
    "ari_leiden": lambda g: (g.leiden[1], None),
}

# Aspects that compare batches: with one batch, a value would say nothing of integration, however
# good it looks (graph connectivity near 1; scGraph of uncorrected cells 1 by construction).
_OF_BATCHES = ("batch", "structure")

_TOTALS: Mapping[str, tuple[Callable[[Mapping[str, float]], float], tuple[str, ...]]] = {
    "batch_total": (totals.batch_total, totals.BATCH_COMPONENTS),
    "bio_total": (totals.bio_total, totals.BIO_COMPONENTS),
    "total": (totals.total, totals.BATCH_COMPONENTS + totals.BIO_COMPONENTS),
}


def metric_names() -> list[str]:
    """Names of the task's metrics, totals last."""
    names = [m.name for m in METRICS.values() if m.task == "integration"]
    return sorted(names, key=lambda name: name in _TOTALS)


def _cells(data: TaskData, index: np.ndarray, seed: int, threads: int) -> _Cells:
    return _Cells(
        index=index,
        labels=data.cell_type[index].astype(str),
        batch=data.batch[index].astype(str),
        pca_np=data.pca_np[index],
        n_scored=int(data.scored.sum()),
        seed=seed,
        threads=threads,
    )


def _scored(c: Candidate, metric: str, result: _Result, cells: _Cells) -> Score:
    value, tested = result
    n = len(cells.index) if tested is None else int(tested.sum())
    if not np.isfinite(value):
        raise DataError(f"{metric} of {c.method}: found {value}; valid: a finite number")
    return Score(c.method, c.track, c.seed, metric, float(value), n, n / cells.n_scored)


def _compute(metric: str, e: _Embedding | _Graph) -> _Result:
    if METRICS[metric].aspect in _OF_BATCHES and len(np.unique(e.cells.batch)) < 2:
        raise UndefinedMetric(f"one batch only among the scored cells: {e.cells.batch[0]}")
    if isinstance(e, _Graph):
        if metric not in _ON_GRAPH:
            raise UndefinedMetric("needs an embedding: the method returns a graph only")
        return _ON_GRAPH[metric](e)
    entry = METRICS[metric].entry
    if not entry:
        return _COMPUTE[metric](e)
    module, function = entry.split(":")
    compute = getattr(importlib.import_module(module), function)
    return compute(e.x, e.cells.labels, e.cells.batch, seed=e.cells.seed), None


def _single(c: Candidate, metric: str, found: _Embedding | _Graph) -> Score:
    """Compute one metric; what goes wrong in it stays in it."""
    try:
        score = _scored(c, metric, _compute(metric, found), found.cells)
        of_a_graph = isinstance(found, _Graph) and metric == "graph_connectivity"
        return replace(score, reason=OF_A_GRAPH) if of_a_graph else score
    except UndefinedMetric as reason:
        return unscored(c, metric, "not_applicable", str(reason))
    except Exception as error:
        log.exception("metric %s failed for %s (seed %s)", metric, c.method, c.seed)
        return unscored(c, metric, "failed", f"{type(error).__name__}: {error}")


def _total(c: Candidate, metric: str, singles: Mapping[str, Score]) -> Score:
    """Combine components; one that is missing makes the total missing."""
    combine, names = _TOTALS[metric]
    parts = [singles[name] for name in names]
    missing = [s for s in parts if s.status != "ok"]
    if missing:
        status = "failed" if any(s.status == "failed" for s in missing) else missing[0].status
        reason = "; ".join(f"{s.metric}: {s.reason}" for s in missing)
        return unscored(c, metric, status, f"missing component {reason}")
    return Score(
        c.method,
        c.track,
        c.seed,
        metric,
        combine({s.metric: s.value for s in parts}),
        min(s.n_cells for s in parts),
        min(s.coverage for s in parts),
    )


def _output(c: Candidate, cells: _Cells, n_cells: int) -> _Embedding | _Graph:
    """Return the scored cells of a method's embedding, or of its graph where it has none."""
    output = c.output
    if output is None or (output.embedding is None and output.graph is None):
        raise DataError(f"{c.method}: state is ok, but there is no embedding and no graph")
    if output.embedding is None:
        assert output.graph is not None
        if output.graph.shape != (n_cells, n_cells):
            raise DataError(
                f"{c.method}: graph is {output.graph.shape}; valid: {n_cells} x {n_cells}"
            )
        return _Graph(cells, sp.csr_matrix(output.graph)[cells.index][:, cells.index])
    if len(output.embedding) != n_cells:
        raise DataError(f"{c.method}: embedding has {len(output.embedding)} rows; valid: {n_cells}")
    return _Embedding(cells, checked_embedding(output.embedding[cells.index]))


def _candidate(c: Candidate, cells: _Cells, n_cells: int, names: Sequence[str]) -> list[Score]:
    if c.state != "ok":
        return [unscored(c, name, c.state, c.reason) for name in names]
    if not len(cells.index):
        reason = "no scored cell has a usable label"
        return [unscored(c, name, "not_applicable", reason) for name in names]
    try:
        found = _output(c, cells, n_cells)
    except DataError as error:
        log.exception("output of %s (seed %s) cannot be scored", c.method, c.seed)
        return [unscored(c, name, "failed", str(error)) for name in names]
    singles = {n: _single(c, n, found) for n in names if n not in _TOTALS}
    return [*singles.values(), *(_total(c, n, singles) for n in names if n in _TOTALS)]


def score(
    data: TaskData,
    candidates: Sequence[Candidate],
    *,
    seed: int,
    threads: int,
    params: Mapping[str, Any],
) -> list[Score]:
    """Score embeddings, or graphs, on the scored cells that have a usable label.

    Neighbours are searched once an embedding (90, exact) and shared by its metrics. A graph
    of a method without an embedding is restricted to those cells and scored by Leiden and
    graph connectivity; what needs an embedding, and so every total, is ``not_applicable``. A
    metric without a value on these cells is ``not_applicable`` (what compares batches, where
    there is one batch only), an exception inside one is
    ``failed`` for that metric alone (traceback in the log), both with the reason.

    Parameters
    ----------
    seed
        K-means is seeded by it and Leiden by 42 + seed: 0 is the protocol of scib-metrics.
    threads
        Of the neighbour search. Linear algebra runs on one: its matrices are small, and
        more threads make it many times slower on a busy machine.
    params
        ``sample``: at most that many cells, drawn by batch and type; ``repeats``: draws. Those
        of other tasks are ignored.

    Returns
    -------
    list of Score
        One a candidate and metric of the registry, totals included, in that order.
        Coverage is the share of scored cells that a value rests on. Of several draws: see
        ``over_draws``.
    """
    from threadpoolctl import threadpool_limits

    names = metric_names()

    def of(index: np.ndarray) -> list[Score]:
        cells = _cells(data, index, seed, threads)
        return [s for c in candidates for s in _candidate(c, cells, len(data.batch), names)]

    with threadpool_limits(limits=1, user_api="blas"):
        return over_draws(data, data.labelled, of, seed=seed, params=params)
