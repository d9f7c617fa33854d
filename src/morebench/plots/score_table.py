"""The table of scores as a figure: methods by metrics, a block a track, controls apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from morebench.plots.ranking import ordered_metrics, rank_methods
from morebench.plots.score_cells import ROW_HEIGHT, Column, draw_bar, draw_missing, draw_tile
from morebench.plots.selftest import MARK_NOTE, marked_titles
from morebench.plots.style import (
    FAINT,
    INK,
    house_style,
    score_colour,
    text_width,
)
from morebench.plots.words import (
    ASPECT_TITLES,
    NO_ROW,
    TRACK_TITLES,
    spread,
    state_word,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches.
_CELL = 0.47
_BAR = 0.86
_GAP = 0.16
_MARGIN = 0.15
_HEAD_SIZE = 6.5
_NAME_SIZE = 7.0
_NOTE_SIZE = 6.0
_TITLE_SIZE = 9.0
# Bold text is at most this much wider.
_BOLD = 1.2
_SCALE = 1.1


def draw_score_table(
    summary: pd.DataFrame,
    metrics: Mapping[str, str],
    title: str,
    *,
    rank_by: str = "total",
    rising: Collection[str] = (),
) -> Figure:
    """Draw one task's scores on one dataset and split.

    Every cell prints its mean over seeds and, with two seeds or more, the standard
    deviation. Shade and bar show the mean on one scale from 0 to 1, not rescaled. What is
    missing shows its status. A mean that rests on fewer runs than asked for shows its status
    below the number and is not ranked.

    Parameters
    ----------
    summary : DataFrame
        ``method, title, track, metric, aspect, mean, sd, n_seeds, status``.
    metrics
        Metric to its title, in the order of the columns.
    title
        Title of the figure.
    rank_by
        Metric by which methods are ranked inside their track.
    rising
        Metrics that rise with over-correction: a dagger marks their titles.

    Raises
    ------
    ContractError
        If the summary breaks its contract (see ``ranking.check_summary``) or holds a metric
        without a title.
    """
    ranked = rank_methods(summary, rank_by)
    groups = ordered_metrics(summary, metrics)
    metrics = marked_titles(metrics, rising)
    from matplotlib.figure import Figure

    with house_style():
        names = (
            _MARGIN + 0.22 + max((text_width(t, _NAME_SIZE) for t in ranked["title"]), default=0.5)
        )
        tracks = list(dict.fromkeys(ranked["track"]))
        # The title of a track ends where the columns begin: it stands level with their names.
        widest = max((text_width(TRACK_TITLES.get(t, t), 7) for t in tracks), default=0) * _BOLD
        names = max(names, _MARGIN + widest - 0.45)
        columns = _columns(groups, names + 0.5)
        end = columns[-1].left + columns[-1].width if columns else names + 1
        overhang = max(
            (
                c.left + 0.5 * c.width + 0.75 * text_width(metrics[c.metric], _HEAD_SIZE)
                for c in columns
            ),
            default=end,
        )
        head = 0.55 + 0.72 * max(
            (text_width(metrics[c.metric], _HEAD_SIZE) for c in columns), default=0
        )
        height = head + ROW_HEIGHT * len(ranked) + 0.42 * len(tracks) + 0.55
        notes = ["Mean ± s.d. over seeds; the scale is 0 to 1 for every metric, not rescaled."]
        if ranked["rank"].notna().any():
            notes.append(f"Ranked by {metrics[rank_by]} inside a track.")
        if any(name in rising for _, chosen in groups for name in chosen):
            notes.append(MARK_NOTE)
        below = _SCALE + max(text_width(note, _NOTE_SIZE) for note in notes)
        above = text_width(title, _TITLE_SIZE) * _BOLD
        width = max(end, overhang, _MARGIN + below, _MARGIN + above) + _MARGIN
        fig = Figure(figsize=(width, height))
        ax = fig.add_axes((0, 0, 1, 1))
        # One unit is one inch, y downwards: positions below are sizes on paper.
        ax.set(xlim=(0, width), ylim=(height, 0))
        ax.axis("off")
        ax.text(_MARGIN, 0.2, title, fontsize=_TITLE_SIZE, fontweight="bold", va="center")
        _head(ax, columns, metrics, head, names)
        cells = {(r["method"], r["metric"]): r for r in summary.to_dict("records")}
        seeds = summary.groupby("method")["n_seeds"].max()
        y = head
        for track in tracks:
            y += 0.3
            ax.text(
                _MARGIN, y - 0.05, TRACK_TITLES.get(track, track), fontsize=7, va="bottom",
                fontweight="bold", color=INK,
            )  # fmt: skip
            ax.hlines(y - 0.01, _MARGIN, end, color=INK, linewidth=0.6)
            for row in ranked[ranked["track"] == track].to_dict("records"):
                row["seeds"] = seeds[row["method"]]
                _row(ax, row, columns, cells, y + 0.06 + ROW_HEIGHT / 2, names)
                y += ROW_HEIGHT
            y += 0.12
        _scale(ax, y + 0.22, groups, notes)
    return fig


def _columns(groups: list[tuple[str, list[str]]], left: float) -> list[Column]:
    columns = []
    for aspect, chosen in groups:
        width = _BAR if aspect == "total" else _CELL
        for metric in chosen:
            columns.append(Column(metric, aspect, left, width))
            left += width
        left += _GAP
    return columns


def _head(
    ax: Axes, columns: list[Column], metrics: Mapping[str, str], y: float, names: float
) -> None:
    """Write metric titles, slanted, above a rule a group."""
    ax.text(names + 0.25, y, "seeds", fontsize=5.5, color=FAINT, ha="center", va="bottom")
    for aspect in dict.fromkeys(c.aspect for c in columns):
        mine = [c for c in columns if c.aspect == aspect]
        left, right = mine[0].left + 0.03, mine[-1].left + mine[-1].width - 0.03
        colour = score_colour(0.9, aspect)
        ax.hlines(y + 0.02, left, right, color=[colour], linewidth=1.6)
        ax.text(
            (left + right) / 2, y + 0.14, ASPECT_TITLES.get(aspect, aspect), color=colour,
            ha="center", va="center", fontsize=6.5, fontweight="bold",
        )  # fmt: skip
    for column in columns:
        ax.text(
            column.left + 0.5 * column.width - 0.03, y - 0.05, metrics[column.metric],
            rotation=45, rotation_mode="anchor", ha="left", va="bottom", fontsize=_HEAD_SIZE,
        )  # fmt: skip


def _row(
    ax: Axes,
    row: Mapping[Any, Any],
    columns: list[Column],
    cells: Mapping[tuple[str, str], Mapping[Any, Any]],
    y: float,
    names: float,
) -> None:
    """Write one method: rank, title, seeds, scores."""
    faint: dict[str, Any] = {"color": FAINT, "ha": "center", "va": "center"}
    if math.isfinite(row["rank"]):
        ax.text(_MARGIN + 0.08, y, f"{row['rank']:.0f}", fontsize=7, **faint)
    ax.text(_MARGIN + 0.22, y, row["title"], fontsize=_NAME_SIZE, va="center")
    ax.text(names + 0.25, y, f"{row['seeds']:.0f}", fontsize=6, **faint)
    for column in columns:
        cell = cells.get((row["method"], column.metric))
        value = float(cell["mean"]) if cell else math.nan
        state = str(cell["status"]) if cell else NO_ROW
        below = spread(float(cell["sd"]), float(cell["n_seeds"])) if cell else ""
        if not math.isfinite(value):
            draw_missing(ax, column, y, state_word(state))
        else:
            below = below if state == "ok" else state_word(state)
            (draw_bar if column.aspect == "total" else draw_tile)(ax, column, y, value, below)


def _scale(ax: Axes, y: float, groups: list[tuple[str, list[str]]], notes: list[str]) -> None:
    """Explain shade, spread and rank below the table."""
    from matplotlib.patches import Rectangle

    shaded = [aspect for aspect, _ in groups if aspect != "total"][:3]
    x = _MARGIN
    for i, aspect in enumerate(shaded):
        for step in range(20):
            ax.add_patch(
                Rectangle(
                    # Each step reaches to the end, the next one covers it: no seams.
                    (x + 0.1 + 0.04 * step, y - 0.05 * len(shaded) + 0.1 * i),
                    0.8 - 0.04 * step, 0.08,
                    facecolor=score_colour((step + 0.5) / 20, aspect), edgecolor="none",
                )
            )  # fmt: skip
    if shaded:
        ax.text(x + 0.05, y, "0", fontsize=6, ha="center", va="center")
        ax.text(x + 0.96, y, "1", fontsize=6, ha="center", va="center")
        x += _SCALE
    ax.text(x, y, "\n".join(notes), fontsize=_NOTE_SIZE, color=FAINT, va="center")
