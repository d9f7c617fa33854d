"""Tables of a run that went partly wrong: nothing is dropped, nothing is averaged over a hole."""

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from tests.seal import names

from morebench import aggregate
from morebench.aggregate import (
    failures_table,
    manifest_table,
    methods_table,
    not_accepted,
    runtime_table,
    scores_table,
    statuses,
    summary_table,
    write_tables,
)
from morebench.config import load
from morebench.errors import Damaged
from morebench.evaluate import SCORE_COLUMNS
from morebench.files import atomic_directory, write_json
from morebench.io.outputs import Status, write_status
from morebench.io.tables import write_parquet
from morebench.paths import Paths
from morebench.plan import Run, expected, runs
from morebench.tasks.crosstab import CROSSTAB_COLUMNS

METRICS = ("ilisi", "total")


@pytest.fixture
def config(tmp_path):
    return load(
        {
            "results": str(tmp_path),
            "seeds": {"all": [0, 1], "partial": [0, 1], "lobo": [0]},
            "datasets": {
                "d": {
                    "path": "x.h5ad", "batch": "batch", "title": "The data",
                    "labels": {"column": "cell_type", "source": "expert"},
                    "splits": {"partial": {}, "lobo": ["b1"]},
                    "tasks": ["integration", "annotation"],
                },
            },
            "methods": {"pca": None, "scvi": None, "scanvi": None},
        }
    )  # fmt: skip


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path)


def leave(paths, run, state="ok", reason="", **more):
    """Leave behind what a run leaves behind."""
    directory = paths.embedding(run)
    directory.mkdir(parents=True)
    status = Status(
        run.dataset, run.split, run.method, run.seed, state, reason,
        wall_s=2.5, versions={"python": "3.11", "numpy": "2.4", "scikit-learn": "1.9"},
        log=str(paths.log(run)), **more,
    )  # fmt: skip
    if state == "ok":
        (directory / "output.h5ad").write_text("an embedding")
    write_status(directory, status)


def row(cell, metric="ilisi", value=0.5, status="ok", reason="", **more):
    base = {
        "dataset": cell.run.dataset, "split": cell.split, "task": cell.task,
        "method": cell.run.method, "track": "unsupervised", "seed": cell.run.seed,
        "metric": metric, "value": value if status == "ok" else np.nan, "ci_low": 0.4,
        "ci_high": 0.6, "n_cells": 10, "coverage": 1.0, "status": status, "reason": reason,
    }  # fmt: skip
    return base | more


def score(paths, config, odd=None, skip=(), metrics=METRICS):
    """Write the scores of every expected cell; ``odd`` changes the rows of some."""
    for key in dict.fromkeys((c.run.dataset, c.split, c.task) for c in expected(config)):
        if key[1:] in skip:
            continue
        cells = [c for c in expected(config) if (c.run.dataset, c.split, c.task) == key]
        rows = []
        for cell in cells:
            change = (odd or {}).get((cell.split, cell.run.method, cell.run.seed), {})
            if key[2] == "annotation":
                rows.append(row(cell, "accuracy", 0.9, **change))
            else:
                rows += [row(cell, m, 0.1 * (cell.run.seed + 1), **change) for m in metrics]
        write_parquet(paths.scores(*key), pd.DataFrame(rows)[list(SCORE_COLUMNS)])


def everything(config, paths, bad=None):
    for run in runs(config):
        leave(paths, run, *(bad or {}).get((run.split, run.method, run.seed), ("ok", "")))


def tables(config, paths):
    found, scores = statuses(config, paths), scores_table(config, paths)
    manifest = manifest_table(config, found, scores)
    return manifest, failures_table(config, found, paths, scores)


def test_a_run_without_faults(config, paths):
    everything(config, paths)
    score(paths, config)
    manifest, failures = tables(config, paths)
    assert len(manifest) == len(expected(config)) == 11
    assert set(manifest["state"]) == set(manifest["scoring"]) == {"ok"}
    assert not len(failures) and not len(not_accepted(manifest))
    first = manifest.iloc[0].to_dict()
    assert first == {
        "dataset": "d", "split": "all", "task": "integration", "method": "pca", "seed": 0,
        "fitted_on": "all", "state": "ok", "scoring": "ok",
    }  # fmt: skip
    partial = manifest[manifest["split"] == "partial"].set_index("method")["fitted_on"]
    assert partial["scvi"].tolist() == ["all", "all"]
    assert partial["scanvi"].tolist() == ["partial", "partial"]


