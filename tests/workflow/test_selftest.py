"""The self-test of the metrics is planned where its dataset is configured, and only there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from morebench.registry import METRICS
from tests.workflow.conftest import Project

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.workflow
JOBS = {"test the metrics on planted effects", "draw the self-test of the metrics"}
PLANTED = {
    "bundled": "pbmc68k_batches",
    "batch": "batch",
    "labels": {"column": "cell_type", "source": "derived"},
    "tasks": [],
}


@pytest.mark.slow
def test_the_registry_marks_what_rises_in_the_self_test_of_the_default_run(tmp_path):
    told = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    datasets = {"pbmc68k_batches": told["datasets"]["pbmc68k_batches"]}
    project = Project(tmp_path, {"datasets": datasets, "methods": {"pca": {}}})
    table = "results/tables/selftest.tsv"
    done = project.snakemake("--cores", "1", "--", table)
    assert done.returncode == 0, done.stdout
    found = pd.read_csv(project.root / table, sep="\t")
    rising = set(found.loc[found["rises_with_overcorrection"], "metric"])
    assert rising == {name for name, spec in METRICS.items() if spec.rises} and rising


def test_the_self_test_is_planned_with_its_dataset_and_marks_integration(tmp_path, tiny_config):
    project = Project(tmp_path, tiny_config)
    assert not JOBS & set(project.planned())
    datasets = {**tiny_config["datasets"], "pbmc68k_batches": PLANTED}
    project.config = {**tiny_config, "datasets": datasets}
    assert set(project.planned()) >= JOBS
    done = project.snakemake("-n", "-p", "--quiet", "host")
    assert done.returncode == 0, done.stdout
    drawn = [line for line in done.stdout.splitlines() if "draw_scores.py" in line]
    assert len(drawn) == 2 and all("--selftest results/tables/selftest.tsv" in d for d in drawn)
