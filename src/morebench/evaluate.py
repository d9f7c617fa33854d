"""Score every method and seed of one (dataset, split, task) in one process."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morebench.errors import ContractError
from morebench.io.inputs import read_cells
from morebench.io.outputs import read_output, read_status
from morebench.io.prepared import read_truth
from morebench.io.splits import read_split
from morebench.io.tables import write_parquet
from morebench.tasks.contract import Candidate, Score, TaskData

SCORE_COLUMNS = (
    "dataset",
    "split",
    "task",
    "method",
    "track",
    "seed",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n_cells",
    "coverage",
    "status",
    "reason",
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entrant:
    """A run that takes part: what its spec declares, and where it left its output."""

    method: str
    track: str
    seed: int
    outputs: tuple[str, ...]
    directory: str


def _or_none(values: np.ndarray) -> np.ndarray:
    """Return the values with every missing one as None."""
    return np.array([None if pd.isna(v) else v for v in values], dtype=object)


def task_data(dataset: str, split: str, input_file: Path, split_file: Path, truth_file: Path):
    """Read what a task needs of a (dataset, split); all files must hold the same cells.

    Returns
    -------
    (Cells, TaskData)
    """
    given = read_cells(input_file)
    truth, table = read_truth(truth_file), read_split(split_file)
    for path, ids in ((truth_file, truth["cell_id"]), (split_file, table["cell_id"])):
        if list(ids) != list(given.cell_ids):
            raise ContractError(f"{path}: its cells are not those of {input_file}, in that order")
    types = truth["cell_type"].to_numpy(dtype=object)
    shown = table["label"].to_numpy(dtype=object)
    return given, TaskData(
        dataset=dataset,
        split=split,
        batch=given.batch,
        cell_type=_or_none(types),
        is_doublet=truth["is_doublet"].to_numpy(dtype=float),
        scored=table["scored"].to_numpy(dtype=bool),
        shown=_or_none(shown),
        pca_np=given.pca_np,
    )


def candidate(entrant: Entrant, cell_ids: np.ndarray, n_genes: int) -> Candidate:
    """Read a run's status and output; an output that breaks its contract is a failure."""
    output = None
    try:
        status = read_status(entrant.directory)
        state, reason = status.state, status.reason
        if state == "ok":
            output = read_output(entrant.directory, cell_ids, n_genes, entrant.outputs)
    except ContractError as error:
        log.error("%s", error)
        state, reason = "failed", str(error)
    return Candidate(entrant.method, entrant.track, entrant.seed, state, output, reason)


def evaluate(
    dataset: str,
    split: str,
    task: str,
    entry: str,
    entrants: Sequence[Entrant],
    *,
    input_file: Path,
    split_file: Path,
    truth_file: Path,
    settings: Mapping[str, Any],
    threads: int,
) -> pd.DataFrame:
    """Score the entrants of one (dataset, split, task).

    Parameters
    ----------
    entry
        ``module:function`` of the task.
    settings
        ``seed`` and the task's other parameters.

    Returns
    -------
    DataFrame
        ``SCORE_COLUMNS``: one row an entrant and metric, missing ones typed.
    """
    given, data = task_data(dataset, split, input_file, split_file, truth_file)
    candidates = [candidate(e, given.cell_ids, len(given.genes)) for e in entrants]
    module, function = entry.split(":")
    params = {k: v for k, v in settings.items() if k != "seed"}
    scores: list[Score] = getattr(importlib.import_module(module), function)(
        data, candidates, seed=settings["seed"], threads=threads, params=params
    )
    frame = pd.DataFrame([asdict(s) for s in scores])
    frame = frame.assign(dataset=dataset, split=split, task=task)
    return frame[list(SCORE_COLUMNS)]


def write_scores(path: str | Path, scores: pd.DataFrame, expected: int) -> None:
    """Check and write scores: every entrant stands in them, no value is silently missing."""
    found = scores[["method", "seed"]].drop_duplicates()
    if len(found) != expected:
        raise ContractError(f"{path}: scores {len(found)} runs, expected {expected}")
    ok = scores["status"] == "ok"
    if not np.isfinite(scores.loc[ok, "value"]).all():
        raise ContractError(f"{path}: an ok score has no finite value")
    if scores.loc[~ok, "value"].notna().any():
        raise ContractError(f"{path}: a score that is not ok has a value")
    doubled = scores.duplicated(["method", "seed", "metric"])
    if doubled.any():
        raise ContractError(f"{path}: {int(doubled.sum())} scores stand twice")
    write_parquet(path, scores)
