"""Tables of the report: cells as text, ready to be laid out by the template."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from morebench.errors import ContractError
from morebench.plots.style import ordered
from morebench.plots.words import state_word
from morebench.registry import ACCEPTED_STATES, STATES, split_kind

RUN_KEY = ("dataset", "split", "method", "seed")
MANIFEST_COLUMNS = (*RUN_KEY, "state")
FAILURE_COLUMNS = (*MANIFEST_COLUMNS, "reason", "log")
RUNTIME_COLUMNS = (
    *MANIFEST_COLUMNS, "wall_s", "cpu_s", "peak_rss_mb", "parameters_trained",
    "parameters_frozen", "hardware",
)  # fmt: skip
NOT_AVAILABLE = "n/a"

SPLITS = {
    "all": "fitted on all cells; no label is shown",
    "partial": "fitted on all cells; half of the labels are shown, the hidden half is scored",
    "lobo": "fitted on all cells; the labels of all batches but this one are shown",
    "unseen": "this batch is set aside: neither its cells nor its labels are fitted on",
    "newtype": "this cell type and a fifth of the other cells are set aside, and told apart",
}


@dataclass(frozen=True)
class Cell:
    """Text of a table cell; ``kind`` is ``text``, ``number``, ``code``, ``bad`` or ``missing``."""

    text: str
    kind: str = "text"
    small: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption; every row has as many cells as ``head``."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class StateCount:
    """How many of the expected runs ended in a state."""

    state: str
    word: str
    count: int
    accepted: bool


def need_columns(frame: pd.DataFrame, columns: Iterable[str], name: str) -> None:
    """Raise ContractError if a table lacks a column."""
    absent = [c for c in columns if c not in frame.columns]
    if absent:
        raise ContractError(f"{name}: lacks the columns {absent}; it has {list(frame.columns)}")


def text_of(value: Any) -> str:
    """Write a value as a reader expects it: lists joined, parameters as ``name=value``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:,.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def cell_of(value: Any) -> Cell:
    """Make a cell of a value; a missing one says so."""
    text = text_of(value.item() if hasattr(value, "item") else value)
    if not text:
        return Cell(NOT_AVAILABLE, "missing")
    is_number = pd.api.types.is_number(value) and not pd.api.types.is_bool(value)
    return Cell(text, "number" if is_number else "text")


def plain_table(frame: pd.DataFrame, head: Mapping[str, str], caption: str, name: str) -> Table:
    """Show columns of a table under readable heads."""
    need_columns(frame, head, name)
    rows = [[cell_of(row[c]) for c in head] for row in frame.to_dict("records")]
    return Table(caption, list(head.values()), rows)


def state_counts(manifest: pd.DataFrame) -> list[StateCount]:
    """Count the runs by state: known states in their order, then any other."""
    counts = manifest["state"].astype(str).value_counts()
    order = [s for s in STATES if s in counts] + sorted(s for s in counts.index if s not in STATES)
    return [StateCount(s, state_word(s), int(counts[s]), s in ACCEPTED_STATES) for s in order]


def problem_table(manifest: pd.DataFrame, failures: pd.DataFrame) -> Table:
    """List every run that is not ok, by the manifest or by the failures, with its reason.

    A run that stands in one of the two only is listed too: nothing is dropped.
    """
    need_columns(failures, FAILURE_COLUMNS, "failures")
    key = list(RUN_KEY)
    missed = manifest.loc[manifest["state"] != "ok", list(MANIFEST_COLUMNS)].astype(str)
    told = failures[list(FAILURE_COLUMNS)].copy()
    told[[*key, "state"]] = told[[*key, "state"]].astype(str)
    both = missed.merge(told, on=key, how="outer", suffixes=("_manifest", ""))
    both["state"] = both["state"].fillna(both["state_manifest"])
    accepted = both["state"].isin(ACCEPTED_STATES)
    both = both.assign(accepted=accepted).sort_values(["accepted", *key], kind="stable")
    rows = []
    for run in both.to_dict("records"):
        reason, log = (text_of(run[c]).strip() for c in ("reason", "log"))
        rows.append(
            [
                Cell(state_word(run["state"]), "text" if run["accepted"] else "bad"),
                *(Cell(run[k]) for k in key),
                Cell(reason) if reason else Cell("no reason recorded", "missing"),
                Cell(log, "code") if log else Cell("no log", "missing"),
            ]
        )
    head = ["Status", "Dataset", "Split", "Method", "Seed", "Reason", "Log"]
    return Table("Runs that are not ok", head, rows)


def split_table(manifest: pd.DataFrame) -> Table:
    """Say of each dataset and split what it shows, and which seeds and methods ran."""
    rows = []
    for (dataset, split), runs in manifest.groupby(["dataset", "split"], sort=False):
        rows.append(
            [
                Cell(str(dataset)),
                Cell(str(split)),
                Cell(SPLITS.get(split_kind(str(split)), "")),
                Cell(str(runs["method"].nunique()), "number"),
                Cell(", ".join(ordered(runs["seed"]))),
                Cell(str(len(runs)), "number"),
            ]
        )
    head = ["Dataset", "Split", "What a method sees", "Methods", "Seeds", "Runs"]
    return Table("Splits and seeds", head, rows)


def threshold_table(thresholds: pd.DataFrame, dataset: str) -> Table:
    """Show the QC thresholds of a dataset and what they removed."""
    head = {"metric": "Metric", "low": "Lowest kept", "high": "Highest kept", "rule": "Rule",
            "removed": "Cells removed"}  # fmt: skip
    shown = thresholds.astype(object)
    table = plain_table(shown, head, f"QC thresholds of {dataset}", f"thresholds of {dataset}")
    for row in table.rows:
        row[1:3] = [Cell("open", "missing") if c.kind == "missing" else c for c in row[1:3]]
    return table


def cost_table(runtime: pd.DataFrame, titles: Mapping[str, str]) -> Table:
    """Show what each method cost: times are means over its seeds, memory the largest."""
    need_columns(runtime, RUNTIME_COLUMNS, "runtime")
    rows = []
    for (dataset, split, method), runs in runtime.groupby(list(RUN_KEY[:3]), sort=False):
        states = [state_word(s) for s in dict.fromkeys(runs["state"])]
        machines = [text_of(h) for h in dict.fromkeys(runs["hardware"]) if text_of(h)]
        rows.append(
            [
                Cell(str(dataset)),
                Cell(str(split)),
                Cell(titles.get(str(method), str(method))),
                Cell(", ".join(states)),
                Cell(str(len(runs)), "number"),
                _measure(runs["wall_s"].mean(), 1),
                _measure(runs["cpu_s"].mean(), 1),
                _measure(runs["peak_rss_mb"].max(), 0),
                _measure(runs["parameters_trained"].max(), 0),
                _measure(runs["parameters_frozen"].max(), 0),
                Cell("; ".join(machines)) if machines else Cell(NOT_AVAILABLE, "missing"),
            ]
        )
    head = ["Dataset", "Split", "Method", "Status", "Runs", "Wall (s)", "CPU (s)",
            "Peak memory (MiB)", "Parameters trained", "Parameters frozen", "Hardware"]  # fmt: skip
    return Table("Cost of the runs (mean time over seeds, largest memory)", head, rows)


def _measure(value: float, digits: int) -> Cell:
    if not math.isfinite(value):
        return Cell(NOT_AVAILABLE, "missing")
    return Cell(f"{value:,.{digits}f}", "number")
