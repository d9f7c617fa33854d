"""One method crashes, one exceeds its memory, one hangs: three states, all else unaffected."""

import re
from copy import deepcopy

import pandas as pd
import pytest

from tests.workflow.conftest import Project

pytestmark = [pytest.mark.faults, pytest.mark.workflow, pytest.mark.slow]

METHODS = '''
"""Three ways to fail."""

import os
import signal
import time

from morebench.contract import MethodInput, MethodOutput


def crash(data: MethodInput, *, seed: int, threads: int) -> MethodOutput:
    """Die as a fault in compiled code makes a process die."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hungry(data: MethodInput, *, seed: int, threads: int) -> MethodOutput:
    """Take memory until somebody stops it."""
    kept = []
    while True:
        kept.append(bytearray(b"x" * (50 * 2**20)))
        time.sleep(0.05)


def hang(data: MethodInput, *, seed: int, threads: int) -> MethodOutput:
    """Wait for what never comes, and have a worker do so as well."""
    if os.fork() == 0:
        time.sleep(3600)
    time.sleep(3600)
'''
STATES = {"crash": "failed", "hungry": "out_of_memory", "hang": "timeout"}


def plant(project):
    """Register the three methods in a copy of the project."""
    library = project.root / "src" / "morebench"
    (library / "methods" / "planted.py").write_text(METHODS)
    lines = "".join(
        f'    MethodSpec("{name}", "{name}", "morebench.methods.planted:{name}", "unsupervised", '
        '("embedding",), "a test", "BSD-3-Clause"),\n'
        for name in STATES
    )
    file = library / "registry" / "methods.py"
    text, count = re.subn(r"(?m)^(METHODS: .*by_name\()$", rf"\1\n{lines}", file.read_text())
    assert count == 1
    file.write_text(text)


def test_three_ways_to_fail_are_three_states_and_nothing_else_changes(tmp_path, tiny_config):
    config = deepcopy(tiny_config)
    config["attempts"] = 1
    config["datasets"]["tiny"]["splits"] = {}
    for name in ("alone", "all"):
        (tmp_path / name).mkdir()
    alone = Project(tmp_path / "alone", config)
    config = deepcopy(config)
    config["methods"] |= {
        "crash": {}, "hungry": {"resources": {"mem_mb": 700}},
        "hang": {"resources": {"runtime_min": 1}},
    }  # fmt: skip
    project = Project(tmp_path / "all", config)
    plant(project)
    good = alone.snakemake("results/tables/scores.tsv")
    assert good.returncode == 0, good.stdout
    done = project.snakemake()
    assert done.returncode != 0, done.stdout

    def table(of, name):
        return pd.read_csv(of.root / f"results/tables/{name}.tsv", sep="\t")

    failures = table(project, "failures").drop_duplicates("method").set_index("method")
    assert failures["state"].to_dict() == STATES
    assert "SIGSEGV" in failures.loc["crash", "reason"]
    assert "the limit is 700 MiB" in failures.loc["hungry", "reason"]
    assert "the limit is 60 s" in failures.loc["hang", "reason"]
    manifest = table(project, "manifest")
    for name, state in STATES.items():
        assert set(manifest.loc[manifest["method"] == name, "state"]) == {state}
    scores = table(project, "scores")
    assert scores.loc[scores["method"].isin(STATES), "value"].isna().all()
    rest = scores[~scores["method"].isin(STATES)].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, table(alone, "scores"))
    assert (project.root / "results/report/index.html").exists()
