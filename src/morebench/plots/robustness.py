"""Robustness curves: what methods score as counts, labels or cells are taken away."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from morebench.errors import ContractError, listed
from morebench.plots.style import (
    FAINT,
    MARKERS,
    RULE,
    TYPE_COLOURS,
    Look,
    empty_figure,
    house_style,
    shortened,
)
from morebench.plots.words import CONTROL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = (
    "change", "cell_type", "level", "split", "task", "metric", "method", "title", "track",
    "mean", "low", "high", "n_cells",
)  # fmt: skip
# Metrics by panel, from left to right; a change shows those that it has.
_MEASURES = {
    ("all", "integration", "total"): "Integration: total",
    ("lobo", "annotation", "accuracy"): "Annotation: accuracy",
    ("lobo", "annotation", "macro_f1"): "Annotation: macro F1",
    ("lobo", "annotation", "type_f1"): "F1 of {cell_type}",
    ("lobo", "annotation", "type_recall"): "Recall of {cell_type}",
}
_AXES = {
    "dropout": "Counts above 0 that are lost",
    "depth": "Share of molecules kept",
    "label_noise": "Shown labels that are wrong",
    "label_missing": "Shown labels that are hidden",
    "titration": "Share of {cell_type} in all cells",
}
# Where a level stands: what is left is halved in equal steps, else the level itself.
_PLACES: Mapping[str, Callable[[float], float]] = {
    "depth": lambda level: -math.log2(level),
    "titration": lambda level: -math.log2(level),
    "label_missing": lambda level: -math.log2(1 - level),
}
_NOTE = (
    "Bars: smallest and largest over seeds and draws; of one value, its 95 % interval over cells.\n"
    "The draws of a titration are counted together. Dashed: not ranked. ×: no value, the table\n"
    "says why. Annotation is of all held-out batches together; embeddings give cells the label of\n"
    "their nearest labelled cells. A control beyond the range of the ranked leaves its panel."
)
_WIDTH, _HEIGHT = 2.5, 1.75  # inches of a panel


def draw_robustness(table: pd.DataFrame, title: str) -> Figure:
    """Draw a row of panels a change, a line a method, from nothing changed to the most.

    Parameters
    ----------
    table : DataFrame
        Rows of one base of ``robustness.table.COLUMNS``: as written to ``robustness.tsv``.
    title
        Title of the figure.

    Raises
    ------
    ContractError
        The table lacks a column or has a change without a title. A table without any of the
        metrics drawn gives a figure that says so: methods that failed must not fail the run.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = _rows(table)
    names = dict.fromkeys(table["method"].astype(str))
    looks = {name: Look(_of(TYPE_COLOURS, i), _of(MARKERS, i)) for i, name in enumerate(names)}
    with house_style():
        if not rows:
            return empty_figure(title, "No split has a score to draw.")
        n_columns = max(len(panels) for _, panels in rows)
        size = (_WIDTH * max(n_columns, 2) + 0.2, _HEIGHT * len(rows) + 1.4)
        fig = Figure(figsize=size, layout="constrained")
        fig.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
        axes = fig.subplots(len(rows), n_columns, squeeze=False)
        limits = _limits([panel for _, panels in rows for panel in panels])
        for line, ((change, cell_type), panels) in zip(axes, rows, strict=True):
            for ax, (measure, frame) in zip(line, panels, strict=False):
                _panel(ax, frame, looks, _PLACES.get(change, float), limits[measure])
                ax.set_title(_MEASURES[measure].format(cell_type=shortened(cell_type)), loc="left")
                ax.set_xlabel(_AXES[change].format(cell_type=shortened(cell_type)))
            for ax in line[len(panels) :]:
                ax.axis("off")
        methods = table.drop_duplicates("method")[["method", "title", "track"]]
        keys = [
            Line2D(
                [], [], color=looks[name].colour, marker=looks[name].marker, markersize=3.5,
                linestyle=_dashes(track), linewidth=0.9, label=shortened(words, 40),
            )
            for name, words, track in methods.itertuples(index=False)
        ]  # fmt: skip
        legend = fig.legend(
            handles=keys, loc="outside lower left", ncols=3 if n_columns > 2 else 2, title=_NOTE,
            title_fontsize=6, alignment="left",
        )  # fmt: skip
        legend.get_title().set_color(FAINT)
    return fig


_Measure = tuple[str, str, str]


