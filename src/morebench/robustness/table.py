"""The table of robustness curves: every method's scores at every level of every change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from morebench.config import Config, methods_of
from morebench.plan import expected
from morebench.registry import METRICS, split_kind
from morebench.robustness.plan import TITRATION, Curve, Point, comparable, curves
from morebench.tasks import pooled
from morebench.tasks.crosstab import TRUTH

POOLED = "lobo"  # the split of what is pooled over all held-out batches
MISSING = "missing"  # expected, but its run or scoring did not end
TYPE_METRICS = ("type_f1", "type_recall")
COLUMNS = (
    "dataset",
    "change",
    "cell_type",
    "level",
    "split",
    "task",
    "metric",
    "method",
    "title",
    "track",
    "mean",
    "low",
    "high",
    "n",
    "n_cells",
    "status",
    "reason",
)
LEVEL = 0.95  # of the intervals, as of those of the scores


@dataclass(frozen=True)
class _Value:
    """One value with its interval over cells, or why there is none."""

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    n_cells: int = 0
    status: str = MISSING
    reason: str = "it was not scored"


def robustness_table(
    config: Config,
    scores: pd.DataFrame,
    pooled_scores: pd.DataFrame,
    crosstab: pd.DataFrame,
    facts: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """Return the curves of a configuration, no row where it has none.

    Parameters
    ----------
    scores : DataFrame
        ``evaluate.SCORE_COLUMNS`` of all datasets: what is scored split by split.
    pooled_scores : DataFrame
        ``pooled.SCORE_COLUMNS`` and ``dataset``: annotation, held-out batches pooled.
    crosstab : DataFrame
        ``crosstab.CROSSTAB_COLUMNS`` and ``dataset``: what methods call the cells of each type.
    facts
        Dataset to what ``prepare`` recorded.

    Returns
    -------
    DataFrame
        ``COLUMNS``: ``dataset`` is the base, whose scores are the first point of each curve of
        each method that has another one. ``mean`` is over seeds, and over the draws of a level;
        ``n`` counts them. Of several, ``low`` and ``high`` are the smallest and the largest; of
        one, they are its 95 % interval over cells, where it has one. A point with a value
        missing has none itself, and says why. Only splits that score the same cells as the
        base's are compared; ``lobo`` is all held-out batches together. Of a titration there are
        ``type_f1`` and ``type_recall`` of the titrated type over the held-out batches, and
        ``n_cells`` counts its cells.

    Notes
    -----
    A titrated type may have a handful of cells, so the answers of all draws are counted
    together (``n`` is the number of seeds), and intervals are Wilson's (1927), which hold
    there: of k right among n true cells for the recall; for F1 = 2 J / (1 + J), of the share J
    of right ones among the cells that are of the type or called so. Cells wrongly called so may
    be the same in several draws, which the interval of F1 takes for different ones.
    """
    rows: list[tuple[Any, ...]] = []
    values = _Values(scores, pooled_scores, crosstab)
    methods, seeds = methods_of(config), _seeds(config)
    for curve in curves(config):
        levels = [_level(curve, point, facts) for point in curve.points]
        for split, task in _places(curve, seeds):
            metrics = _metrics(curve, split, task)
            for metric, (name, method) in product(metrics, methods.items()):
                runs = [_runs(point, seeds, (split, task, name)) for point in curve.points]
                if not any(runs[1:]):
                    continue  # the method is in the base only: that is no curve
                words = (split, task, metric, name, method.spec.title, method.spec.track)
                for level, by_seed in zip(levels, runs, strict=True):
                    if by_seed:
                        found = values.of(curve, split, task, name, metric, by_seed)
                        key = (curve.base, curve.change, curve.cell_type, level, *words)
                        rows.append((*key, *_point(found)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


#: (dataset, split, task, method) to the seeds expected of it; held-out batches are one split.
_Seeds = Mapping[tuple[str, str, str, str], Sequence[int]]


def _seeds(config: Config) -> _Seeds:
    """Return what is expected of every dataset; of a derived one, what its base scores too."""
    found: dict[tuple[str, str, str, str], list[int]] = {}
    for cell in expected(config):
        run, derive = cell.run, config.datasets[cell.run.dataset].derive
        if derive is None or comparable(config, derive.base, run.dataset, cell.split):
            split = POOLED if split_kind(cell.split) == POOLED else cell.split
            seeds = found.setdefault((run.dataset, split, cell.task, run.method), [])
            if run.seed not in seeds:
                seeds.append(run.seed)
    return found


def _places(curve: Curve, seeds: _Seeds) -> list[tuple[str, str]]:
    """Return (split, task) that the base and a changed dataset are both scored on."""
    changed = {name for point in curve.points[1:] for name in point.datasets}
    of_changed = dict.fromkeys((s, t) for name, s, t, _ in seeds if name in changed)
    of_base = {(s, t) for name, s, t, _ in seeds if name == curve.base}
    return [place for place in of_changed if place in of_base]


def _metrics(curve: Curve, split: str, task: str) -> tuple[str, ...]:
    if curve.change == TITRATION:
        return TYPE_METRICS if split == POOLED else ()
    if split == POOLED:
        return tuple(pooled.METRICS)
    return tuple(m.name for m in METRICS.values() if m.task == task)


def _runs(point: Point, seeds: _Seeds, place: tuple[str, str, str]) -> dict[int, list[str]]:
    """Return seed to the datasets of a point, for a (split, task, method)."""
    found: dict[int, list[str]] = {}
    for name in point.datasets:
        for seed in seeds.get((name, *place), ()):
            found.setdefault(seed, []).append(name)
    return found


def _level(curve: Curve, point: Point, facts: Mapping[str, Mapping[str, Any]]) -> float:
    """Return a point's level; NaN for the share of a type in a base that was not prepared."""
    if point.level is not None:
        return point.level
    for name in (n for p in curve.points[1:] for n in p.datasets):
        if curve.base in facts and name in facts:
            return facts[name]["derived"]["cells_of_type"][0] / facts[curve.base]["cells"]
    return np.nan


