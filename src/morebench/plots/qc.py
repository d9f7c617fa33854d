"""Quality control of one dataset: cells by batch, PCA, variable genes, top genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.errors import ContractError
from morebench.plots.style import (
    INK,
    MISSING_COLOUR,
    RULE,
    TYPE_COLOURS,
    house_style,
    shortened,
)
from morebench.plots.violins import QC_METRICS, draw_violins, empty_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUANTILES = ("q05", "q25", "q50", "q75", "q95")


def draw_qc(
    cells: pd.DataFrame,
    genes: pd.DataFrame,
    top_genes: pd.DataFrame,
    pca_variance_ratio: np.ndarray,
    thresholds: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
) -> Figure:
    """Draw figure 3 of the paper for one dataset.

    Parameters
    ----------
    cells : (n, ...) DataFrame
        ``batch``, ``kept`` and the QC metrics ``n_genes``, ``total_counts``, ``pct_mt``,
        ``pct_ribo`` of all cells before filtering. An absent or all-NaN metric is not
        applicable, and its panel says so.
    genes : (g, ...) DataFrame
        ``mean``, ``dispersion`` (as scanpy's ``highly_variable_genes`` gives them: log
        values for the flavour ``seurat``) and ``highly_variable``.
    top_genes : (k, 6) DataFrame
        ``gene`` and the quantiles ``q05 q25 q50 q75 q95`` of its percentage of a cell's
        counts, drawn top down in the order given.
    pca_variance_ratio : (p,) array
        Share of variance of each component.
    thresholds
        One mapping a rule: ``metric``, ``low``, ``high`` (None or NaN where open), ``rule``
        and ``removed``, the number of cells it removed.
    title
        Name of the dataset.

    Raises
    ------
    ContractError
        If a column is absent or the variance ratios are not finite.
    """
    _need(cells, ("batch", "kept"), "cells")
    _need(genes, ("mean", "dispersion", "highly_variable"), "genes")
    _need(top_genes, ("gene", *_QUANTILES), "top_genes")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with house_style():
        engine = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05, wspace=0.03)
        fig = Figure(figsize=(7.2, 5.4), layout=engine)
        parts = fig.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.35])
        upper, lower = parts[:, 0]
        violins = upper.subplots(1, len(QC_METRICS))
        variance, dispersion, top = lower.subplots(1, 3)
        for ax, metric in zip(violins, QC_METRICS, strict=True):
            draw_violins(ax, cells, metric, [t for t in thresholds if t["metric"] == metric])
        draw_variance(variance, np.asarray(pca_variance_ratio, dtype=float))
        draw_dispersion(dispersion, genes)
        draw_top_genes(top, top_genes)
        for letter, ax in zip("abcd", (violins[0], variance, dispersion, top), strict=True):
            ax.annotate(
                letter, (0, 1), (-26, 6), xycoords="axes fraction",
                textcoords="offset points", fontsize=9, fontweight="bold",
            )  # fmt: skip
        kept = f"{int(cells['kept'].sum()):,} of {len(cells):,} cells kept"
        fig.suptitle(f"{title}: {kept}" if title else kept, fontsize=8)
    return fig


def draw_variance(ax: Axes, ratio: np.ndarray) -> None:
    """Draw the share of variance of each principal component, and their running sum."""
    if ratio.ndim != 1 or not len(ratio) or not np.isfinite(ratio).all():
        raise ContractError(
            f"pca_variance_ratio: expected finite numbers in one dimension, found {ratio!r}"
        )
    component = np.arange(1, len(ratio) + 1)
    ax.bar(component, 100 * ratio, width=0.8, color=TYPE_COLOURS[0])
    ax.set_xlabel("Principal component")
    ax.set_ylabel("Variance of a component (%)", color=TYPE_COLOURS[0])
    ax.set_xlim(0.3, len(ratio) + 0.7)
    running = 100 * np.cumsum(ratio)
    right = ax.twinx()
    right.plot(component, running, ".-", color=TYPE_COLOURS[5], linewidth=1.0, markersize=2.5)
    right.set_ylim(0, max(running[-1] * 1.08, 1e-9))
    right.set_ylabel("Running sum (%)", color=TYPE_COLOURS[5])
    right.spines["right"].set_visible(True)
    ax.set_title(f"{len(ratio)} components: {running[-1]:.1f} % of variance")


def draw_dispersion(ax: Axes, genes: pd.DataFrame) -> None:
    """Draw dispersion against mean, the highly variable genes on top."""
    variable = genes["highly_variable"].astype(bool)
    finite = np.isfinite(genes[["mean", "dispersion"]].to_numpy(dtype=float)).all(axis=1)
    drawable = pd.Series(finite, index=genes.index)
    for chosen, colour, name in (
        (~variable, MISSING_COLOUR, "other"),
        (variable, TYPE_COLOURS[0], "highly variable"),
    ):
        shown = genes[chosen & drawable]
        ax.scatter(
            shown["mean"], shown["dispersion"], s=3, c=colour, linewidths=0, rasterized=True,
            label=f"{name} ({int(chosen.sum()):,})",
        )  # fmt: skip
    hidden = int((~drawable).sum())
    if hidden:
        ax.scatter([], [], s=0, label=f"no dispersion, not drawn ({hidden:,})")
    ax.set_xlabel("Mean expression")
    ax.set_ylabel("Dispersion")
    ax.set_title(f"{int(variable.sum()):,} variable genes of {len(genes):,}")
    # Room for the legend above the points.
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))
    ax.legend(loc="upper right", markerscale=2, handletextpad=0.2, borderpad=0.2)


def draw_top_genes(ax: Axes, top_genes: pd.DataFrame) -> None:
    """Draw boxes of the most expressed genes from their quantiles; whiskers are 5 and 95 %."""
    name = f"The {len(top_genes)} most expressed genes"
    if top_genes.empty:
        empty_panel(ax, "no genes", "Most expressed genes")
        return
    stats = [
        {"whislo": q05, "q1": q25, "med": q50, "q3": q75, "whishi": q95, "fliers": []}
        for q05, q25, q50, q75, q95 in top_genes[list(_QUANTILES)].itertuples(index=False)
    ]
    thin = {"linewidth": 0.6, "color": INK}
    ax.bxp(
        stats, positions=range(len(stats)), orientation="horizontal", widths=0.62,
        showfliers=False, showcaps=False, patch_artist=True, whiskerprops=thin,
        boxprops={"facecolor": TYPE_COLOURS[4], "edgecolor": INK, "linewidth": 0.5},
        medianprops={"linewidth": 1.0, "color": INK},
    )  # fmt: skip
    ax.set_yticks(range(len(stats)), [shortened(g, 14) for g in top_genes["gene"]], fontsize=5.5)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(left=0)
    ax.grid(axis="x", color=RULE, linewidth=0.4)
    ax.set_xlabel("% of a cell's counts")
    ax.set_title(name)


def _need(frame: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    absent = [c for c in columns if c not in frame.columns]
    if absent:
        raise ContractError(f"{name}: lacks the columns {absent}; it has {list(frame.columns)}")
