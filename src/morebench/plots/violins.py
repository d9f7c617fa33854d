"""QC metrics of cells as violins, one a batch, with thresholds and what they removed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.plots.style import FAINT, INK, RULE, batch_looks, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# metric: (title, unit, whether its axis is logarithmic, why there may be none)
QC_METRICS = {
    "n_genes": ("Genes per cell", "genes", True, "not measured"),
    "total_counts": ("Counts per cell", "counts", True, "not measured"),
    "pct_mt": ("Mitochondrial", "% of counts", False, "no mitochondrial gene\nin the panel"),
    "pct_ribo": ("Ribosomal", "% of counts", False, "no ribosomal gene\nin the panel"),
}
_THRESHOLD_COLOUR = "#B41E3C"
# A kernel density of a few thousand evenly spaced quantiles is that of all cells.
_VIOLIN_POINTS = 2000


def draw_violins(
    ax: Axes, cells: pd.DataFrame, metric: str, rules: Sequence[Mapping[str, Any]]
) -> None:
    """Draw one metric by batch, thresholds as lines, removed cells in the title."""
    label, unit, logarithmic, why_not = QC_METRICS[metric]
    values = pd.to_numeric(cells[metric]) if metric in cells else pd.Series(dtype=float)
    if not values.notna().any():
        empty_panel(ax, f"not applicable:\n{why_not}", label)
        return
    looks = batch_looks(cells["batch"])
    batch = cells["batch"].astype(str)
    limits: list[float] = []
    for position, (name, look) in enumerate(looks.items()):
        drawn = _scaled(values[batch == name].dropna().to_numpy(), logarithmic)
        if len(drawn) == 0:
            continue
        low, q1, median, q3, high = np.quantile(drawn, [0, 0.25, 0.5, 0.75, 1])
        limits += [low, high]
        if len(drawn) > _VIOLIN_POINTS:
            drawn = np.quantile(drawn, np.linspace(0, 1, _VIOLIN_POINTS))
        violin: Any = ax.violinplot([drawn], [position], widths=0.86, showextrema=False)
        style = {"facecolor": look.colour, "edgecolor": look.colour, "alpha": 0.55}
        violin["bodies"][0].set(linewidth=0.6, **style)
        ax.vlines(position, q1, q3, color=INK, linewidth=2.0)
        ax.plot(position, median, "o", color="white", markersize=2.6, mec=INK, mew=0.6)
    ax.set_xlim(-0.6, len(looks) - 0.4)
    _limit(ax, min(limits), max(limits), rules, logarithmic)
    crowded = len(looks) > 4 or sum(len(shortened(n, 14)) for n in looks) > 20
    ax.set_xticks(
        range(len(looks)),
        [shortened(n, 14) for n in looks],
        rotation=45 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default",
    )
    ax.set_ylabel(unit)
    removed = sum(int(rule["removed"]) for rule in rules)
    names = ", ".join(dict.fromkeys(str(rule["rule"]) for rule in rules))
    note = f"{removed:,} removed ({names})" if rules else "no threshold"
    ax.set_title(f"{label}\n{note}")


def _limit(
    ax: Axes, low: float, high: float, rules: Sequence[Mapping[str, Any]], logarithmic: bool
) -> None:
    """Set the y axis and draw thresholds; those far off the data are named at its edge."""
    reach = 0.3 * (high - low or 1.0)
    bounds = [
        (side, float(rule[side]))
        for rule in rules
        for side in ("low", "high")
        if rule.get(side) is not None and math.isfinite(float(rule[side]))
    ]
    near = [b for _, b in bounds if low - reach <= _scaled(b, logarithmic) <= high + reach]
    ends = [low, high, *(float(_scaled(b, logarithmic)) for b in near)]
    pad = 0.07 * (max(ends) - min(ends) or 1.0)
    ax.set_ylim(min(ends) - pad, max(ends) + pad)
    if logarithmic:
        ticks = _log_ticks(*(10 ** np.array(ax.get_ylim()) - 1))
        ax.set_yticks(_scaled(ticks, True), [_short_count(t) for t in ticks])
    for side, bound in bounds:
        text, at = _short_count(bound), _scaled(bound, logarithmic)
        style: dict[str, Any] = {"color": _THRESHOLD_COLOUR, "fontsize": 5.5}
        if bound in near:
            ax.axhline(at, color=_THRESHOLD_COLOUR, linewidth=0.8, linestyle=(0, (4, 2)))
            ax.annotate(
                text, (1, at), (0, 1.5 if side == "high" else -1.5),
                xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                va="bottom" if side == "high" else "top", **style,
            )  # fmt: skip
        else:
            edge, arrow = (1.0, "↑") if at > high else (0.0, "↓")
            ax.annotate(
                f"{arrow} {text} off scale", (0.98, edge), xycoords="axes fraction",
                ha="right", va="top" if edge else "bottom", **style,
            )  # fmt: skip


def empty_panel(ax: Axes, text: str, title: str) -> None:
    """Say in an empty panel why there is nothing to draw."""
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_color(RULE)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT)
    ax.set_title(f"{title}\n")


def _scaled(values: Any, logarithmic: bool) -> Any:
    """Put values on the axis: log10(1 + x), so that a cell without counts has a place."""
    return np.log10(1 + np.maximum(values, 0)) if logarithmic else np.asarray(values, dtype=float)


def _log_ticks(low: float, high: float) -> np.ndarray:
    from matplotlib.ticker import MaxNLocator

    decades = 10.0 ** np.arange(0, 9)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        ticks = np.sort(np.outer(decades, steps).ravel())
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        if len(ticks) >= 3:
            return ticks
    ticks = np.asarray(MaxNLocator(4).tick_values(max(low, 0), high))
    return ticks[(ticks >= low) & (ticks <= high)]


def _short_count(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
