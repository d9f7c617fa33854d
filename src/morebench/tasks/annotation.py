"""Annotation: predicted against true types of the cells whose labels were hidden."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morebench.errors import listed
from morebench.metrics import classification
from morebench.metrics.resampling import bootstrap_values, percentile_interval
from morebench.tasks.contract import Candidate, Score, TaskData, unscored

log = logging.getLogger(__name__)

_METRICS = {
    "accuracy": classification.accuracy,
    "macro_f1": classification.macro_f1,
    "balanced_accuracy": classification.balanced_accuracy,
}


def _candidate(
    c: Candidate, data: TaskData, index: np.ndarray, n_boot: int, seed: int
) -> list[Score]:
    if c.state != "ok":
        return [unscored(c, name, c.state, c.reason) for name in _METRICS]
    if not len(index):
        reason = "no scored cell has a usable label"
        return [unscored(c, name, "not_applicable", reason) for name in _METRICS]
    predicted = None if c.output is None else c.output.labels
    if predicted is None or len(predicted) != len(data.batch):
        found = "none" if predicted is None else len(predicted)
        reason = f"{c.method}: found {found} labels; valid: one a cell, {len(data.batch)}"
        log.error("%s", reason)
        return [unscored(c, name, "failed", reason) for name in _METRICS]
    truth = data.cell_type[index].astype(str)
    taught = {str(label) for label in data.shown if label is not None}
    unseen = sorted(set(truth) - taught)
    coverage = float(np.isin(truth, unseen, invert=True).sum() / data.scored.sum())
    reason = f"never shown, so never right: {listed(unseen)}" if unseen else ""
    everything = np.arange(len(index))[None, :]
    out = []
    for name, metric in _METRICS.items():
        statistic = classification.statistic(metric, truth, np.asarray(predicted)[index])
        low, high = percentile_interval(bootstrap_values(statistic, len(index), n_boot, seed))
        value = float(statistic(everything)[0])
        out.append(
            Score(
                c.method,
                c.track,
                c.seed,
                name,
                value,
                len(index),
                coverage,
                low,
                high,
                reason=reason,
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
    whose type was shown, and the reason names the types that were not.

    Parameters
    ----------
    seed
        Of the bootstrap; every candidate is resampled alike.
    threads
        Not used: the work is small.
    params
        ``n_boot``: resamples of cells for the 95 % percentile interval, 1000 by default.

    Returns
    -------
    list of Score
        Accuracy, macro F1 and balanced accuracy of each candidate.
    """
    usable = np.array([label is not None for label in data.cell_type], dtype=bool)
    index = np.flatnonzero(data.scored & usable)
    n_boot = int(params.get("n_boot", 1000))
    return [s for c in candidates for s in _candidate(c, data, index, n_boot, seed)]
