"""A Slurm for all tests of this folder, and projects that are submitted to it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.cluster.slurm import Slurm, missing
from tests.workflow.conftest import Project

# The documented profile, but for how often Slurm is asked, and where its partitions are told.
PROFILE = (
    "--workflow-profile", "profiles/slurm",
    "--slurm-partition-config", "partitions.yaml",
    "--slurm-status-command", "squeue",
    "--slurm-init-seconds-before-status-checks", "1",
    "--seconds-between-status-checks", "1",
)  # fmt: skip
LIMITS = {"max_runtime": 1440, "max_mem_mb": 64000, "max_threads": 2}
PARTITIONS = {"partitions": {"cpu": LIMITS, "gpu": {**LIMITS, "max_gpu": 2}}}


class Submitted(Project):
    """A project whose jobs go to Slurm."""

    def start(self, *words: str, **variables: str) -> subprocess.Popen:
        """Start Snakemake with the Slurm profile; both streams go to ``slurm.out``."""
        (self.root / "test.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        (self.root / "partitions.yaml").write_text(yaml.safe_dump(PARTITIONS))
        command = [sys.executable, "-m", "snakemake", "--configfile", "test.yaml", *PROFILE]
        # What runs in a shell's background ignores SIGINT, and so does all that it starts.
        command = ["env", "--default-signal=INT", *command]
        with (self.root / "slurm.out").open("w") as out:
            return subprocess.Popen(
                [*command, *words],
                cwd=self.root,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        """Return what Snakemake printed."""
        return (self.root / "slurm.out").read_text()


@pytest.fixture(scope="session")
def slurm():
    why = missing()
    if why:
        pytest.skip(why)
    # Not below pytest's own folder: a socket's path is at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Slurm(Path(folder)) as running:
        yield running