def test_a_failed_run_stands_in_every_split_it_serves_and_once_in_the_failures(config, paths):
    everything(config, paths, {("all", "scvi", 1): ("failed", "ValueError: boom")})
    lost = {"status": "failed", "reason": "ValueError: boom"}
    score(paths, config, {("all", "scvi", 1): lost, ("partial", "scvi", 1): lost})
    manifest, failures = tables(config, paths)
    bad = not_accepted(manifest)
    assert bad[["split", "method", "seed", "state", "scoring"]].to_numpy().tolist() == [
        ["all", "scvi", 1, "failed", "failed"],
        ["partial", "scvi", 1, "failed", "failed"],
    ]
    assert failures.drop(columns="log").to_numpy().tolist() == [
        ["d", "all", "scvi", 1, "", "failed", "ValueError: boom"]
    ]
    assert failures["log"][0] == str(paths.log(Run("d", "all", "scvi", 1)))


def test_a_failed_scoring_stands_beside_a_failed_run_of_another_split(config, paths):
    """The same method and seed fail twice, for reasons of their own."""
    everything(config, paths, {("partial", "scanvi", 0): ("timeout", "stopped after 9 s")})
    score(
        paths,
        config,
        {
            ("partial", "scanvi", 0): {"status": "timeout", "reason": "stopped after 9 s"},
            ("lobo-b1", "scanvi", 0): {"status": "failed", "reason": "no label is known"},
        },
    )
    manifest, failures = tables(config, paths)
    assert failures[["split", "task", "state", "reason"]].to_numpy().tolist() == [
        ["partial", "", "timeout", "stopped after 9 s"],
        ["lobo-b1", "annotation", "failed", "accuracy: no label is known"],
    ]
    assert failures["log"][1].endswith("logs/evaluate/d/lobo-b1/annotation.log")
    states = manifest[manifest["method"] == "scanvi"].set_index(["split", "seed"])
    assert states.loc[("lobo-b1", 0), ["state", "scoring"]].tolist() == ["ok", "failed"]
    assert states.loc[("partial", 0), ["state", "scoring"]].tolist() == ["timeout", "timeout"]
    assert len(not_accepted(manifest)) == 2


@pytest.mark.parametrize("state", ["unsupported", "unavailable"])
def test_what_a_method_cannot_do_is_listed_and_accepted(config, paths, state):
    everything(config, paths, {("all", "pca", 0): (state, "why")})
    odd = {"status": state, "reason": "why"}
    score(paths, config, {("all", "pca", 0): odd, ("partial", "pca", 0): odd})
    manifest, failures = tables(config, paths)
    assert not len(not_accepted(manifest))
    assert failures[["method", "state", "reason"]].to_numpy().tolist() == [["pca", state, "why"]]


def test_an_output_that_broke_its_contract_at_scoring_is_not_accepted(config, paths):
    everything(config, paths)
    score(paths, config, {("all", "pca", 0): {"status": "failed", "reason": "cells are shuffled"}})
    manifest, failures = tables(config, paths)
    assert not_accepted(manifest)[["split", "method", "state", "scoring"]].to_numpy().tolist() == [
        ["all", "pca", "ok", "failed"]
    ]
    assert failures["reason"].tolist() == [f"{m}: cells are shuffled" for m in METRICS]


def test_a_metric_that_does_not_apply_is_no_failure(config, paths):
    everything(config, paths)
    score(paths, config, {("all", "pca", 0): {"status": "not_applicable", "reason": "one type"}})
    manifest, failures = tables(config, paths)
    assert set(manifest["scoring"]) == {"ok"} and not len(failures)


def test_missing_runs_and_scores_are_typed(config, paths):
    """As after a job that was killed: one run left nothing, one scoring neither."""
    lost = Run("d", "partial", "scanvi", 0)
    for run in runs(config):
        if run != lost:
            leave(paths, run)
    score(paths, config, skip=[("partial", "integration"), ("lobo-b1", "annotation")])
    manifest, failures = tables(config, paths)
    missing = manifest.loc[manifest["scoring"] == "missing", ["split", "method"]]
    assert missing.to_numpy().tolist() == [
        ["partial", "pca"], ["partial", "scvi"], ["partial", "scvi"], ["partial", "scanvi"],
        ["partial", "scanvi"], ["lobo-b1", "pca"], ["lobo-b1", "scvi"], ["lobo-b1", "scanvi"],
    ]  # fmt: skip
    assert manifest.loc[manifest["state"] == "missing", "method"].tolist() == ["scanvi"]
    # integration on `partial` waits for scANVI; the annotation job has no such excuse
    assert failures[["split", "method", "task", "state", "reason"]].to_numpy().tolist() == [
        ["partial", "scanvi", "", "missing", "it did not run to its end"],
        ["lobo-b1", "", "annotation", "missing", "it was not scored"],
    ]
    assert len(not_accepted(manifest)) == 8


