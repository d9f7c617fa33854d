"""The self-test of the metrics is planned where its dataset is configured, and only there."""

from __future__ import annotations

import pytest

from tests.workflow.conftest import Project

pytestmark = pytest.mark.workflow
JOBS = {"test the metrics on planted effects", "draw the self-test of the metrics"}
PLANTED = {
    "bundled": "pbmc68k_batches",
    "batch": "batch",
    "labels": {"column": "cell_type", "source": "derived"},
    "tasks": [],
}


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
