"""UMAP of every method's embedding, coloured by cell type and by batch."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.errors import ContractError
from morebench.plots.style import (
    FAINT,
    MISSING_COLOUR,
    RULE,
    UNLABELLED,
    Look,
    batch_looks,
    house_style,
    shortened,
    text_width,
    type_looks,
)
from morebench.plots.words import state_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = ("method", "index", "x", "y")
_MAX_HEIGHT = 10.0
_LEGEND_ROWS = 24


def draw_umap_grid(
    coords: pd.DataFrame,
    batch: Sequence[object] | np.ndarray,
    cell_type: Sequence[object] | np.ndarray,
    titles: Mapping[str, str],
    *,
    states: Mapping[str, str] | None = None,
    title: str = "",
    seed: int = 0,
) -> Figure:
    """Draw one row a method: left coloured by cell type, right by batch.

    Points are an image inside the SVG, everything else is vector and text.

    Parameters
    ----------
    coords : DataFrame
        What ``compute_umap`` returns; ``index`` points into the next two.
    batch, cell_type : (n,) arrays
        Of all cells; a missing type is drawn grey, below the others.
    titles
        Method to its title, in the order of the rows.
    states
        State of the methods that have no coordinates; their panels say it.
    title
        Name of the dataset and split.
    seed
        Order in which points are drawn, so that no batch covers another.

    Raises
    ------
    ContractError
        If a column is absent, a method has coordinates but no title, or a method has
        neither coordinates nor a state that says why.
    """
    states = states or {}
    absent = [c for c in _COLUMNS if c not in coords.columns]
    if absent:
        raise ContractError(f"coords: lacks the columns {absent}; it has {list(coords.columns)}")
    drawn = set(coords["method"])
    if drawn - set(titles):
        raise ContractError(
            f"coords: methods {sorted(drawn - set(titles))} have no title; there are titles "
            f"for {list(titles)}"
        )
    lost = [m for m in titles if m not in drawn and states.get(m, "ok") == "ok"]
    if lost:
        raise ContractError(f"coords: no coordinates of {lost}, and no state that says why")
    labels = [np.asarray(cell_type, dtype=object), np.asarray(batch, dtype=object)]
    looks = [type_looks(labels[0]), batch_looks(labels[1])]
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    n_rows = max(len(titles), 1)
    side = min(max((_MAX_HEIGHT - 0.5) / n_rows, 1.1), 2.3)
    columns = math.ceil(max(len(look) for look in looks) / _LEGEND_ROWS) or 1
    entries = sum(math.ceil(len(look) / columns) for look in looks)
    with house_style():
        widest = max((text_width(shortened(n), 6) for look in looks for n in look), default=0)
        key = 0.1 + columns * (0.25 + max(widest, 0.5))
        size = 2 * side + 0.35 + key, max(n_rows * side + 0.55, 0.13 * entries + 1.0)
        engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
        fig = Figure(figsize=size, layout=engine)
        grid = fig.add_gridspec(n_rows, 3, width_ratios=[side, side, key])
        axes = [[fig.add_subplot(grid[i, j]) for j in range(2)] for i in range(n_rows)]
        for row, (method, name) in zip(axes, titles.items(), strict=False):
            mine = coords[coords["method"] == method]
            order = np.random.default_rng(seed).permutation(len(mine))
            mine = mine.iloc[order]
            index = mine["index"].to_numpy(dtype=int)
            for ax, label, look in zip(row, labels, looks, strict=True):
                _frame(ax)
                if len(mine):
                    dot = float(np.clip(0.45 * (72 * side) ** 2 / len(mine), 0.3, 7.0))
                    _points(ax, mine[["x", "y"]].to_numpy(), label[index], look, dot)
                else:
                    ax.text(
                        0.5, 0.5, state_word(states[method]), transform=ax.transAxes,
                        ha="center", va="center", color=FAINT, style="italic",
                    )  # fmt: skip
            wrapped = textwrap.wrap(name, int(14 * side), max_lines=2, placeholder="…")
            row[0].set_ylabel("\n".join(wrapped), fontsize=7)
        for ax, head in zip(axes[0], ("Cell type", "Batch"), strict=True):
            ax.set_title(head, fontsize=7.5)
        if title:
            fig.suptitle(title, fontsize=8)
        key_ax = fig.add_subplot(grid[:, 2])
        _legends(fig, key_ax, looks, bool(pd.isna(labels[0]).any()), columns)
    return fig


def _frame(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.set_box_aspect(1)
    ax.margins(0.05)
    for spine in ax.spines.values():
        spine.set(visible=True, color=RULE)


def _points(
    ax: Axes, xy: np.ndarray, label: np.ndarray, looks: Mapping[str, Look], size: float
) -> None:
    """Scatter the cells: one collection a marker, unlabelled cells below."""
    missing = np.asarray(pd.isna(label))
    style: dict[str, Any] = {"s": size, "linewidths": 0, "rasterized": True}
    if missing.any():
        ax.scatter(xy[missing, 0], xy[missing, 1], c=MISSING_COLOUR, zorder=1, **style)
    names = np.where(missing, "", label.astype(str))
    marker = np.array([looks[n].marker if n in looks else "" for n in names])
    colour = np.array([looks[n].colour if n in looks else "" for n in names])
    for one in dict.fromkeys(look.marker for look in looks.values()):
        chosen = (marker == one) & ~missing
        if chosen.any():
            ax.scatter(
                xy[chosen, 0], xy[chosen, 1], c=colour[chosen], marker=one, zorder=2, **style
            )


def _legends(
    fig: Figure, ax: Axes, looks: list[dict[str, Look]], unlabelled: bool, columns: int
) -> None:
    """Write the legend of the types, and below it that of the batches."""
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

    def entry(look: Look, name: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=look.marker, color=look.colour, label=name,
                      markersize=3.6, markeredgewidth=0)  # fmt: skip

    ax.axis("off")
    types, batches = ([entry(k, shortened(n)) for n, k in look.items()] for look in looks)
    if unlabelled:
        types.append(entry(Look(MISSING_COLOUR, "o"), UNLABELLED))
    legends = []
    for handles, head in ((types, "Cell type"), (batches, "Batch")):
        legend = Legend(
            ax, handles, [str(h.get_label()) for h in handles], title=head, loc="upper left",
            bbox_to_anchor=(0, 1), alignment="left", handletextpad=0.1, labelspacing=0.35,
            borderpad=0.2, borderaxespad=0, ncols=columns, columnspacing=0.8,
            title_fontproperties={"size": 6.5, "weight": "bold"},
        )  # fmt: skip
        legend.set_in_layout(False)
        ax.add_artist(legend)
        legends.append(legend)
    # The height of the first legend is known once the figure has been laid out.
    fig.draw_without_rendering()
    below = ax.transAxes.inverted().transform((0, legends[0].get_window_extent().y0 - 8))
    legends[1].set_bbox_to_anchor((0, below[1]), transform=ax.transAxes)
