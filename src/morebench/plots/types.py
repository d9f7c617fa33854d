"""F1 of every cell type by every annotator, over the cells of all held-out batches."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from morebench.errors import ContractError, listed
from morebench.plots.heat_map import TILE, draw_tiles
from morebench.plots.style import FAINT, empty_figure, house_style, shortened, text_width
from morebench.plots.words import CONTROL, state_word

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "*"
MARK_NOTE = f"{MARK} also scored where no cell of the type was shown: nobody can be right there."
_TYPE_COLUMNS = ("method", "seed", "cell_type", "n_cells", "n_shown", "f1")
_POOLED_COLUMNS = ("method", "track", "seed", "metric", "status")
_ANSWERS = "macro_f1"  # the pooled metric that a run has if it has labels
# Inches: the title, a line and a character of the notes; bold text is _BOLD times wider at most.
_HEAD, _LINE, _CHARACTER, _BOLD = 0.35, 0.11, 0.052, 1.2
_LONGEST = 30  # characters of a name


class TypeScores(NamedTuple):
    """What the figure shows.

    Attributes
    ----------
    f1 : (types, methods) DataFrame
        Means over seeds; NaN where a method has no answer for every held-out batch and seed.
    n_cells : (types,) Series
    unshown
        Types of which some cells are scored in splits that do not show the type.
    states
        Method to its state, for those without an answer.
    controls
        Methods that are controls.
    """

    f1: pd.DataFrame
    n_cells: pd.Series
    unshown: frozenset[str]
    states: dict[str, str]
    controls: frozenset[str]


def type_scores(types: pd.DataFrame, pooled: pd.DataFrame, methods: Sequence[str]) -> TypeScores:
    """Gather F1 by type and method; the type with most cells comes first.

    Parameters
    ----------
    types : DataFrame
        ``crosstab.TYPE_COLUMNS`` of one dataset.
    pooled : DataFrame
        ``pooled.SCORE_COLUMNS`` of the same dataset: tells which runs have no answer.
    methods
        The order of the columns; those that take no part are left out.

    Raises
    ------
    ContractError
        A table lacks a column, a method of them is not in ``methods``, or a run is ok and
        has no types.
    """
    for name, frame, columns in (
        ("annotation_types", types, _TYPE_COLUMNS),
        ("annotation_pooled", pooled, _POOLED_COLUMNS),
    ):
        absent = [c for c in columns if c not in frame.columns]
        if absent:
            raise ContractError(f"{name}: lacks the columns {absent}; it has {list(frame.columns)}")
        odd = sorted(set(frame["method"].astype(str)) - set(methods))
        if odd:
            raise ContractError(f"{name}: unknown methods {odd}; valid: {listed(methods)}")
    pooled = pooled[pooled["metric"] == _ANSWERS]
    shown = [m for m in methods if m in set(pooled["method"])]
    bad = pooled[pooled["status"] != "ok"]
    states = {m: str(bad.loc[bad["method"] == m, "status"].iloc[0]) for m in bad["method"].unique()}
    answered = [m for m in shown if m not in states]
    lost = [m for m in answered if m not in set(types["method"])]
    if lost:
        raise ContractError(
            f"annotation_types: no row of {listed(lost)}, whose pooled scores are ok"
        )
    sizes = types.groupby("cell_type")["n_cells"].max().sort_values(ascending=False, kind="stable")
    means = types.pivot_table(index="cell_type", columns="method", values="f1", aggfunc="mean")
    means = means.reindex(index=sizes.index, columns=shown)
    means.loc[:, [m for m in shown if m in states]] = np.nan
    hidden = types.loc[types["n_shown"] < types["n_cells"], "cell_type"]
    controls = pooled.loc[pooled["track"] == CONTROL, "method"]
    return TypeScores(means, sizes, frozenset(hidden), states, frozenset(controls))


def draw_types(
    types: pd.DataFrame, pooled: pd.DataFrame, titles: Mapping[str, str], title: str
) -> Figure:
    """Draw a tile a type and method with its F1, types with their numbers of cells.

    Parameters
    ----------
    types, pooled
        As in ``type_scores``.
    titles
        Method to its title, in the order of the columns.
    title
        Title of the figure.

    Raises
    ------
    ContractError
        As ``type_scores``.
    """
    from matplotlib.figure import Figure

    found = type_scores(types, pooled, list(titles))
    if found.f1.empty:
        return empty_figure(title, "No method gave labels for every held-out batch.")
    names = {
        t: f"{shortened(t, 20)}{MARK * (t in found.unshown)} ({n:,})"
        for t, n in found.n_cells.items()
    }
    notes = ["F1 of each type, mean over seeds; cells (in brackets) pooled over held-out batches."]
    if found.controls & set(found.f1.columns):
        notes.append("Controls are in italics.")
    if found.unshown:
        notes.append(MARK_NOTE)
    if found.states:
        words = (f"{titles[m]} ({state_word(s)})" for m, s in found.states.items())
        notes.append(f"n/a: not every batch has an answer: {', '.join(words)}.")
    with house_style():
        across, down = TILE * found.f1.shape[1], TILE * len(names)
        left = max(text_width(n, 6) for n in names.values()) + 0.2
        foot = max(text_width(shortened(titles[m], _LONGEST), 6) for m in found.f1.columns) + 0.2
        width = max(left + across + 0.1, text_width(title, 9) * _BOLD + 0.2)
        lines = [x for note in notes for x in textwrap.wrap(note, int(width / _CHARACTER))]
        below = _LINE * len(lines) + 0.05
        height = _HEAD + down + foot + below
        fig = Figure(figsize=(width, height))
        fig.suptitle(title, fontsize=9, fontweight="bold", x=0.1 / width, ha="left")
        fig.supxlabel(
            "\n".join(lines), fontsize=6, color=FAINT, x=0.1 / width, y=0.03 / height, ha="left"
        )
        ax = fig.add_axes((left / width, (below + foot) / height, across / width, down / height))
        draw_tiles(ax, found.f1.rename(index=names, columns=dict(titles)), longest=_LONGEST)
        for label, method in zip(ax.get_xticklabels(), found.f1.columns, strict=True):
            label.set_fontstyle("italic" if method in found.controls else "normal")
    return fig
