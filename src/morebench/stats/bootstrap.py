"""Seeded percentile bootstrap of a statistic, alone and for paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morebench.metrics.resampling import Statistic, bootstrap_values, percentile_interval


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval.

    Attributes
    ----------
    estimate
        The statistic on the data itself.
    low, high
        Percentile interval at ``level``; NaN where no resample defines the statistic.
    p_value
        Of paired differences: two-sided, that the difference is 0; NaN otherwise.
    """

    estimate: float
    low: float
    high: float
    level: float
    n_boot: int
    p_value: float = float("nan")


def _estimate(statistic: Statistic, n: int) -> float:
    return float(statistic(np.arange(n)[None, :])[0])


def bootstrap(
    statistic: Statistic, n: int, *, n_boot: int = 1000, seed: int, level: float = 0.95
) -> Interval:
    """Percentile bootstrap over n exchangeable units (Efron and Tibshirani 1993).

    Parameters
    ----------
    statistic
        Takes (r, n) indices, one resample a row, and returns (r,) values.
    n
        Units to resample (cells, datasets, ...).

    Raises
    ------
    ValueError
        If n, n_boot or level is out of range.
    """
    low, high = percentile_interval(bootstrap_values(statistic, n, n_boot, seed), level)
    return Interval(_estimate(statistic, n), low, high, level, n_boot)


def paired_bootstrap(
    first: Statistic,
    second: Statistic,
    n: int,
    *,
    n_boot: int = 1000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Bootstrap of ``first - second``, both evaluated on the same resamples.

    What the two share (easy cells, hard cells) cancels, so the interval is that of the
    difference and not of two independent numbers. The p-value is twice the smaller share
    of resamples on either side of 0, counting the data once as (b + 1) / (B + 1), at most
    1 (Davison and Hinkley 1997, section 4.4).

    Raises
    ------
    ValueError
        If n, n_boot or level is out of range.
    """

    def difference(indices: np.ndarray) -> np.ndarray:
        return first(indices) - second(indices)

    values = bootstrap_values(difference, n, n_boot, seed)
    low, high = percentile_interval(values, level)
    defined = values[~np.isnan(values)]
    p = float("nan")
    if len(defined):
        side = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
        p = min(1.0, 2 * (side + 1) / (len(defined) + 1))
    return Interval(_estimate(difference, n), low, high, level, n_boot, p)