def test_nothing_at_all_gives_tables_of_missing_cells(config, paths, tmp_path):
    write_tables(config, tmp_path, tmp_path / "tables")
    manifest = pd.read_csv(tmp_path / "tables/manifest.tsv", sep="\t")
    assert set(manifest["state"]) == set(manifest["scoring"]) == {"missing"}
    assert len(pd.read_csv(tmp_path / "tables/failures.tsv", sep="\t")) == len(runs(config))
    for name in ("scores", "summary", "runtime"):
        text = (tmp_path / f"tables/{name}.tsv").read_text()
        assert text.count("\n") == 1, name


def test_a_run_that_lost_its_output_is_no_failure_of_its_method(config, paths):
    everything(config, paths)
    folder = paths.embedding(Run("d", "all", "scvi", 0))
    (folder / "output.h5ad").unlink()
    with pytest.raises(Damaged, match=f"output.h5ad is missing; delete the folder {folder} and"):
        statuses(config, paths)


def test_a_status_that_is_none_is_a_failure_of_its_run_only(config, paths):
    everything(config, paths)
    folder = paths.embedding(Run("d", "all", "scvi", 0))
    with atomic_directory(folder) as directory:
        write_json(directory / "status.json", {"state": "ok"})
    found = statuses(config, paths)
    bad = {run: s for run, s in found.items() if s.state != "ok"}
    assert [run for run in bad] == [Run("d", "all", "scvi", 0)]
    assert bad[Run("d", "all", "scvi", 0)].state == "failed"
    assert "not a status" in bad[Run("d", "all", "scvi", 0)].reason


def test_scores_of_a_method_that_left_the_configuration_are_left_out(config, paths):
    everything(config, paths)
    score(paths, config)
    fewer = config.model_copy(update={"methods": {"pca": {}, "scanvi": {}}})
    scores = scores_table(fewer, paths)
    assert set(scores["method"]) == {"pca", "scanvi"}
    assert set(summary_table(fewer, scores)["method"]) == {"pca", "scanvi"}


# --- summary --------------------------------------------------------------------------------


def summary_of(config, paths, odd=None):
    score(paths, config, odd)
    frame = summary_table(config, scores_table(config, paths))
    return frame, frame.set_index(["split", "method", "metric"])


def test_means_and_spread_over_seeds(config, paths):
    frame, by = summary_of(config, paths)
    scvi = by.loc[("all", "scvi", "ilisi")]
    assert scvi["mean"] == pytest.approx(0.15) and scvi["sd"] == pytest.approx(0.1 / np.sqrt(2))
    assert (scvi["n_seeds"], scvi["n_cells"], scvi["status"]) == (2, 10, "ok")
    assert scvi["ci_low"] == pytest.approx(0.4) and scvi["title"] == "scVI"
    assert (scvi["aspect"], by.loc[("all", "scvi", "total"), "aspect"]) == ("batch", "total")
    pca = by.loc[("all", "pca", "ilisi")]
    assert pca["mean"] == pytest.approx(0.1) and np.isnan(pca["sd"]) and pca["n_seeds"] == 1
    assert frame["method"].drop_duplicates().tolist() == ["pca", "scvi", "scanvi"]


@pytest.mark.parametrize("status", ["failed", "timeout", "not_applicable"])
def test_a_failed_seed_leaves_no_mean(config, paths, status):
    _, by = summary_of(config, paths, {("all", "scvi", 1): {"status": status, "reason": "x"}})
    scvi = by.loc[("all", "scvi", "ilisi")]
    assert scvi[["mean", "sd", "ci_low", "ci_high"]].isna().all() and scvi["status"] == status
    assert by.loc[("partial", "scvi", "ilisi"), "mean"] == pytest.approx(0.15)


