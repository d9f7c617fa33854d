"""The self-test of the metrics as a figure, and the mark of those that gain by merged types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from morebench.errors import ContractError
from morebench.plots.style import FAINT, RULE, TYPE_COLOURS, house_style
from morebench.registry import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DAGGER = "†"
MARK_NOTE = f"{DAGGER} rises when cell types are merged (self-test of the metrics)."

TITRATION_TITLES = {
    "batch_strength": "Batches move apart",
    "overcorrection": "Types are merged",
    "noise": "Noise is added",
}
WRONG_WAY = "wrong way"
_MARKERS = ("o", "^", "s")
_COLUMNS = 6
# Inches.
_WIDTH, _HEIGHT = 1.32, 1.25


def rising_metrics(summary: pd.DataFrame | None) -> frozenset[str]:
    """Return the metrics that the self-test found to rise with over-correction.

    Parameters
    ----------
    summary
        The run's own self-test; None: what the registry says of them.

    Raises
    ------
    ContractError
        If the table lacks its columns, or one does not hold true or false.
    """
    if summary is None:
        return frozenset(name for name, spec in METRICS.items() if spec.rises)
    wanted = ("metric", "rises_with_overcorrection")
    absent = [c for c in wanted if c not in summary.columns]
    if absent:
        raise ContractError(f"selftest: lacks the columns {absent}; it has {list(summary.columns)}")
    rises = summary["rises_with_overcorrection"]
    if len(summary) and rises.dtype != bool:
        raise ContractError(
            f"selftest: rises_with_overcorrection holds {rises.iloc[0]!r}; valid: True or False"
        )
    return frozenset(summary.loc[rises.astype(bool), "metric"].astype(str))


def marked_titles(metrics: Mapping[str, str], rising: Collection[str]) -> dict[str, str]:
    """Return metric to title, with a dagger after the title of those that rise."""
    return {name: title + DAGGER * (name in rising) for name, title in metrics.items()}


def draw_selftest(
    curves: pd.DataFrame, summary: pd.DataFrame, metrics: Mapping[str, str], title: str
) -> Figure:
    """Draw a panel a metric: its value against the level of each titration.

    Points are means over seeds, bands their range; a thick line rises where it must not.
    One scale from 0 to 1 for all, taken down where a metric falls below 0.

    Parameters
    ----------
    curves : DataFrame
        ``titration, level, seed, metric, value``.
    summary : DataFrame
        ``metric, titration, verdict, rises_with_overcorrection``.
    metrics
        Metric to its title, in the order of the panels; those without a curve are left out.
    title
        Title of the figure.

    Raises
    ------
    ContractError
        If a table lacks a column, or a metric or titration has no title.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    titled = marked_titles(metrics, rising_metrics(summary))
    _check(curves, summary, titled)
    verdicts = summary.set_index(["metric", "titration"])["verdict"].astype(str).to_dict()
    shown = [name for name in titled if name in set(curves["metric"])]
    n_rows = -(-len(shown) // _COLUMNS)
    low = min(0.0, float(curves.groupby(["metric", "titration", "level"])["value"].min().min()))
    with house_style():
        height = _HEIGHT * n_rows + 1.0
        fig = Figure(figsize=(_WIDTH * _COLUMNS + 0.3, height), layout="constrained")
        fig.suptitle(title, fontsize=9, fontweight="bold", x=0.01, ha="left")
        axes = fig.subplots(n_rows, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        for i, ax in enumerate(axes):
            if i >= len(shown):
                ax.axis("off")
                continue
            name = shown[i]
            mine = {t: verdicts.get((name, t), "") for t in TITRATION_TITLES}
            _panel(ax, curves[curves["metric"] == name], mine)
            ax.set_title(titled[name], loc="left", pad=3)
            ax.set(xlim=(-0.05, 1.05), ylim=(low - 0.05, 1.05), xticks=(0, 0.5, 1))
            if i + _COLUMNS >= len(shown):
                ax.tick_params(labelbottom=True)
        keys = [
            Line2D([], [], color=_colour(t), marker=_MARKERS[i], markersize=3.5, label=words)
            for i, (t, words) in enumerate(TITRATION_TITLES.items())
        ]
        note = "Level 0 (none) to 1; bands: seeds; thick: rises where it must not."
        if rising_metrics(summary):
            note += f" {MARK_NOTE}"
        legend = fig.legend(
            handles=keys, loc="outside lower left", ncols=3, title=note, title_fontsize=6,
            alignment="left",
        )  # fmt: skip
        legend.get_title().set_color(FAINT)
    return fig


def _colour(titration: str) -> str:
    return TYPE_COLOURS[list(TITRATION_TITLES).index(titration)]


def _check(curves: pd.DataFrame, summary: pd.DataFrame, titled: Mapping[str, str]) -> None:
    for name, frame, columns in (
        ("curves", curves, ("titration", "level", "seed", "metric", "value")),
        ("selftest", summary, ("metric", "titration", "verdict")),
    ):
        absent = [c for c in columns if c not in frame.columns]
        if absent:
            raise ContractError(f"{name}: lacks the columns {absent}; it has {list(frame.columns)}")
        for column, known in (("metric", titled), ("titration", TITRATION_TITLES)):
            odd = sorted(set(frame[column].astype(str)) - set(known))
            if odd:
                raise ContractError(
                    f"{name}: {column} {odd} have no title; there are {list(known)}"
                )


def _panel(ax: Axes, curves: pd.DataFrame, verdicts: Mapping[str, str]) -> None:
    """Draw the curves of one metric."""
    ax.axhline(0, color=RULE, linewidth=0.5, zorder=0)
    drawn = False
    for marker, titration in zip(_MARKERS, TITRATION_TITLES, strict=True):
        mine = curves[(curves["titration"] == titration) & curves["value"].notna()]
        if mine.empty:
            continue
        drawn = True
        levels = mine.groupby("level")["value"]
        mean, low, high = levels.mean(), levels.min(), levels.max()
        colour = _colour(titration)
        wrong = verdicts[titration] == WRONG_WAY
        ax.fill_between(mean.index, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.plot(
            mean.index, mean, color=colour, marker=marker, markersize=2.2,
            linewidth=2.2 if wrong else 0.9,
        )  # fmt: skip
    if not drawn:
        ax.text(0.5, 0.5, "n/a", fontsize=6, color=FAINT, style="italic", ha="center")
