"""The self-test of the metrics in the report: its verdicts as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from morebench.errors import ContractError
from morebench.plots.selftest import TITRATION_TITLES, WRONG_WAY, marked_titles, rising_metrics
from morebench.plots.words import number
from morebench.report.tables import Cell, Table, need_columns

_COLUMNS = ("metric", "titration", "spearman", "range", "half_at", "expected", "verdict")
_HEAD = [
    "Metric", "Titration", "Spearman with level", "Range", "Half of it by level", "It should",
    "Verdict",
]  # fmt: skip
_EXPECTED = {"falls": "fall", "does not rise": "not rise"}
_CAPTION = "Verdicts; a range below 0.01 is flat, a correlation within \u22120.5 to 0.5 no trend"


def _measure(value: float) -> Cell:
    return Cell(number(value), "number") if math.isfinite(value) else Cell("n/a", "missing")


def selftest_table(summary: pd.DataFrame, metric_titles: Mapping[str, str]) -> Table:
    """Show one row a metric and titration.

    Raises
    ------
    ContractError
        If the summary lacks a column, or has a metric or titration without a title.
    """
    need_columns(summary, _COLUMNS, "selftest")
    titles = marked_titles(metric_titles, rising_metrics(summary))
    for column, known in (("metric", titles), ("titration", TITRATION_TITLES)):
        odd = sorted(set(summary[column].astype(str)) - set(known))
        if odd:
            raise ContractError(f"selftest: {column} {odd} have no title; there are {list(known)}")
    rows = []
    for row in summary.to_dict("records"):
        verdict, expected = str(row["verdict"]), str(row["expected"])
        rows.append(
            [
                Cell(titles[str(row["metric"])]),
                Cell(TITRATION_TITLES[str(row["titration"])]),
                _measure(float(row["spearman"])),
                _measure(float(row["range"])),
                _measure(float(row["half_at"])),
                Cell(_EXPECTED.get(expected, expected)),
                Cell(verdict, "bad" if verdict == WRONG_WAY else "text"),
            ]
        )
    return Table(_CAPTION, list(_HEAD), rows)
