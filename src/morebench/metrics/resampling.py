"""Bootstrap resamples of cells, drawn in chunks that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

#: Takes (r, n) indices, one resample a row, and returns (r,) values.
Statistic = Callable[[np.ndarray], np.ndarray]

_CHUNK_ELEMENTS = 1 << 22


def resamples(n: int, n_boot: int, seed: int, *, chunk: int | None = None) -> Iterator[np.ndarray]:
    """Yield (r, n) arrays of indices drawn with replacement, n_boot rows in all.

    The same n, n_boot and seed give the same resamples, so that statistics of several
    methods on the same cells are paired; ``chunk`` (rows at once) changes nothing.

    Raises
    ------
    ValueError
        If n or n_boot is not positive.
    """
    if n < 1 or n_boot < 1:
        raise ValueError(f"found n = {n}, n_boot = {n_boot}; valid: both at least 1")
    rng = np.random.default_rng(seed)
    rows = chunk or max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, n_boot, rows):
        yield rng.integers(n, size=(min(rows, n_boot - start), n))


def bootstrap_values(statistic: Statistic, n: int, n_boot: int, seed: int) -> np.ndarray:
    """Return the (n_boot,) values of a statistic on seeded resamples of n cells."""
    return np.concatenate([statistic(indices) for indices in resamples(n, n_boot, seed)])


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (Efron and Tibshirani 1993, section 13.3).

    Resamples on which the statistic is undefined (NaN, such as one class only) are left
    out; where all are, so is the interval (NaN, NaN).

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}; valid: between 0 and 1")
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
