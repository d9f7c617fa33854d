"""What the response curves say of each metric: steadiness, range, direction, verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morebench.errors import ContractError
from morebench.registry import METRICS
from morebench.selftest.response import CURVE_COLUMNS

#: A response smaller than this is none: tables and figures print two decimals.
MIN_RANGE = 0.01
#: A rank correlation below this is no trend.
MIN_TREND = 0.5

FALLS, NO_RISE = "falls", "does not rise"
RESPONDS, FLAT, WRONG_WAY = "responds", "flat", "wrong way"
#: It moves, up and down.
UNSTEADY = "not monotone"
UNDEFINED = "undefined"

SUMMARY_COLUMNS = (
    "metric",
    "titration",
    "spearman",
    "range",
    "at_0",
    "at_end",
    "half_at",
    "seeds",
    "expected",
    "verdict",
    "rises_with_overcorrection",
)


def expected_direction(metric: str, titration: str) -> str:
    """Return what a metric should do as a titration grows.

    A metric of batch removal must fall as batches grow apart, and must not gain by merged
    types or noise; one of biology (or structure) must fall with these two, and must not gain
    by batches that grow apart. The total must fall with all three.
    """
    batch = METRICS[metric].aspect == "batch" or metric == "batch_total"
    if metric == "total" or batch == (titration == "batch_strength"):
        return FALLS
    return NO_RISE


def _trend(values_sl: np.ndarray, levels: np.ndarray) -> float:
    """Mean over seeds of Spearman's correlation with the level; 0 for a constant one."""
    from scipy.stats import spearmanr

    found = [spearmanr(levels, v).statistic if np.ptp(v) > 0 else 0.0 for v in values_sl]
    return float(np.mean(found))


def _half_at(means: np.ndarray, levels: np.ndarray) -> float:
    """First level by which half of the range is gone; NaN where there is none."""
    span = np.ptp(means)
    if not span > 0:
        return np.nan
    gone = np.abs(means - means[0]) >= span / 2
    return float(levels[np.argmax(gone)])


def verdict_of(spearman: float, span: float) -> str:
    """Judge a curve: every expected direction is down, or at least not up."""
    if not np.isfinite(span):
        return UNDEFINED
    if span < MIN_RANGE:
        return FLAT
    if abs(spearman) < MIN_TREND:
        return UNSTEADY
    return RESPONDS if spearman < 0 else WRONG_WAY


def summarise(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row a metric and titration.

    Parameters
    ----------
    curves : DataFrame
        As of ``response.curves``.

    Returns
    -------
    DataFrame
        ``spearman`` (mean over seeds of that within a seed), ``range`` (largest minus
        smallest mean of a level), ``at_0`` and ``at_end`` (means at the first and last
        level) and ``half_at`` (the first level whose mean is half of the range away from
        the first), over the ``seeds`` in which the metric has a value at every level
        (without one: ``undefined``); ``expected``, ``verdict``;
        ``rises_with_overcorrection`` is the same in all rows of a metric.

    Raises
    ------
    ContractError
        If a column is absent.
    """
    absent = [c for c in CURVE_COLUMNS if c not in curves.columns]
    if absent:
        raise ContractError(f"curves: lacks the columns {absent}; it has {list(curves.columns)}")
    rows = []
    for (metric, titration), part in curves.groupby(["metric", "titration"], sort=False):
        table = part.pivot(index="seed", columns="level", values="value").dropna()
        levels = table.columns.to_numpy(dtype=float)
        means = table.mean(axis=0).to_numpy() if len(table) else np.full(len(levels), np.nan)
        spearman = _trend(table.to_numpy(), levels) if len(table) else np.nan
        span = float(np.ptp(means))
        name, effect = str(metric), str(titration)
        verdict, wanted = verdict_of(spearman, span), expected_direction(name, effect)
        ends = float(means[0]), float(means[-1])
        half = _half_at(means, levels)
        rows.append((name, effect, spearman, span, *ends, half, len(table), wanted, verdict))
    frame = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS[:-1]))
    gains = frame[(frame["titration"] == "overcorrection") & (frame["verdict"] == WRONG_WAY)]
    frame["rises_with_overcorrection"] = frame["metric"].isin(gains["metric"])
    order = {name: i for i, name in enumerate(METRICS)}
    frame["_order"] = frame["metric"].map(order)
    return frame.sort_values("_order", kind="stable").drop(columns="_order").reset_index(drop=True)
