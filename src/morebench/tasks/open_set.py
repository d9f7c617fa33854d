"""Open set: how well a type that was never shown is told from those that were."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from morebench.contract import UNKNOWN, MethodOutput
from morebench.metrics import ranking
from morebench.tasks.contract import Candidate, Score, TaskData, unscored
from morebench.tasks.intervals import score_with_interval
from morebench.tasks.transfer import distance_to_shown

log = logging.getLogger(__name__)

_METRICS = {"unknown_auroc": ranking.auroc, "unknown_auprc": ranking.auprc}


def novelty(c: Candidate, data: TaskData) -> np.ndarray:
    """Return (n,) how new a cell looks to a method.

    Its own ``novelty``, where it has one. Else with probabilities: 1 less the largest, and 1
    more if ``unknown``, so that cells that the method itself calls unknown stand before all
    others. Else the mean distance in the embedding to the nearest shown cells
    (``transfer.py``).

    Raises
    ------
    ValueError
        There is none of these, or not of the dataset's cells.
    """
    output = c.output or MethodOutput()
    for name in ("novelty", "probabilities"):
        found = getattr(output, name)
        if found is not None and len(found) != len(data.batch):
            raise ValueError(f"{name} of {len(found)} cells; valid: {len(data.batch)}")
    if output.novelty is not None:
        return np.asarray(output.novelty, dtype=float)
    if output.probabilities is None:
        if output.embedding is None:
            raise ValueError("found no novelty, probabilities or embedding; valid: one of them")
        return distance_to_shown(output.embedding, data)
    doubt_n = 1 - output.probabilities.to_numpy(dtype=float).max(axis=1)
    if output.labels is None:
        return doubt_n
    return doubt_n + (np.asarray(output.labels) == UNKNOWN)


def _candidate(
    c: Candidate, data: TaskData, index: np.ndarray, new: np.ndarray, n_boot: int, seed: int
) -> list[Score]:
    if c.state != "ok":
        return [unscored(c, name, c.state, c.reason) for name in _METRICS]
    if not new.any() or new.all():
        reason = f"{int(new.sum())} of {len(index)} scored cells are of a type never shown"
        return [unscored(c, name, "not_applicable", reason) for name in _METRICS]
    try:
        values = novelty(c, data)[index]
    except ValueError as error:
        reason = f"{c.method}: {error}"
        log.error("%s", reason)
        return [unscored(c, name, "failed", reason) for name in _METRICS]
    return [
        score_with_interval(
            c, name, ranking.statistic(metric, new, values), len(index), n_boot=n_boot, seed=seed
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
    """Score how well the cells of a type never shown are told from known ones.

    Scored are the split's cells with a usable label: all of the new type, and the known cells
    whose label was hidden as well.

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
        AUROC and AUPRC of ``novelty`` for the new type, of each candidate.
    """
    index = data.labelled
    taught = sorted({str(label) for label in data.shown if label is not None})
    new = np.isin(data.cell_type[index].astype(str), taught, invert=True)
    n_boot = int(params.get("n_boot", 1000))
    return [s for c in candidates for s in _candidate(c, data, index, new, n_boot, seed)]
