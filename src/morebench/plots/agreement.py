"""Who calls what what: annotators against the truth, and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from morebench.errors import ContractError, listed
from morebench.plots.heat_map import TILE, draw_tiles
from morebench.plots.style import FAINT, empty_figure, house_style, ordered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUTH = "truth"
_COLUMNS = ("method", "other", "label", "other_label", "n_cells")
_LEAST_SHOWN = 0.01  # share of a row below which no number is written


def shares(table: pd.DataFrame, method: str, other: str) -> pd.DataFrame:
    """Return labels of ``method`` (columns) as shares of each label of ``other`` (rows).

    Raises
    ------
    ContractError
        The table lacks a column, or has no such pair.
    """
    absent = [c for c in _COLUMNS if c not in table.columns]
    if absent:
        raise ContractError(f"crosstab: lacks the columns {absent}; it has {list(table.columns)}")
    rows = table[(table["method"] == method) & (table["other"] == other)]
    turned = table[(table["method"] == other) & (table["other"] == method)]
    if len(turned) and not len(rows):  # a pair stands once, in the order of the methods
        rows = turned.rename(columns={"label": "other_label", "other_label": "label"})
    if not len(rows):
        known = sorted(
            {"/".join(pair) for pair in zip(table["method"], table["other"], strict=True)}
        )
        pairs = listed(known)
        raise ContractError(f"crosstab: no pair {method}/{other}; valid: {pairs}")
    counts = rows.pivot_table(
        index="other_label", columns="label", values="n_cells", aggfunc="sum", fill_value=0
    )
    counts = counts.reindex(index=ordered(counts.index), columns=ordered(counts.columns))
    return counts.div(counts.sum(axis=1), axis=0)


def draw_agreement(
    table: pd.DataFrame, pairs: Sequence[tuple[str, str]], titles: dict[str, str], title: str
) -> Figure:
    """Draw a panel a pair (method, other): rows are the labels of ``other`` and sum to 1.

    Parameters
    ----------
    table : DataFrame
        ``method, other, label, other_label, n_cells``: cells pooled over held-out batches.
    pairs
        What is compared; ``truth`` as the other one is the truth. Without any, the figure
        says so: methods that failed must not fail the run.
    titles
        Method to its title.
    title
        Title of the figure.

    Raises
    ------
    ContractError
        The table lacks a column or a pair.
    """
    from matplotlib.figure import Figure

    panels = [(m, o, shares(table, m, o)) for m, o in pairs]
    rows = max((len(p) for *_, p in panels), default=0)
    widths = [p.shape[1] for *_, p in panels]
    with house_style():
        if not panels:
            return empty_figure(title, "No method gave labels for every held-out batch.")
        size = (TILE * sum(widths) + 1.4 * len(panels), TILE * rows + 1.9)
        fig = Figure(figsize=size, layout="constrained")
        fig.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
        axes = fig.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
        for ax, (method, other, panel) in zip(axes, panels, strict=True):
            draw_tiles(ax, panel, longest=18, least=_LEAST_SHOWN)
            ax.set_xlabel(titles.get(method, method))
            ax.set_ylabel("Truth" if other == TRUTH else titles.get(other, other))
        note = "Shares of each row; cells pooled over held-out batches."
        fig.text(0.01, 0.0, note, fontsize=6, color=FAINT, va="bottom")
    return fig
