"""Tables of a run: every score, what it cost, what failed, what was expected."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morebench.config import Config, config_hash, methods_of
from morebench.errors import ContractError
from morebench.evaluate import SCORE_COLUMNS
from morebench.files import read_json, write_json
from morebench.io.outputs import Status, read_status
from morebench.io.tables import read_parquet, write_tsv
from morebench.paths import Paths
from morebench.plan import Run, expected, runs, scored
from morebench.provenance import commit
from morebench.registry import ACCEPTED_STATES, METRICS, TASKS
from morebench.robustness.plan import curves
from morebench.robustness.table import robustness_table
from morebench.tasks import crosstab, pooled

MISSING = "missing"  # expected, but its run or scoring did not end
CELL_KEYS = ["dataset", "split", "task", "method", "seed"]
SUMMARY_KEYS = ["dataset", "split", "task", "method", "title", "track", "metric", "aspect"]


def statuses(config: Config, paths: Paths) -> dict[Run, Status | None]:
    """Read the status of every run; None where it left none, failed where it is none."""
    found: dict[Run, Status | None] = {}
    for run in runs(config):
        directory = paths.embedding(run)
        try:
            found[run] = read_status(directory) if (directory / "status.json").exists() else None
        except ContractError as error:
            log = str(paths.log(run))
            found[run] = Status(*_key(run), state="failed", reason=str(error), log=log)
    return found


def scores_table(config: Config, paths: Paths) -> pd.DataFrame:
    """Return every score of the run, in the configuration's order.

    Scores of runs that are not expected (of a method that has left the configuration,
    in a table that could not be made anew) are left out.
    """
    files = [paths.scores(*key) for key in scored(config)]
    frames = [read_parquet(f, SCORE_COLUMNS) for f in files if f.exists()]
    if not frames:
        return pd.DataFrame(columns=list(SCORE_COLUMNS))
    scores = pd.concat(frames, ignore_index=True)[list(SCORE_COLUMNS)]
    wanted = {(c.run.dataset, c.split, c.task, c.run.method, c.run.seed) for c in expected(config)}
    keys = scores[CELL_KEYS].itertuples(index=False, name=None)
    return scores[[key in wanted for key in keys]].reset_index(drop=True)


def pooled_table(config: Config, paths: Paths, part: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return what was pooled over held-out batches, ``dataset`` first.

    Rows of methods that are not expected are left out, as in ``scores_table``.
    """
    names = ["dataset", *columns]
    frames = [
        read_parquet(file, tuple(columns)).assign(dataset=dataset)[names]
        for dataset in config.datasets
        if (file := paths.pooled(dataset, part)).exists()
    ]
    if not frames:
        return pd.DataFrame(columns=names)
    table = pd.concat(frames, ignore_index=True)
    wanted = {(c.run.dataset, c.run.method) for c in expected(config) if c.task == "annotation"}
    wanted |= {(dataset, crosstab.TRUTH) for dataset in config.datasets}
    kept = [
        {(row["dataset"], row[k]) for k in ("method", "other") if k in row} <= wanted
        for row in table.to_dict("records")
    ]
    return table[np.array(kept, dtype=bool)].reset_index(drop=True)  # a list would choose columns


