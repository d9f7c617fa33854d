"""Which method stands where: one block a track, ranked inside it, controls last."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from morebench.errors import ContractError
from morebench.plots.words import ASPECT_ORDER, CONTROL
from morebench.registry import TRACKS

SUMMARY_COLUMNS = (
    "method",
    "title",
    "track",
    "metric",
    "aspect",
    "mean",
    "sd",
    "n_seeds",
    "status",
)


def check_summary(summary: pd.DataFrame) -> None:
    """Check a summary of one task: columns, one row a method and metric, typed missing values.

    Raises
    ------
    ContractError
        If a column is absent, a (method, metric) stands twice, a method has two tracks or
        titles, or a score is called ok without being a number.
    """
    absent = [c for c in SUMMARY_COLUMNS if c not in summary.columns]
    if absent:
        raise ContractError(f"summary: lacks the columns {absent}; it has {list(summary.columns)}")
    twice = summary[summary.duplicated(["method", "metric"])]
    if len(twice):
        found = twice[["method", "metric"]].to_dict("records")
        raise ContractError(f"summary: expected one row a method and metric, found more of {found}")
    for column in ("track", "title"):
        count = summary.groupby("method")[column].nunique(dropna=False)
        if (count > 1).any():
            raise ContractError(
                f"summary: {list(count.index[count > 1])} have more than one {column}"
            )
    untyped = summary[(summary["status"] == "ok") & ~np.isfinite(summary["mean"].astype(float))]
    if len(untyped):
        found = untyped[["method", "metric"]].to_dict("records")
        raise ContractError(
            f"summary: status ok without a number for {found}; type what is missing"
        )


def rank_methods(summary: pd.DataFrame, rank_by: str = "total") -> pd.DataFrame:
    """Order methods by track and rank them inside it.

    Only scores whose status is ok are ranked; equal means share the better rank; controls
    never have one. Where the task has no metric ``rank_by``, nothing is ranked and the
    order is that of the summary.

    Parameters
    ----------
    summary : DataFrame
        One task's summary, see ``SUMMARY_COLUMNS``.
    rank_by
        Metric that ranks; more is better.

    Returns
    -------
    DataFrame
        ``track``, ``method``, ``title``, ``rank`` (NaN where not ranked), in drawing order.
    """
    check_summary(summary)
    methods = summary.drop_duplicates("method")[["track", "method", "title"]].set_index("method")
    scored = summary[(summary["metric"] == rank_by) & (summary["status"] == "ok")]
    by_method = scored.set_index("method")["mean"].astype(float)
    methods["mean"] = by_method.reindex(methods.index)
    competes = methods["track"] != CONTROL
    methods["rank"] = (
        methods.loc[competes].groupby("track")["mean"].rank(method="min", ascending=False)
    )
    known = [t for t in TRACKS if t != CONTROL]
    others = [t for t in dict.fromkeys(methods["track"]) if t not in TRACKS]
    place = {track: i for i, track in enumerate([*known, *others, CONTROL])}
    methods["place"] = methods["track"].map(place)
    methods = methods.sort_values(["place", "rank"], kind="stable", na_position="last")
    return methods.reset_index()[["track", "method", "title", "rank"]]


def ordered_metrics(summary: pd.DataFrame, metrics: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Group the metrics that the summary holds by aspect: batch, bio, total, then others.

    Raises
    ------
    ContractError
        If the summary holds a metric that is not in ``metrics``.
    """
    titled = list(metrics)
    aspects = summary.drop_duplicates("metric").set_index("metric")["aspect"].to_dict()
    unknown = [m for m in aspects if m not in titled]
    if unknown:
        raise ContractError(f"summary: metrics {unknown} have no title; there are {titled}")
    present = [m for m in titled if m in aspects]
    groups = dict.fromkeys([*ASPECT_ORDER, *(aspects[m] for m in present)])
    return [(a, chosen) for a in groups if (chosen := [m for m in present if aspects[m] == a])]