def _rows(
    table: pd.DataFrame,
) -> list[tuple[tuple[str, str], list[tuple[_Measure, pd.DataFrame]]]]:
    """Return the panels of every change and type, in the order of the table and the measures."""
    absent = [c for c in _COLUMNS if c not in table.columns]
    if absent:
        raise ContractError(f"robustness: lacks the columns {absent}; it has {list(table.columns)}")
    odd = sorted(set(table["change"].astype(str)) - set(_AXES))
    if odd:
        raise ContractError(f"robustness: change {odd} has no title; valid: {listed(_AXES)}")
    known = table.assign(cell_type=table["cell_type"].fillna("").astype(str))
    found = []
    for key, group in known.groupby(["change", "cell_type"], sort=False):
        panels = []
        for measure in _MEASURES:
            split, task, metric = measure
            chosen = (group["split"] == split) & (group["task"] == task)
            chosen &= (group["metric"] == metric) & group["level"].notna()
            if chosen.any():
                panels.append((measure, group[chosen]))
        if panels:
            found.append(((str(key[0]), str(key[1])), panels))
    return found


def _limits(
    panels: Sequence[tuple[_Measure, pd.DataFrame]],
) -> dict[_Measure, tuple[float, float]]:
    """Return one range a measure, so that its changes can be compared: of the ranked, if any."""
    found = {}
    for measure in dict.fromkeys(m for m, _ in panels):
        table = pd.concat([f for m, f in panels if m == measure])
        ranked = (table["track"] != CONTROL) & table["mean"].notna()
        shown = table[ranked] if ranked.any() else table
        values = shown[["mean", "low", "high"]].to_numpy(dtype=float).ravel()
        values = values[np.isfinite(values)]
        if not len(values):
            values = np.array([0.0, 1.0])
        found[measure] = (
            math.floor(10 * values.min() - 0.2) / 10, math.ceil(10 * values.max() + 0.2) / 10,
        )  # fmt: skip
    return found


def _panel(
    ax: Axes,
    frame: pd.DataFrame,
    looks: Mapping[str, Look],
    place: Callable[[float], float],
    limits: tuple[float, float],
) -> None:
    """Draw the curves of one metric under one change."""
    places = {level: place(level) for level in sorted(frame["level"].unique(), key=place)}
    levels = list(places)
    first, last = places[levels[0]], places[levels[-1]]
    width = last - first or 1.0
    ax.set_xlim(first - 0.07 * width, last + 0.07 * width)
    ax.set_ylim(*limits)
    words = [_level_word(level) for level in levels]
    for i in range(1, len(levels)):  # words that would meet: every other one lower
        near = places[levels[i]] - places[levels[i - 1]] < 0.12 * width
        words[i] = "\n" * (near and "\n" not in words[i - 1]) + words[i]
    ax.set_xticks(list(places.values()), words)
    ax.grid(axis="y", color=RULE, linewidth=0.4)
    methods = list(dict.fromkeys(frame["method"]))
    for i, method in enumerate(methods):
        mine = frame[frame["method"] == method].set_index("level").reindex(levels)
        # Side by side, so that bars of equal values do not hide each other.
        x = np.array([places[level] for level in levels])
        x = x + 0.05 * width * ((i + 0.5) / len(methods) - 0.5)
        mean = mine["mean"].to_numpy(dtype=float)
        low, high = (mine[k].to_numpy(dtype=float) for k in ("low", "high"))
        look, track = looks[str(method)], mine["track"].dropna().iloc[0]
        barred = np.isfinite(mean) & np.isfinite(low) & np.isfinite(high)
        ax.vlines(x[barred], low[barred], high[barred], color=look.colour, linewidth=0.6, alpha=0.6)
        ax.plot(
            x, mean, color=look.colour, marker=look.marker, markersize=2.6, linewidth=0.9,
            linestyle=_dashes(track), markeredgewidth=0, label=str(method),
        )  # fmt: skip
        asked = mine["method"].notna().to_numpy() & ~np.isfinite(mean)
        if asked.any():  # the layout cannot place what is empty and not clipped
            ax.plot(
                x[asked], np.full(asked.sum(), limits[0]), "x", color=look.colour, markersize=3.5,
                clip_on=False, zorder=5,
            )  # fmt: skip


def _dashes(track: str) -> Literal["-", "--"]:
    return "--" if track == CONTROL else "-"


def _of(values: Sequence[str], i: int) -> str:
    return values[i % len(values)]


def _level_word(level: float) -> str:
    """Write a share in percent, with the digits that it needs."""
    return f"{100 * level:.3g} %"
