"""A metric of cells as a score with its bootstrap interval."""

from __future__ import annotations

import numpy as np

from morebench.metrics.resampling import Statistic, bootstrap_values, percentile_interval
from morebench.tasks.contract import Candidate, Score


def score_with_interval(
    c: Candidate,
    metric: str,
    statistic: Statistic,
    n_cells: int,
    *,
    n_boot: int,
    seed: int,
    coverage: float = 1.0,
    reason: str = "",
) -> Score:
    """Return the value on all cells, and its 95 % percentile interval over resampled cells.

    Equal seeds resample alike, so that the scores of several candidates are paired.
    """
    low, high = percentile_interval(bootstrap_values(statistic, n_cells, n_boot, seed))
    value = float(statistic(np.arange(n_cells)[None, :])[0])
    return Score(
        c.method, c.track, c.seed, metric, value, n_cells, coverage, low, high, reason=reason
    )
