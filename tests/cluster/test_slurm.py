"""The workflow on a real Slurm: where jobs run, what comes of failures, what is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import time
from copy import deepcopy

import pandas as pd
import psutil
import pytest
import yaml

from morebench.io.outputs import read_status
from tests.cluster.conftest import Submitted
from tests.cluster.slurm import CPU_NODE, GPU_NODE
from tests.workflow.conftest import ROOT, Project

pytestmark = [pytest.mark.cluster, pytest.mark.workflow, pytest.mark.slow]
METHODS = {
    "pca": {"n_components": 8},
    "random": {"n_components": 8},
    "pca_gpu": {"method": "pca", "n_components": 6, "resources": {"gpu": 1}},
    # More than a gigabyte, which neither the first nor the second attempt may take.
    "wide": {"method": "random", "n_components": 2_000_000, "resources": {"mem_mb": 300}},
}
GPU_JOB = "rule_embed_wildcards_tiny_all_pca_gpu_0"
WIDE_JOB = "rule_embed_wildcards_tiny_all_wide_0"


def submitted(slurm, before) -> list[dict[str, str]]:
    """Return the records of the jobs that were not there before, in order."""
    told = sorted(slurm.jobs().items(), key=lambda item: int(item[0]))
    return [job for number, job in told if number not in before]


@pytest.fixture(scope="module")
def runs(slurm, tmp_path_factory, tiny_config):
    """The same configuration on Slurm and on this machine, at the same time."""
    config = deepcopy(tiny_config)
    config["methods"] = METHODS
    config["datasets"]["tiny"]["splits"] = {}
    before = set(slurm.jobs())
    remote = Submitted(tmp_path_factory.mktemp("remote"), config)
    local = Project(tmp_path_factory.mktemp("local"), config)
    process = remote.start()
    here = local.snakemake("--cores", "1", timeout=1200)
    code = process.wait(1200)
    return remote, code, local, here, submitted(slurm, before)


def test_tables_equal_those_of_a_local_run(runs):
    remote, _, local, here, _ = runs
    for name in ("scores", "summary", "manifest"):
        ours, theirs = (p.root / f"results/tables/{name}.tsv" for p in (remote, local))
        assert ours.exists(), remote.output()
        assert theirs.exists(), here.stdout
        assert ours.read_text() == theirs.read_text(), name
    scores = pd.read_csv(remote.root / "results/tables/scores.tsv", sep="\t")
    totals = scores[(scores["metric"] == "total") & (scores["status"] == "ok")]
    assert (
        sorted(totals["method"]) == ["pca", "pca_gpu", "random"]
        and totals["value"].between(0, 1).all()
    )
    assert (remote.root / "results/report/index.html").exists()
    # What ran on nodes is up to date for Snakemake at the desk.
    assert remote.planned() == ["check that every expected cell has its result"]


def test_only_a_job_that_asks_for_a_gpu_runs_on_the_node_that_has_them(runs):
    *_, jobs = runs
    asked = [(j["Comment"], j.get("TresPerJob")) for j in jobs if j["NodeList"] == GPU_NODE]
    assert asked == [(GPU_JOB, "gres:gpu:1")]
    assert {j["NodeList"] for j in jobs if j["Comment"] != GPU_JOB} == {CPU_NODE}
    assert not any("TresPerJob" in j for j in jobs if j["Comment"] != GPU_JOB)


def test_out_of_memory_is_tried_again_with_more_and_then_a_status(runs):
    remote, code, _, _, jobs = runs
    tries = [(j["MinMemoryNode"], j["JobState"]) for j in jobs if j["Comment"] == WIDE_JOB]
    assert tries == [("1300M", "FAILED"), ("1600M", "COMPLETED")]
    assert {j["JobState"] for j in jobs if j["Comment"] != WIDE_JOB} == {"COMPLETED"}
    rows = pd.read_csv(remote.root / "results/tables/failures.tsv", sep="\t")
    assert list(rows["method"]) == ["wide"] and list(rows["state"]) == ["out_of_memory"]
    assert code != 0 and "1 of 4 expected cells have no result" in remote.output()


def test_small_jobs_share_a_submission_and_run_in_turn(runs):
    *_, jobs = runs
    keys = ("MinMemoryNode", "TimeLimit", "NumCPUs")
    asked = {j["Comment"]: tuple(j[k] for k in keys) for j in jobs if j["Comment"] != WIDE_JOB}
    assert asked == {
        "rule_prepare_wildcards_tiny": ("8000M", "01:00:00", "1"),
        "rule_inputs_make_input_split": ("8000M", "01:15:00", "1"),
        # The largest memory, and the time of one after the other.
        "rule_runs_embed": ("7000M", "02:30:00", "1"),
        GPU_JOB: ("7000M", "01:15:00", "1"),
        "rule_scores_draw_umap_evaluate_umap": ("8000M", "02:10:00", "1"),
        "rule_aggregate": ("4000M", "01:00:00", "1"),
        "rule_figures_draw_qc_draw_scores": ("4000M", "00:20:00", "1"),
    }


def test_a_job_that_fails_is_named_with_its_log(slurm, tmp_path, make_adata, config_of):
    data = make_adata()
    data.X = data.X * 0.5  # no counts: found by the job, as headers do not tell
    data.write_h5ad(tmp_path / "halves.h5ad")
    project = Submitted(tmp_path, config_of(str(tmp_path / "halves.h5ad")))
    before = set(slurm.jobs())
    assert project.start("--", "results/prepared/d.h5mu").wait(300) != 0
    (job,) = submitted(slurm, before)
    assert (job["Comment"], job["JobState"]) == ("rule_prepare_wildcards_d", "FAILED")
    told = project.output()
    assert "Error in rule prepare" in told and job["JobId"] in told
    assert "scancel" not in told, "nothing was left to cancel"
    (line,) = (project.root / "results/logs/prepare/d.log").read_text().splitlines()
    assert line.startswith("error: datasets.d: ") and f"\n{line}\n" in told
    assert not (project.root / "results/prepared/d.h5mu").exists()


def test_ranges_of_cells_are_jobs_that_one_gathers(slurm, tmp_path):
    config = yaml.safe_load((ROOT / "tests/configs/shards.yaml").read_text())
    config["datasets"] = {"parts": {**config["datasets"]["parts"], "methods": ["more"]}}
    config["methods"] = {"more": {**config["methods"]["more"], "backbone": "none"}}
    project = Submitted(tmp_path, config)
    before = set(slurm.jobs())
    run = "results/embeddings/parts/all/more/0"
    assert project.start("--", run).wait(600) == 0, project.output()
    jobs = submitted(slurm, before)
    assert {j["JobState"] for j in jobs} == {"COMPLETED"}
    asked = [j["Comment"] for j in jobs]
    ranges = [c for c in asked if c.startswith("rule_embed_shard")]
    assert sorted(ranges) == [f"rule_embed_shard_wildcards_parts_all_more_0_{i}" for i in range(3)]
    (fit,) = (i for i, c in enumerate(asked) if c.startswith("rule_fit_on_sample"))
    (gather,) = (i for i, c in enumerate(asked) if c.startswith("rule_gather"))
    assert fit < min(asked.index(r) for r in ranges) and gather == len(asked) - 1
    status = read_status(project.root / run)
    assert status.state == "ok" and status.notes["shards"] == 3


# Says that Snakemake asks about its jobs, and takes its time: it has none in hand meanwhile.
SLOW_SQUEUE = """#!/bin/sh
touch {asked}
sleep 1
exec {squeue} "$@"
"""


def running_below(root):
    """Return the commands of processes that name a folder."""
    told = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]  # zombie: None
    return [words for words in told if str(root) in " ".join(words)]


@pytest.mark.parametrize("asking", [False, True], ids=["any-time", "asking"])
def test_a_cancelled_run_leaves_nothing_in_the_queue(slurm, tmp_path, tiny_config, asking):
    datasets = {f"tiny{i}": tiny_config["datasets"]["tiny"] for i in range(3)}
    project = Submitted(tmp_path, {**tiny_config, "datasets": datasets})
    # None ends by itself before Snakemake has cancelled it.
    begin = "    files = [] if"
    project.edit(
        "workflow_scripts/prepare.py", begin, f"    __import__('time').sleep(300)\n{begin}"
    )
    before = set(slurm.jobs())
    asked, path = tmp_path / "asked", os.environ["PATH"]
    if asking:
        (tmp_path / "bin").mkdir()
        slow = tmp_path / "bin/squeue"
        slow.write_text(SLOW_SQUEUE.format(asked=asked, squeue=shutil.which("squeue")))
        slow.chmod(0o755)
        path = f"{slow.parent}:{path}"
    targets = [f"results/prepared/{d}.h5mu" for d in datasets]
    process = project.start("--", *targets, PATH=path)
    end = time.monotonic() + 120

    def until(happened):
        while not happened():
            assert process.poll() is None and time.monotonic() < end, project.output()
            time.sleep(0.1)

    until(lambda: sorted(slurm.active()) == ["PENDING", "RUNNING", "RUNNING"])
    locks = {p.name for p in (project.root / ".snakemake/locks").iterdir()}
    assert locks and not any(name.startswith("owner-") for name in locks), "jobs outlive Snakemake"
    if asking:
        asked.unlink(missing_ok=True)
        until(asked.exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) != 0
    end = time.monotonic() + 60
    while slurm.active():
        assert time.monotonic() < end, slurm.jobs()
        time.sleep(0.1)
    assert {j["JobState"] for j in submitted(slurm, before)} == {"CANCELLED"}
    while left := running_below(project.root):  # the queue forgets a job while its processes end
        assert time.monotonic() < end, left
        time.sleep(0.1)
    assert not list((project.root / "results").glob("prepared/*.h5mu"))