def _by_dataset(
    table: pd.DataFrame, summarise: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Return what a function makes of each dataset's rows, ``dataset`` first."""
    frames = [summarise(table[:0]).assign(dataset="")]
    for name, group in table.groupby("dataset", sort=False):
        frames.append(summarise(group).assign(dataset=name))
    made = pd.concat([f for f in frames if len(f)] or frames, ignore_index=True)
    return made[["dataset", *(c for c in made if c != "dataset")]]


def manifest_table(
    config: Config, found: Mapping[Run, Status | None], scores: pd.DataFrame
) -> pd.DataFrame:
    """Return one row an expected cell: the state of its run, and of its scoring.

    ``scoring`` is ``ok`` when all metrics are ok or not applicable, ``failed`` when one
    failed, ``missing`` when the cell was not scored, else the state of the run.
    """
    by_cell = {key: set(group["status"]) for key, group in scores.groupby(CELL_KEYS)}
    rows = []
    for cell in expected(config):
        run = cell.run
        status = found[run]
        state = status.state if status is not None else MISSING
        words = by_cell.get((run.dataset, cell.split, cell.task, run.method, run.seed), set())
        if not words:
            scoring = MISSING
        elif words <= {"ok", "not_applicable"}:
            scoring = "ok"
        else:
            scoring = "failed" if "failed" in words else sorted(words - {"ok", "not_applicable"})[0]
        rows.append(
            (run.dataset, cell.split, cell.task, run.method, run.seed, run.split, state, scoring)
        )
    names = ["dataset", "split", "task", "method", "seed", "fitted_on", "state", "scoring"]
    return pd.DataFrame(rows, columns=names)


def not_accepted(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the expected cells that are neither ok, unsupported nor unavailable."""
    good = manifest["state"].isin(ACCEPTED_STATES) & manifest["scoring"].isin(ACCEPTED_STATES)
    return manifest[~good]


def runtime_table(found: Mapping[Run, Status | None]) -> pd.DataFrame:
    """Return what every run took; nothing here enters a score."""
    columns = [
        "dataset", "split", "method", "seed", "state", "wall_s", "cpu_s", "peak_rss_mb",
        "peak_gpu_mb", "parameters_trained", "parameters_frozen", "threads", "attempt", "hardware",
    ]  # fmt: skip
    rows = [[getattr(s, c) for c in columns] for s in found.values() if s is not None]
    return pd.DataFrame(rows, columns=columns)


def failures_table(
    config: Config, found: Mapping[Run, Status | None], paths: Paths, scores: pd.DataFrame
) -> pd.DataFrame:
    """Return every run and every scoring that did not give its result, with reason and log.

    A scoring job whose runs ended but that left no table has one row, without a method.
    """
    rows: list[tuple[Any, ...]] = []
    for run, status in found.items():
        if status is None:
            text = "it did not run to its end"
            rows.append((*_key(run), "", MISSING, text, str(paths.log(run))))
        elif status.state != "ok":
            rows.append((*_key(run), "", status.state, status.reason, status.log))
    bad = scores[scores["status"] == "failed"]
    known = {
        (c.run.dataset, c.split, c.task, c.run.method, c.run.seed)
        for c in expected(config)
        if (status := found[c.run]) is None or status.state != "ok"
    }
    for row in bad.to_dict("records"):
        if tuple(row[k] for k in CELL_KEYS) in known:
            continue  # its run has failed, which stands above
        where = paths.log_of("evaluate", row["dataset"], row["split"], row["task"])
        text = f"{row['metric']}: {row['reason']}"
        names = [row[k] for k in ("dataset", "split", "method", "seed", "task")]
        rows.append((*names, "failed", text, str(where)))
    done = set(scores[CELL_KEYS[:3]].itertuples(index=False, name=None))
    waiting = {(c.run.dataset, c.split, c.task) for c in expected(config) if found[c.run] is None}
    for dataset, split, task in scored(config):
        if (dataset, split, task) not in done | waiting:
            where = paths.log_of("evaluate", dataset, split, task)
            rows.append((dataset, split, "", "", task, MISSING, "it was not scored", str(where)))
    names = ["dataset", "split", "method", "seed", "task", "state", "reason", "log"]
    return pd.DataFrame(rows, columns=names)


def _key(run: Run) -> tuple[str, str, str, int]:
    return run.dataset, run.split, run.method, run.seed


def summary_table(config: Config, scores: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation over seeds of every metric.

    The mean stands only where every expected seed is ok: the mean of the seeds that
    happened to work would hide the failure. ``sd`` is NaN for a single seed.
    """
    methods = methods_of(config)
    order: dict[Any, int] = {name: i for i, name in enumerate(methods)}
    seeds: dict[tuple[str, ...], int] = {}
    for cell in expected(config):
        scored_by = (cell.run.dataset, cell.split, cell.task, cell.run.method)
        seeds[scored_by] = seeds.get(scored_by, 0) + 1
    rows = []
    keys = ["dataset", "split", "task", "method", "track", "metric"]
    for key, group in scores.groupby(keys, sort=False):
        dataset, split, task, method, track, metric = map(str, key)
        wanted = seeds.get((dataset, split, task, method), 0)
        words = [w for w in group["status"] if w != "ok"]
        status = words[0] if words else ("ok" if len(group) == wanted else MISSING)
        values = group["value"].to_numpy(dtype=float)
        good = status == "ok"
        rows.append(
            {
                "dataset": dataset, "split": split, "task": task, "method": method,
                "title": methods[method].spec.title, "track": track, "metric": metric,
                "aspect": METRICS[metric].aspect,
                "mean": values.mean() if good else np.nan,
                "sd": values.std(ddof=1) if good and len(values) > 1 else np.nan,
                "ci_low": group["ci_low"].mean() if good else np.nan,
                "ci_high": group["ci_high"].mean() if good else np.nan,
                "n_seeds": len(group), "n_cells": int(group["n_cells"].max()),
                "coverage": group["coverage"].min(), "status": status,
            }
        )  # fmt: skip
    columns = [*SUMMARY_KEYS, "mean", "sd", "ci_low", "ci_high", "n_seeds", "n_cells", "coverage",
               "status"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    frame["_order"] = frame["method"].map(order)
    frame = frame.sort_values(["dataset", "split", "task", "_order"], kind="stable")
    return frame.drop(columns="_order").reset_index(drop=True)


def methods_table(config: Config, found: Mapping[Run, Status | None]) -> pd.DataFrame:
    """Return the configured methods with parameters and the versions that ran."""
    rows = []
    for name, method in methods_of(config).items():
        ran = [s.versions for r, s in found.items() if r.method == name and s is not None]
        own = method.spec.packages
        versions = sorted({f"{k} {found_[k]}" for found_ in ran for k in own if k in found_})
        rows.append(
            {
                "name": name, "title": method.spec.title, "track": method.spec.track,
                "source": method.spec.source, "version": ", ".join(versions),
                "licence": method.spec.licence,
                "params": ", ".join(f"{k}={v}" for k, v in method.params.items()),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def datasets_table(config: Config, facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return what each dataset is, from the facts that ``prepare`` recorded."""
    rows = []
    for name, dataset in config.datasets.items():
        known = facts.get(name, {})
        rows.append(
            {
                "name": name, "title": dataset.title or name, "use": dataset.use,
                "cells": known.get("cells"),
                "genes": known.get("features", {}).get(known.get("main_modality")),
                "batches": known.get("batches"), "types": known.get("types"),
                "label_source": known.get("label_source", ""),
                "tasks": ", ".join(TASKS[t].title for t in dataset.tasks),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def run_facts(config: Config, packages: Sequence[str]) -> dict[str, Any]:
    """Return what identifies a run: configuration hash, commit, versions, when it ended (UTC)."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "config_hash": config_hash(config),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {p: metadata.version(p) for p in packages},
    }


PACKAGES = ("snakemake", "torch", "anndata", "scanpy", "scvi-tools", "harmonypy", "scrublet",
            "scib-metrics", "numpy", "scipy", "pandas", "scikit-learn")  # fmt: skip


def write_tables(config: Config, results: Path, tables: Path) -> None:
    """Write all tables of a run from what exists below ``results``.

    ``scores.tsv, summary.tsv, annotation_pooled.tsv, annotation_differences.tsv,
    annotation_crosstab.tsv, annotation_types.tsv, annotation_agreement.tsv, runtime.tsv,
    failures.tsv, manifest.tsv, methods.tsv, datasets.tsv`` and ``run.json``; where derived
    datasets make curves, ``robustness.tsv``. The same results give the same bytes, but for
    ``runtime.tsv`` and ``run.json``.
    """
    paths = Paths(results)
    found = statuses(config, paths)
    scores = scores_table(config, paths)
    facts = {
        name: read_json(paths.prepared_part(name, "json"))
        for name in config.datasets
        if paths.prepared_part(name, "json").exists()
    }
    counts = pooled_table(config, paths, "crosstab", crosstab.CROSSTAB_COLUMNS)
    over_batches = pooled_table(config, paths, "annotation", pooled.SCORE_COLUMNS)
    content = {
        "scores": scores,
        "summary": summary_table(config, scores),
        "annotation_pooled": over_batches,
        "annotation_differences": pooled_table(
            config, paths, "differences", pooled.DIFFERENCE_COLUMNS
        ),
        "annotation_crosstab": counts,
        "annotation_types": _by_dataset(counts, crosstab.types_table),
        "annotation_agreement": _by_dataset(counts, crosstab.agreement_table),
        "runtime": runtime_table(found),
        "failures": failures_table(config, found, paths, scores),
        "manifest": manifest_table(config, found, scores),
        "methods": methods_table(config, found),
        "datasets": datasets_table(config, facts),
    }
    if curves(config):
        content["robustness"] = robustness_table(config, scores, over_batches, counts, facts)
    for name, frame in content.items():
        write_tsv(tables / f"{name}.tsv", frame)
    write_json(tables / "run.json", run_facts(config, PACKAGES))
