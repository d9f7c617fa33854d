"""Doublets: scores against doublets known by an experimental assay."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morebench.metrics import ranking
from morebench.tasks.contract import Candidate, Score, TaskData, unscored
from morebench.tasks.intervals import score_with_interval

log = logging.getLogger(__name__)

_METRICS = {
    "auroc": ranking.auroc,
    "auprc": ranking.auprc,
    "recall_at_rate": ranking.recall_at_rate,
}


def _candidate(
    c: Candidate, data: TaskData, index: np.ndarray, n_boot: int, seed: int
) -> list[Score]:
    if c.state != "ok":
        return [unscored(c, name, c.state, c.reason) for name in _METRICS]
    positive = data.is_doublet[index] == 1
    if not positive.any() or positive.all():
        reason = f"{int(positive.sum())} doublets among {len(index)} cells with truth"
        return [unscored(c, name, "not_applicable", reason) for name in _METRICS]
    values = None if c.output is None else c.output.doublet_score
    reason = ""
    if values is None or len(values) != len(data.batch):
        found = "none" if values is None else len(values)
        reason = f"{c.method}: found {found} scores; valid: one a cell, {len(data.batch)}"
    elif not np.isfinite(values[index]).all():
        bad = int((~np.isfinite(values[index])).sum())
        reason = f"{c.method}: {bad} doublet scores are NaN or infinite; valid: finite numbers"
    if values is None or reason:
        log.error("%s", reason)
        return [unscored(c, name, "failed", reason) for name in _METRICS]
    own = np.asarray(values, dtype=float)[index]
    return [
        score_with_interval(
            c, name, ranking.statistic(metric, positive, own), len(index), n_boot=n_boot, seed=seed
        )
        for name, metric in _METRICS.items()
    ]


def score(
    data: TaskData,
    candidates: Sequence[Candidate],
    *,
    seed: int,
    threads: int,
    params: Mapping[str, Any],
) -> list[Score]:
    """Score doublet scores on every cell whose truth is known.

    These cells, and not the split's scored ones (which leave doublets out), are the
    scored cells of this task; the coverage is a share of them.

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
        AUROC, AUPRC (average precision) and ``recall_at_rate`` of each candidate. The last
        is the recall among the top-scoring share of cells that equals the true doublet rate
        of the cells with truth (of a resample: its own rate), tied cells by their mean.
    """
    index = np.flatnonzero(~np.isnan(data.is_doublet))
    n_boot = int(params.get("n_boot", 1000))
    return [s for c in candidates for s in _candidate(c, data, index, n_boot, seed)]