class _Values:
    """Looks up what was scored; what was not is typed as missing."""

    def __init__(self, scores: pd.DataFrame, pooled_scores: pd.DataFrame, crosstab: pd.DataFrame):
        self.by_split = _indexed(scores, ("dataset", "split", "task", "method", "metric", "seed"))
        self.by_pool = _indexed(pooled_scores, ("dataset", "method", "metric", "seed"))
        against_truth = crosstab[crosstab["other"] == TRUTH]
        self.counts = _indexed(against_truth, ("dataset", "method", "seed"))

    def of(
        self,
        curve: Curve,
        split: str,
        task: str,
        method: str,
        metric: str,
        runs: Mapping[int, Sequence[str]],
    ) -> list[_Value]:
        """Return the values of a point, whose datasets stand by seed."""
        if curve.change == TITRATION:
            return [self._of_type(curve, method, metric, seed, runs[seed]) for seed in runs]
        keys = [(seed, name) for seed, names in runs.items() for name in names]
        if split == POOLED:
            return [_value(self.by_pool.get((n, method, metric, seed))) for seed, n in keys]
        return [
            _value(self.by_split.get((n, split, task, method, metric, seed))) for seed, n in keys
        ]

    def _of_type(
        self, curve: Curve, method: str, metric: str, seed: int, names: Sequence[str]
    ) -> _Value:
        """Return F1 or recall of the titrated type, the cells of all draws together."""
        from scipy.stats import binomtest

        right = true = called = shown = 0
        for name in names:
            whole = _value(self.by_pool.get((name, method, pooled.COMPARED, seed)))
            counts = self.counts.get((name, method, seed))
            if whole.status != "ok" or counts is None:
                return whole if whole.status != "ok" else _Value()
            for row in counts:
                is_true, is_called = (row[k] == curve.cell_type for k in ("other_label", "label"))
                right += int(row["n_cells"]) * (is_true and is_called)
                true += int(row["n_cells"]) * is_true
                called += int(row["n_cells"]) * is_called
                shown += int(row["n_shown"]) * is_true
        if not true:
            reason = f"no scored cell is of type {curve.cell_type!r}"
            return _Value(status="not_applicable", reason=reason)
        if not shown:
            reason = f"no split shows a cell of type {curve.cell_type!r} where it scores one"
            return _Value(n_cells=true, status="not_applicable", reason=reason)
        n = true if metric == "type_recall" else true + called - right
        low, high = binomtest(right, n).proportion_ci(LEVEL, "wilson")
        value = right / n
        if metric == "type_f1":
            value, low, high = (2 * j / (1 + j) for j in (value, low, high))
        return _Value(value, float(low), float(high), true, "ok", "")


def _indexed(frame: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[Any, ...], list[Any]]:
    """Return the rows of every combination of keys."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in frame.to_dict("records"):
        found.setdefault(tuple(row[k] for k in keys), []).append(row)
    return found


def _value(rows: Sequence[Any] | None) -> _Value:
    """Return the value of a score's row."""
    if rows is None:
        return _Value()
    row = rows[0]
    reason = "" if pd.isna(row["reason"]) else str(row["reason"])
    value, low, high = (float(row[k]) for k in ("value", "ci_low", "ci_high"))
    return _Value(value, low, high, int(row["n_cells"]), str(row["status"]), reason)


def _point(values: Sequence[_Value]) -> tuple[Any, ...]:
    """Return mean, low, high, n, n_cells, status and reason of the values of a point."""
    n, bad = len(values), [v for v in values if v.status != "ok"]
    n_cells = min(v.n_cells for v in values)
    if bad:
        return (np.nan, np.nan, np.nan, n, n_cells, bad[0].status, bad[0].reason)
    told = [v.value for v in values]
    low, high = (min(told), max(told)) if n > 1 else (values[0].low, values[0].high)
    return (float(np.mean(told)), low, high, n, n_cells, "ok", "")
