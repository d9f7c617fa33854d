"""Annotation: predicted against true types of the cells whose labels were hidden."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from morebench.errors import listed
from morebench.metrics import classification
from morebench.metrics.resampling import Statistic
from morebench.metrics.undefined import UndefinedMetric
from morebench.tasks.contract import Candidate, Score, TaskData, unscored
from morebench.tasks.intervals import score_with_interval
from morebench.tasks.transfer import said_by_neighbours, with_labels
from morebench.tasks.voting import over_clusters, vote

log = logging.getLogger(__name__)

RARE = 0.01  # share of the dataset's labelled cells below which a type is rare

METRICS = (
    "accuracy",
    "macro_f1",
    "balanced_accuracy",
    "macro_f1_voted",
    "macro_f1_knn",
    "rare_f1",
    "rare_recall",
    "calibration",
)


@dataclass(frozen=True)
class _Query:
    """The scored cells with a usable label, and what all candidates share.

    Attributes
    ----------
    index : (m,) array of int
        Their places in the dataset.
    truth : (m,) array of str
    rare
        Types below ``RARE`` of the labelled cells.
    cluster_n : (n,) array of int
        Small clusters of all cells, for voting.
    """

    index: np.ndarray
    truth: np.ndarray
    rare: frozenset[str]
    cluster_n: np.ndarray


def rare_types(cell_type: np.ndarray) -> frozenset[str]:
    """Return the types of fewer than ``RARE`` of the cells that have a label."""
    known = cell_type[[label is not None for label in cell_type]].astype(str)
    names, count = np.unique(known, return_counts=True)
    return frozenset(names[count < RARE * len(known)])


def _statistic(
    metric: str, given: Candidate, c: Candidate, data: TaskData, query: _Query
) -> Statistic:
    """Return a metric as a function of resampled cells; ``c`` is ``given`` with labels.

    Raises
    ------
    UndefinedMetric
        The metric has no value for these cells or this method.
    """
    assert c.output is not None and c.output.labels is not None
    labels, truth = np.asarray(c.output.labels)[query.index], query.truth
    if metric == "calibration":
        probabilities = c.output.probabilities
        if probabilities is None:
            raise UndefinedMetric("the method gives no probabilities")
        p_nk = probabilities.to_numpy(dtype=float)[query.index]
        classes = np.asarray(probabilities.columns.astype(str))
        confidence, right = p_nk.max(axis=1), classes[p_nk.argmax(axis=1)] == truth
        return lambda indices: 1 - classification.calibration_errors(confidence, right, indices)
    if metric == "macro_f1_voted":
        labels = vote(labels, query.cluster_n[query.index])
    if metric == "macro_f1_knn":
        near = said_by_neighbours(given, c, data)
        if near is None:
            raise UndefinedMetric("the method gives no embedding")
        labels = near[query.index]
    measure: Callable[..., np.ndarray] = {
        "accuracy": classification.accuracy,
        "balanced_accuracy": classification.balanced_accuracy,
        "rare_recall": classification.balanced_accuracy,
    }.get(metric, classification.macro_f1)
    if metric.startswith("rare_"):
        types = np.unique(truth)
        chosen = np.isin(types, list(query.rare))
        if not chosen.any():
            raise UndefinedMetric(f"no scored cell is of a type below {RARE:.0%} of the cells")
        measure = partial(measure, chosen=chosen)
    return classification.statistic(measure, truth, labels)


def _candidate(
    given: Candidate, data: TaskData, query: _Query, n_boot: int, seed: int
) -> list[Score]:
    c = given
    if c.state != "ok":
        return [unscored(c, name, c.state, c.reason) for name in METRICS]
    n = len(query.index)
    if not n:
        reason = "no scored cell has a usable label"
        return [unscored(c, name, "not_applicable", reason) for name in METRICS]
    try:
        c, reason = with_labels(given, data), ""
    except UndefinedMetric as undefined:
        return [unscored(c, name, "not_applicable", str(undefined)) for name in METRICS]
    except ValueError as error:
        reason = f"{c.method}: {error}"
    predicted = None if c.output is None else c.output.labels
    if not reason and (predicted is None or len(predicted) != len(data.batch)):
        found = "none" if predicted is None else len(predicted)
        reason = f"{c.method}: found {found} labels; valid: one a cell, {len(data.batch)}"
    if reason:
        log.error("%s", reason)
        return [unscored(c, name, "failed", reason) for name in METRICS]
    taught = {str(label) for label in data.shown if label is not None}
    unseen = sorted(set(query.truth) - taught)
    coverage = float(np.isin(query.truth, unseen, invert=True).sum() / data.scored.sum())
    note = f"never shown, so never right: {listed(unseen)}" if unseen else ""
    out = []
    for name in METRICS:
        try:
            statistic = _statistic(name, given, c, data, query)
        except UndefinedMetric as undefined:
            out.append(unscored(c, name, "not_applicable", str(undefined)))
            continue
        except ValueError as error:
            log.error("%s: %s", c.method, error)
            out.append(unscored(c, name, "failed", f"{c.method}: {error}"))
            continue
        out.append(
            score_with_interval(
                c, name, statistic, n, n_boot=n_boot, seed=seed, coverage=coverage, reason=note
            )
        )
    return out


def score(
    data: TaskData,
    candidates: Sequence[Candidate],
    *,
    seed: int,
    threads: int,
    params: Mapping[str, Any],
) -> list[Score]:
    """Score predicted types on the scored cells that have a usable label.

    ``unknown`` and any other prediction that is not the true type is wrong. A type that
    the split never showed stays in the score; the coverage is the share of scored cells
    whose type was shown, and the reason names the types that were not. A method that gives
    an embedding and no labels gets those of the nearest shown cells (``transfer.py``).

    Parameters
    ----------
    seed
        Of the bootstrap, which resamples every candidate alike, and of the clusters that
        votes are taken in (``voting.py``).
    threads
        Of the neighbour search below those clusters.
    params
        ``n_boot``: resamples of cells for the 95 % percentile interval, 1000 by default.

    Returns
    -------
    list of Score
        One a candidate and metric of ``METRICS``. ``macro_f1_voted`` lets the scored cells of a
        small cluster agree on one type; ``macro_f1_knn`` asks the embedding, also of a method
        that has labels of its own; ``rare_*`` are over types below 1 % of the labelled cells;
        ``calibration`` is 1 less the expected calibration error.
    """
    index = data.labelled
    cluster_n = over_clusters(data.pca_np, seed=seed, threads=threads)
    query = _Query(index, data.cell_type[index].astype(str), rare_types(data.cell_type), cluster_n)
    n_boot = int(params.get("n_boot", 1000))
    return [s for c in candidates for s in _candidate(c, data, query, n_boot, seed)]
