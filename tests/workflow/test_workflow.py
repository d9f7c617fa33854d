"""The workflow end to end on a tiny dataset: what it makes, what it repeats, how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from tests.workflow.conftest import ROOT, Project

pytestmark = pytest.mark.workflow
BROKEN = {"method": "pca", "n_components": 999}


def table(project: Project, name: str) -> pd.DataFrame:
    path = project.root / "results" / "tables" / f"{name}.tsv"
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])


@pytest.fixture(scope="module")
def failed(tmp_path_factory, tiny_config):
    """A run in which one method fails."""
    config = {**tiny_config, "methods": {**tiny_config["methods"], "pca_broken": BROKEN}}
    project = Project(tmp_path_factory.mktemp("failed"), config)
    return project, project.snakemake()


@pytest.fixture(scope="module")
def finished(failed, tiny_config):
    """The same run after the failing method was taken out."""
    project, _ = failed
    project.config = tiny_config
    return project, project.snakemake()


def test_a_failing_method_is_reported_and_everything_else_is_there(failed):
    project, done = failed
    assert done.returncode != 0, done.stdout
    rows = table(project, "failures")
    assert set(rows["method"]) == {"pca_broken"}
    assert set(rows["state"]) == {"failed"}
    assert rows["reason"].str.contains("999").all()
    for log in rows["log"]:
        assert "999" in (project.root / log).read_text()
    # The failed run stands in every table of what was expected, and is nowhere a number.
    manifest = table(project, "manifest")
    assert sorted(set(manifest["method"])) == ["harmony", "pca", "pca_broken", "random"]
    assert set(manifest.loc[manifest["method"] == "pca_broken", "state"]) == {"failed"}
    assert set(manifest.loc[manifest["method"] != "pca_broken", "scoring"]) == {"ok"}
    scores = table(project, "scores")
    broken = scores[scores["method"] == "pca_broken"]
    assert len(broken) and broken["value"].isna().all() and set(broken["status"]) == {"failed"}
    good = scores[(scores["method"] != "pca_broken") & (scores["metric"] == "total")]
    assert len(good) == 6 and good["value"].between(0, 1).all()
    report = (project.root / "results/report/index.html").read_text()
    assert "pca_broken" in report and "999" in report
    assert not (project.root / "results/tables/check.txt").exists()
    assert "2 of 8 expected cells have no result" in done.stdout
    assert "pca_broken" in done.stdout


def test_a_finished_run_exits_with_zero_and_a_second_one_does_nothing(finished):
    project, done = finished
    assert done.returncode == 0, done.stdout
    assert "run pca on" not in done.stdout, "a finished method was run again"
    marker = (project.root / "results/tables/check.txt").read_text()
    assert marker == "all 6 expected cells are accounted for\n"
    again = project.snakemake()
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


def test_figures_carry_their_origin_and_text(finished):
    project, _ = finished
    figures = sorted((project.root / "results/figures/tiny").glob("*.svg"))
    assert [f.name for f in figures] == [
        "qc.svg",
        "scores-all-integration.svg",
        "scores-partial-integration.svg",
        "umap-all.svg",
        "umap-partial.svg",
    ]
    config_hash = json.loads((project.root / "results/tables/run.json").read_text())["config_hash"]
    for figure in figures:
        text = figure.read_text()
        assert "<text" in text and figure.with_suffix(".png").stat().st_size > 1000
        assert ET.fromstring(text).tag.endswith("svg")
        if figure.name.startswith("scores"):
            assert config_hash in text and "results/tables/summary.tsv" in text


def heavy(messages: list[str]) -> list[str]:
    """Return the planned jobs that make data, embeddings or scores."""
    words = ("prepare", "split", "input", "run", "score")
    return [m for m in messages if m.split()[0] in words]


def test_one_parameter_reruns_its_method_and_its_scoring_only(finished):
    project, _ = finished
    before = dict(project.config["methods"])
    project.config["methods"] = {**before, "pca": {"n_components": 6}}
    try:
        assert heavy(project.planned()) == [
            "run pca on tiny / all, seed 0",
            "score integration on tiny / all",
            "score integration on tiny / partial",
        ]
    finally:
        project.config["methods"] = before


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        (
            "src/morebench/methods/harmony.py",
            "\ndef run(",
            "\nEDITED = 1\n\n\ndef run(",
            [
                "run harmony on tiny / all, seed 0",
                "score integration on tiny / all",
                "score integration on tiny / partial",
            ],
        ),
        (
            "src/morebench/tasks/integration.py",
            "\ndef score(",
            "\nEDITED = 1\n\n\ndef score(",
            ["score integration on tiny / all", "score integration on tiny / partial"],
        ),
        ("src/morebench/plots/score_table.py", "\n_", "\nEDITED = 1\n_", []),
        ("src/morebench/methods/harmony.py", '"""', '"""Another docstring. ', []),
        ("src/morebench/registry/specs.py", "TRACKS = (", "EDITED = 1\nTRACKS = (", []),
    ],
)
def test_an_edit_reruns_the_stages_that_import_it(finished, file, old, new, expected):
    project, _ = finished
    kept = (project.root / file).read_text()
    project.edit(file, old, new)
    try:
        messages = project.planned()
    finally:
        (project.root / file).write_text(kept)
    assert heavy(messages) == expected
    if file.startswith("src/morebench/plots"):
        assert any(m.startswith("draw scores") for m in messages)


def test_annotation_is_pooled_once_a_dataset_that_holds_batches_out(tmp_path, tiny_config):
    held = {"splits": {"lobo": ["batch1", "batch2"]}, "tasks": ["annotation"]}
    datasets = {"tiny": tiny_config["datasets"]["tiny"]}
    datasets["held"] = {**datasets["tiny"], **held}
    methods = {"random": {"n_components": 5}, "scanvi": {"max_epochs": 1}}
    project = Project(tmp_path, {**tiny_config, "datasets": datasets, "methods": methods})
    pooled = [m for m in project.planned() if m.startswith("pool")]
    assert pooled == ["pool annotation of held over its held-out batches"]
    done = project.snakemake("-n", "-p", "results/tables/annotation_pooled.tsv")
    assert "results/embeddings/held/{split}/scanvi/0" in done.stdout
    for batch in ("batch1", "batch2"):
        assert f"results/embeddings/held/lobo-{batch}/scanvi/0" in done.stdout


def test_retry_runs_what_failed_again(tmp_path, tiny_config):
    methods = {"random": {"n_components": 5}, "pca_broken": BROKEN}
    project = Project(tmp_path, {**tiny_config, "methods": methods})
    assert project.snakemake().returncode != 0
    command = [sys.executable, "-m", "morebench.cli", "retry", "--configfile", "test.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(project.root / "src")}
    again = subprocess.run(
        [*command, "--cores", "2"],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
    )
    both = again.stdout + again.stderr
    assert again.returncode != 0
    assert "run pca_broken on tiny / all, seed 0" in both
    assert "run random on" not in both


def test_a_hard_failure_leaves_tables_of_what_exists(tmp_path, tiny_config):
    config = {**tiny_config, "methods": {"random": {"n_components": 5}}}
    project = Project(tmp_path, config)
    project.edit("src/morebench/tasks/integration.py", "\ndef score(", "\n1 / 0\n\n\ndef score(")
    done = project.snakemake()
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stdout, "the log of the failed job is shown"
    manifest = pd.read_csv(project.root / "results/partial/manifest.tsv", sep="\t")
    assert set(manifest["state"]) == {"ok"} and set(manifest["scoring"]) == {"missing"}


@pytest.mark.parametrize(("limit", "left"), [("100/1s", "None"), ("7/2s", "7")])
def test_snakemake_looks_for_jobs_when_one_ends(tmp_path, tiny_config, limit, left):
    """By its default it would look every second, once for every job that has ended so far."""
    project = Project(tmp_path, tiny_config)
    told = "print('limit', getattr(workflow.scheduler.job_rate_limiter, 'max_jobs', None))"
    project.edit("rules/events.smk", "    tidy()\n", f"    tidy()\n    {told}\n")
    done = project.snakemake("results/config.yaml", "--max-jobs-per-timespan", limit)
    assert done.returncode == 0 and f"limit {left}\n" in done.stdout


def test_snakemake_report_works_offline(finished):
    project, _ = finished
    done = project.snakemake("--report", "report.zip")
    assert done.returncode == 0, done.stdout
    assert (project.root / "report.zip").stat().st_size > 10_000


def test_lint_is_clean(tmp_path, tiny_config):
    done = Project(tmp_path, tiny_config).snakemake("--lint")
    assert "Congratulations" in done.stdout, done.stdout


def test_out_of_memory_is_tried_again_with_more_and_then_recorded(tmp_path, tiny_config):
    methods = {
        "tight": {"method": "random", "n_components": 5, "resources": {"mem_mb": 100}},
        "hopeless": {"method": "scvi", "max_epochs": 1, "resources": {"mem_mb": 100}},
    }
    project = Project(tmp_path, {**tiny_config, "methods": methods})
    done = project.snakemake("results/tables/failures.tsv")
    assert done.returncode == 0, done.stdout
    runs = table(project, "runtime").set_index("method")
    assert runs.loc["tight", ["state", "attempt"]].tolist() == ["ok", 2]
    assert 100 < runs.loc["tight", "peak_rss_mb"] <= 200
    assert runs.loc["hopeless", ["state", "attempt"]].tolist() == ["out_of_memory", 2]
    assert "the limit is 200 MiB" in table(project, "failures").loc[0, "reason"]


def test_an_environment_that_cannot_be_made_fails_its_method_only(tmp_path, tiny_config):
    methods = {"random": {"n_components": 5}, "harmony_published": {"n_components": 5}}
    project = Project(tmp_path, {**tiny_config, "methods": methods})
    done = project.snakemake("results/tables/failures.tsv", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert done.returncode == 0, done.stdout
    rows = table(project, "failures")
    assert rows["method"].tolist() == ["harmony_published"]
    assert "its environment could not be made" in rows.loc[0, "reason"]
    assert "No matching distribution" in (project.root / rows.loc[0, "log"]).read_text()
    unrun = project.root / "results/embeddings/tiny/all/harmony_published/0/status.json"
    status = json.loads(unrun.read_text())
    assert {"python", "system"} <= set(status["versions"]) and "cores" in status["hardware"]
    states = table(project, "manifest").drop_duplicates("method").set_index("method")["state"]
    assert states.to_dict() == {"random": "ok", "harmony_published": "failed"}


def test_the_default_configuration_is_found_from_any_folder(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(ROOT / "Snakefile")]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run scvi on pbmc68k_batches / all, seed 0" in done.stdout + done.stderr
