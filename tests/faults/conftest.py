"""One tiny run that nothing disturbs, and a project in which a job stops where a test says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.workflow.conftest import Project

# Of a whole run on a machine that does much else; on two quiet cores it takes 40 s.
LIMIT_S = 1200
PATIENCE_S = 400
# A file is held where a kill is worst: its checksum is there, and the file is not.
HOLD = '''

def _hold(target: Path) -> None:
    """Wait while a test holds this target, and say who waits."""
    import time

    root = Path(__file__).parents[2]
    while (root / "hold").exists() and str(target).endswith((root / "hold").read_text()):
        (root / "held").write_text(f"{os.getpid()} {target}")
        time.sleep(0.02)
'''
CONFIG = """
results: results
seeds: [0]
attempts: 2
evaluation: {seed: 0, n_boot: 100, threads: 1}
datasets:
  tiny:
    bundled: pbmc68k_batches
    batch: batch
    labels: {column: cell_type, source: expert}
    features: {n_top: 60, n_pcs: 5}
    shards: {number: 2}
    tasks: [integration]
methods:
  pca: {n_components: 5}
  more: {backbone: random, steps: 2, min_epochs: 1, n_tokens: 8}
"""
STARTED = re.compile(r"^(?:Job|localjob|local job) ?(\d+): (.+)$", re.M)
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.M)
# What says when and how fast a run was.
OF_THE_CLOCK = ("runtime.tsv", "run.json")


class Faulty(Project):
    """A project whose writes can be held, and whose processes can be found."""

    def __init__(self, root: Path):
        root.mkdir()
        super().__init__(root, yaml.safe_load(CONFIG))
        self.edit(
            "src/morebench/files.py",
            "        os.replace(temporary, target)\n    finally:\n        temporary.unlink",
            "        _hold(target)\n"
            "        os.replace(temporary, target)\n    finally:\n        temporary.unlink",
        )
        self.edit(
            "src/morebench/files.py",
            "        if target.exists():\n            shutil.rmtree(target)",
            "        _hold(target)\n        if target.exists():\n            shutil.rmtree(target)",
        )
        with (self.root / "src/morebench/files.py").open("a") as stream:
            stream.write(HOLD)

    def start(self, *words: str) -> subprocess.Popen:
        """Start Snakemake; what it prints goes to ``run.log``."""
        (self.root / "test.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        command = [sys.executable, "-m", "snakemake", "--configfile", "test.yaml", "--cores", "2"]
        with (self.root / "run.log").open("w") as stream:
            return subprocess.Popen(
                [*command, *words],
                cwd=self.root,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def hold(self, target: str) -> None:
        """Have whoever writes a target, named by the end of its path, wait before it is there."""
        (self.root / "held").unlink(missing_ok=True)
        (self.root / "hold").write_text(target)

    def held(self, running: subprocess.Popen, but: int = 0) -> int:
        """Return the process that waits, another one than ``but``."""

        def waiting() -> int:
            if running.poll() is not None:
                raise AssertionError((self.root / "run.log").read_text())
            file = self.root / "held"
            words = file.read_text().split() if file.exists() else []
            return int(words[0]) if words and int(words[0]) != but else 0

        return wait_for(waiting)

    def let_go(self) -> None:
        (self.root / "hold").unlink(missing_ok=True)
        (self.root / "held").unlink(missing_ok=True)

    def processes(self) -> list[psutil.Process]:
        """Return every process that belongs to this project, by its command or environment."""
        found = []
        for process in psutil.process_iter():
            try:
                told = [*process.cmdline(), *process.environ().values(), process.cwd()]
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if any(str(self.root) in word for word in told):
                found.append(process)
        return found

    def unlock(self) -> None:
        """Do what ``snakemake --unlock`` does (test_kills runs that too), without its start."""
        shutil.rmtree(self.root / ".snakemake" / "locks")

    def tables(self) -> dict[str, bytes]:
        """Return the content of every table but those that hold times."""
        folder = self.root / "results" / "tables"
        return {p.name: p.read_bytes() for p in folder.iterdir() if wanted(p.name)}

    def written(self) -> dict[str, Path]:
        """Return every file of the results that is no log, by its path there."""
        results = self.root / "results"
        files = (p for p in results.rglob("*") if p.is_file() and "logs" not in p.parts)
        return {p.relative_to(results).as_posix(): p for p in sorted(files)}


def wanted(name: str) -> bool:
    return not name.startswith(OF_THE_CLOCK)


def jobs(output: str) -> tuple[set[str], set[str]]:
    """Return the messages of the jobs that a run started, and of those that it finished."""
    started = dict(STARTED.findall(output))
    return set(started.values()), {started[i] for i in FINISHED.findall(output) if i in started}


def wait_for(found: Callable[[], Any]) -> Any:
    """Return what a function gives once it is true; never for longer than the patience."""
    end = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < end, f"waited {PATIENCE_S} s"
        time.sleep(0.02)
    return value


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A finished run, with what Snakemake printed."""
    project = Faulty(tmp_path_factory.mktemp("faults") / "undisturbed")
    done = project.snakemake("--printshellcmds", timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout
    project.output = done.stdout
    return project
