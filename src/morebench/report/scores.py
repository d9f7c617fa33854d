"""Score tables of the report: a block a track, missing scores with their reasons."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from morebench.plots.ranking import ordered_metrics, rank_methods
from morebench.plots.selftest import MARK_NOTE, marked_titles
from morebench.plots.words import (
    ASPECT_TITLES,
    NO_ROW,
    TRACK_TITLES,
    number,
    spread,
    state_word,
)
from morebench.report.tables import Cell, Table, need_columns, text_of

SCORE_COLUMNS = (
    "dataset", "split", "task", "method", "track", "seed", "metric", "value", "ci_low",
    "ci_high", "n_cells", "coverage", "status", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class ScoreRow:
    """One method's scores; ``rank`` is empty where it is not ranked."""

    rank: str
    title: str
    seeds: str
    cells: list[Cell]


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one (dataset, split, task).

    ``groups`` are (aspect, number of columns), ``blocks`` are (track, rows), ``mark``
    explains the dagger where a column has one, and ``caveats`` lists missing and partly
    covered scores with their reasons.
    """

    caption: str
    groups: list[tuple[str, int]]
    head: list[str]
    blocks: list[tuple[str, list[ScoreRow]]]
    mark: str
    caveats: Table | None


def score_table(
    summary: pd.DataFrame,
    scores: pd.DataFrame,
    metric_titles: Mapping[str, str],
    caption: str,
    rank_by: str,
    rising: Collection[str] = (),
) -> ScoreTable:
    """Lay out one task's scores on one dataset and split.

    A cell shows the mean, with the standard deviation over seeds, or with the interval
    of its single seed; where there is no number it shows the status. A dagger marks the
    metrics in ``rising``, which rise with over-correction.
    """
    need_columns(scores, SCORE_COLUMNS, "scores")
    ranked = rank_methods(summary, rank_by)
    # Totals first: a narrow screen shows the left end of a wide table.
    groups = sorted(ordered_metrics(summary, metric_titles), key=lambda g: g[0] != "total")
    metrics = [m for _, chosen in groups for m in chosen]
    cells = {(r["method"], r["metric"]): r for r in summary.to_dict("records")}
    intervals = _intervals(scores)
    blocks = []
    for track, methods in ranked.groupby("track", sort=False):
        rows = []
        for row in methods.to_dict("records"):
            method, rank = str(row["method"]), float(row["rank"])
            seeds = summary.loc[summary["method"] == method, "n_seeds"].max()
            shown = [_cell(cells, intervals, method, metric) for metric in metrics]
            place = f"{rank:.0f}" if math.isfinite(rank) else ""
            rows.append(ScoreRow(place, str(row["title"]), f"{seeds:.0f}", shown))
        blocks.append((TRACK_TITLES.get(str(track), str(track)), rows))
    return ScoreTable(
        caption,
        [(ASPECT_TITLES.get(aspect, aspect), len(chosen)) for aspect, chosen in groups],
        list(marked_titles({m: metric_titles[m] for m in metrics}, rising).values()),
        blocks,
        MARK_NOTE if set(metrics) & set(rising) else "",
        _caveats(scores, metric_titles, dict(zip(ranked["method"], ranked["title"], strict=True))),
    )


def _cell(
    cells: Mapping[tuple[str, str], Mapping[Any, Any]],
    intervals: Mapping[tuple[str, str], tuple[float, float]],
    method: str,
    metric: str,
) -> Cell:
    if (method, metric) not in cells:
        return Cell(NO_ROW, "missing")
    row = cells[method, metric]
    mean, state, n_seeds = float(row["mean"]), str(row["status"]), float(row["n_seeds"])
    if not math.isfinite(mean):
        return Cell(state_word(state), "missing")
    small = spread(float(row["sd"]), n_seeds)
    if n_seeds < 2 and (method, metric) in intervals:
        low, high = intervals[method, metric]
        small = f"[{number(low)}, {number(high)}]"
    if state != "ok":
        small = f"{small} ({state_word(state)})".strip()
    return Cell(number(mean), "number", small)


def _intervals(scores: pd.DataFrame) -> dict[tuple[str, str], tuple[float, float]]:
    """Map (method, metric) to its interval where one seed has one."""
    known = scores[scores["ci_low"].notna() & scores["ci_high"].notna()]
    alone = known[~known.duplicated(["method", "metric"], keep=False)]
    return {
        (str(r["method"]), str(r["metric"])): (float(r["ci_low"]), float(r["ci_high"]))
        for r in alone.to_dict("records")
    }


def _caveats(
    scores: pd.DataFrame, metric_titles: Mapping[str, str], titles: Mapping[str, str]
) -> Table | None:
    """List scores that are missing or rest on a part of the cells, equal reasons together."""
    partly = scores["coverage"].astype(float) < 1
    found = scores[(scores["status"] != "ok") | partly].copy()
    if found.empty:
        return None
    found["reason"] = [text_of(r) for r in found["reason"]]
    rows = []
    key = ["method", "status", "coverage", "reason"]
    for (method, status, coverage, reason), group in found.groupby(key, sort=False, dropna=False):
        metrics = dict.fromkeys(metric_titles.get(m, str(m)) for m in group["metric"])
        seeds = ", ".join(str(s) for s in sorted(set(group["seed"])))
        rows.append(
            [
                Cell(titles.get(str(method), str(method))),
                Cell(", ".join(metrics)),
                Cell(seeds),
                Cell(state_word(status)),
                Cell(f"{100 * float(str(coverage)):.0f} %", "number"),
                Cell(str(reason)) if reason else Cell("no reason recorded", "missing"),
            ]
        )
    head = ["Method", "Metrics", "Seeds", "Status", "Cells covered", "Reason"]
    return Table("Scores that are missing or rest on a part of the cells", head, rows)
