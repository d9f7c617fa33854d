"""The profiles name rules that there are, and limits of this machine."""

import re
from pathlib import Path

import psutil
import pytest
from snakemake.cli import parse_args

ROOT = Path(__file__).resolve().parents[2]
RULES = {
    name
    for file in (ROOT / "rules").glob("*.smk")
    for name in re.findall(r"^(?:rule|use rule \w+ as) (\w+)", file.read_text(), re.M)
}


@pytest.fixture
def options(monkeypatch):
    """Return a function that reads a profile as Snakemake does."""
    monkeypatch.chdir(ROOT)
    return lambda *words: parse_args(["-n", *words])[1]


def test_jobs_of_one_machine_share_its_memory_and_one_gpu(options):
    told = options("--cores", "2")
    total = psutil.virtual_memory().total
    assert {k: v.value for k, v in told.resources.items()} == {"gpu": 1, "mem_mb": total // 2**20}
    assert told.default_resources["mem_mb"].value == 2000
    assert told.keep_going and told.rerun_incomplete and told.show_failed_logs


def test_slurm_profile_names_rules_that_there_are_and_every_figure_is_grouped(options):
    told = options("--workflow-profile", "profiles/slurm")
    assert told.executor == "slurm"
    groups, settings = told.groups, told.set_resources
    assert set(groups) <= RULES and set(settings) <= RULES
    # The rule of methods says itself which of its runs are in the group "runs".
    assert {*groups.values(), "runs"} == set(told.group_components)
    assert "embed" not in groups
    figures = {r for r in RULES if r.startswith("draw_")}
    assert figures <= set(groups) and figures <= set(settings)


def test_jobs_of_a_group_run_in_turn(options):
    told = options("--workflow-profile", "profiles/slurm")
    assert told.resources["in_turn"].value == told.default_resources["in_turn"].value == 1
    assert told.set_resource_scopes == {"in_turn": "local"}
    # A limit here would be one of each job: no method could have more.
    assert set(told.resources) == {"in_turn"}
