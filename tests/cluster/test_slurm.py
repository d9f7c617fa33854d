"""The workflow on a real Slurm: where jobs run, what comes of failures, what is left behind."""

from __future__ import annotations

import re
import signal
import time
from copy import deepcopy

import pandas as pd
import pytest

from tests.cluster.conftest import Submitted
from tests.cluster.slurm import CPU_NODE, GPU_NODE
from tests.workflow.conftest import Project

pytestmark = [pytest.mark.cluster, pytest.mark.workflow, pytest.mark.slow]
METHODS = {
    "pca": {"n_components": 8},
    "pca_gpu": {"method": "pca", "n_components": 6, "resources": {"gpu": 1}},
    "pca_broken": {"method": "pca", "n_components": 999},
}
SAME = ("scores", "summary", "manifest")


def comment(job: dict[str, str]) -> str:
    return job.get("Comment", "")


@pytest.fixture(scope="module")
def runs(slurm, tmp_path_factory, tiny_config):
    """The same configuration on Slurm and on this machine."""
    config = deepcopy(tiny_config)
    config["methods"] = METHODS
    config["datasets"]["tiny"]["splits"] = {}
    before = set(slurm.jobs())
    remote = Submitted(tmp_path_factory.mktemp("remote"), config)
    local = Project(tmp_path_factory.mktemp("local"), config)
    process = remote.start()
    here = local.snakemake("--cores", "1")
    code = process.wait(600)
    jobs = {k: v for k, v in slurm.jobs().items() if k not in before}
    return remote, code, local, here, jobs


def test_tables_equal_those_of_a_local_run(runs):
    remote, _, local, here, _ = runs
    for name in SAME:
        path = f"results/tables/{name}.tsv"
        left, right = ((p.root / path) for p in (remote, local))
        assert left.exists(), remote.output()
        assert right.exists(), here.stdout
        assert left.read_bytes() == right.read_bytes(), name
    assert (remote.root / "results/report/index.html").exists()
    # Snakemake at the desk and on the nodes agree on what is up to date.
    assert remote.planned() == ["check that every expected cell has its result"]


def test_a_method_that_fails_is_a_status_and_ends_the_run_with_an_error(runs):
    remote, code, *_ = runs
    assert code != 0
    rows = pd.read_csv(remote.root / "results/tables/failures.tsv", sep="\t")
    assert list(rows["method"]) == ["pca_broken"] and list(rows["state"]) == ["failed"]
    assert "999" in rows["reason"].item()
    assert "1 of 3 expected cells have no result" in remote.output()


def test_a_job_with_a_gpu_runs_on_the_node_that_has_one_and_no_other_does(runs):
    *_, jobs = runs
    on_gpu = {k: v for k, v in jobs.items() if "gres/gpu=1" in v["TRES"] or "gpu" in str(v)}
    assert [comment(j) for j in on_gpu.values()] == ["rule_embed_wildcards_tiny_all_pca_gpu_0"]
    assert {j["NodeList"] for j in on_gpu.values()} == {GPU_NODE}
    rest = [j for k, j in jobs.items() if k not in on_gpu]
    assert {j["NodeList"] for j in rest} == {CPU_NODE}
    assert {j["JobState"] for j in jobs.values()} == {"COMPLETED"}


def test_a_job_asks_for_what_its_rule_says_and_small_jobs_share_one(runs):
    *_, jobs = runs
    asked = {comment(j): (j["MinMemoryNode"], j["TimeLimit"], j["NumCPUs"]) for j in jobs.values()}
    assert asked["rule_embed_wildcards_tiny_all_pca_0"] == ("7000M", "02:15:00", "1")
    assert asked["rule_prepare_wildcards_tiny"][0] == "8000M"
    # One after the other: the largest memory, the sum of the times.
    assert asked == {}