def test_an_absent_seed_leaves_no_mean(config, paths):
    score(paths, config)
    scores = scores_table(config, paths)
    gone = (scores["method"] == "scvi") & (scores["seed"] == 1) & (scores["split"] == "all")
    by = summary_table(config, scores[~gone]).set_index(["split", "method", "metric"])
    scvi = by.loc[("all", "scvi", "ilisi")]
    assert np.isnan(scvi["mean"]) and scvi["status"] == "missing" and scvi["n_seeds"] == 1


# --- the other tables -----------------------------------------------------------------------


def test_runtime_and_methods(config, paths):
    everything(config, paths, {("all", "scvi", 1): ("failed", "x")})
    found = statuses(config, paths)
    runtime = runtime_table(found)
    assert len(runtime) == len(runs(config)) and set(runtime["wall_s"]) == {2.5}
    assert runtime["state"].value_counts().to_dict() == {"ok": 5, "failed": 1}
    methods = methods_table(config, found).set_index("name")
    assert methods.loc["pca", "version"] == "scikit-learn 1.9"
    assert methods.loc["pca", "params"] == "n_components=30"
    assert methods.loc["scanvi", "track"] == "semi-supervised"


def test_written_tables_are_the_same_bytes_for_the_same_results(config, paths, tmp_path):
    everything(config, paths)
    score(paths, config)
    facts = {
        "cells": 1234567, "features": {"rna": 20}, "main_modality": "rna", "batches": 2, "types": 3,
        "label_source": "expert",
    }  # fmt: skip
    write_json(paths.prepared_part("d", "json"), facts)
    for name in ("one", "two"):
        write_tables(config, tmp_path, tmp_path / name)
    for file in sorted((tmp_path / "one").glob("*.tsv")):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    assert names(tmp_path / "one") == [
        "annotation_agreement.tsv", "annotation_crosstab.tsv", "annotation_differences.tsv",
        "annotation_pooled.tsv", "annotation_types.tsv", "datasets.tsv", "failures.tsv",
        "manifest.tsv", "methods.tsv", "run.json", "runtime.tsv", "scores.tsv", "summary.tsv",
    ]  # fmt: skip
    datasets = pd.read_csv(tmp_path / "one/datasets.tsv", sep="\t").iloc[0]
    assert datasets["title"] == "The data" and datasets["cells"] == 1234567
    assert datasets["tasks"] == "Integration, Annotation" and datasets["genes"] == 20
    record, again = (json.loads((tmp_path / n / "run.json").read_text()) for n in ("one", "two"))
    assert {**record, "finished": ""} == {**again, "finished": ""}  # when it was made
    assert datetime.fromisoformat(record["finished"]).tzinfo == UTC
    assert set(record["packages"]) == set(aggregate.PACKAGES)
    assert len(record["config_hash"]) == 12 and record["commit"]


def test_a_dataset_that_nobody_annotated_leaves_empty_tables(config, paths, tmp_path):
    """All annotators failed: there is no row, and the columns stay."""
    everything(config, paths)
    score(paths, config)
    write_parquet(paths.pooled("d", "crosstab"), pd.DataFrame(columns=list(CROSSTAB_COLUMNS)))
    write_tables(config, tmp_path, tmp_path / "tables")
    for name in ("crosstab", "types", "agreement"):
        table = pd.read_csv(tmp_path / "tables" / f"annotation_{name}.tsv", sep="\t")
        assert not len(table) and {"dataset", "method"} <= set(table), name


def test_curves_are_tabled_where_datasets_are_derived_and_survive_missing_results(
    config, paths, tmp_path
):
    from morebench.config import resolved

    content = json.loads(json.dumps(resolved(config), default=list))
    content["datasets"]["d_lost"] = {"derive": {"from": "d", "dropout": 0.5}}
    config = load(content)
    everything(config, paths)
    score(paths, config)
    paths.scores("d_lost", "all", "integration").unlink()
    write_tables(config, tmp_path, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables/robustness.tsv", sep="\t")
    total = table[(table["metric"] == "total") & (table["method"] == "scvi")].set_index("split")
    assert total.loc["partial", "level"].tolist() == [0, 0.5]
    np.testing.assert_allclose(total.loc["partial", "mean"], 0.15)
    assert total.loc["all", "status"].tolist() == ["ok", "missing"]
    assert total.loc["all", "mean"].isna().tolist() == [False, True]
    pooled = table[table["split"] == "lobo"]  # nothing was pooled here
    assert set(pooled["status"]) == {"missing"} and pooled["mean"].isna().all()
