"""Scores of all cells, or the mean over samples of them with its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from morebench.sample import sample_rows
from morebench.tasks.contract import Score, TaskData


def over_draws(
    data: TaskData,
    cells: np.ndarray,
    score: Callable[[np.ndarray], list[Score]],
    *,
    seed: int,
    params: Mapping[str, Any],
) -> list[Score]:
    """Score cells once, or samples of them where there are more than ``sample``.

    Batches and types keep their shares, so that no type's batches are thinned by chance.

    Parameters
    ----------
    cells : (m,) array of int
        Places of cells with a usable label.
    score
        Gives the same candidates and metrics, in the same order, for any of these cells.
    seed
        Of the first draw; each later one has the next number.
    params
        ``sample``: at most that many cells; ``repeats``: draws.

    Returns
    -------
    list of Score
        Of several draws the mean, with the 95 % t interval of the mean over draws, which is
        the error of sampling cells and of nothing else. One that is missing makes it missing.
    """
    sample = params.get("sample")
    if sample is None or sample >= len(cells):
        return score(cells)
    group = np.array(
        [f"{b}|{t}" for b, t in zip(data.batch[cells], data.cell_type[cells], strict=True)]
    )
    found = [
        score(cells[sample_rows(group, sample, seed + draw)]) for draw in range(params["repeats"])
    ]
    return [_mean_of(scores) for scores in zip(*found, strict=True)]


def _mean_of(scores: Sequence[Score]) -> Score:
    missing = [s for s in scores if s.status != "ok"]
    if missing:
        return missing[0]
    from scipy.stats import t

    values = np.array([s.value for s in scores])
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    return replace(scores[0], value=mean, ci_low=mean - half, ci_high=mean + half)
