"""One tiny run that nothing disturbs, and a project in which jobs stop where a test says."""

from __future__ import annotations

import fnmatch
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import psutil
import pytest
import scipy.sparse as sp
import yaml

from tests.servers import Server
from tests.workflow.conftest import Project

# Of a whole run on a machine that does much else; beside other tests it takes 100 s on two cores.
LIMIT_S = 1200
PATIENCE_S = 400
# A file is held where a kill is worst: its checksum is there, and the file is not.
HOLD = '''

def _hold(target: Path) -> None:
    """Wait while a test holds this target, and say who waits."""
    import time

    root = Path(__file__).parents[2]
    names = (root / "hold").read_text().split() if (root / "hold").exists() else []
    for name in names:
        while str(target).endswith(name) and (root / "hold").exists():
            (root / "held" / name.replace("/", "+")).write_text(str(os.getpid()))
            time.sleep(0.02)
'''
# Every rule of the workflow has a job here.
CONFIG = """
results: results
seeds: [0]
attempts: 2
evaluation: {seed: 0, n_boot: 100, threads: 1}
downloads: {cellxgene: "{url}", cache: cache, lock: data.lock, retries: 0, timeout: 10}
datasets:
  tiny:
    bundled: pbmc68k_batches
    batch: batch
    labels: {column: cell_type, source: expert}
    features: {n_top: 60, n_pcs: 5}
    splits: {lobo: [batch1]}
    shards: {number: 2}
    tasks: [integration, annotation]
  tiny__noise:
    derive: {from: tiny, label_noise: 0.5}
    tasks: [annotation]
    methods: [pca]
  fetched:
    cellxgene: {dataset: 01234567-89ab-cdef-0123-456789abcdef}
    batch: donor_id
    labels: {column: cell_type, source: expert}
    features: &few {n_top: 20, n_pcs: 3, min_cells: 1}
    tasks: []
  table:
    url: ["{url}/counts.csv"]
    read: [{files: counts.csv, format: table, rows: cells, columns: [plate]}]
    batch: plate
    features: *few
    tasks: []
methods:
  pca: {n_components: 5}
  more: {backbone: random, steps: 2, min_epochs: 1, n_tokens: 8}
"""
STARTED = re.compile(r"^(?:Job|localjob|local job) ?(\d+): (.+)$", re.M)
FINISHED = re.compile(r"^Finished jobid: (\d+)", re.M)
# What holds checksums, and what has none since nothing reads it as data.
CHECKSUMS = ("*.sha256", "*/SHA256SUMS")
OTHERS = ("*/.snakemake_timestamp", "*.lock")
# What says when and how fast a run was.
OF_THE_CLOCK = ("runtime.tsv", "run.json")


class Faulty(Project):
    """A project whose writes can be held, and whose processes can be found."""

    def __init__(self, root: Path, url: str):
        root.mkdir()
        super().__init__(root, yaml.safe_load(CONFIG.replace("{url}", url)))
        (self.root / "held").mkdir()
        # The self-test of the metrics, on the dataset of this run and at fewer levels.
        self.edit(
            "src/morebench/selftest/plan.py", 'DATASET = "pbmc68k_batches"', 'DATASET = "tiny"'
        )
        self.edit(
            "src/morebench/selftest/response.py", "(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)", "(0.0, 1.0)"
        )
        self.edit("src/morebench/selftest/response.py", "(0, 1, 2)", "(0,)")
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

    def start(self, *words: str, cores: int = 2) -> subprocess.Popen:
        """Start Snakemake; what it prints goes to ``run.log``."""
        (self.root / "test.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))
        command = [sys.executable, "-m", "snakemake", "--configfile", "test.yaml"]
        with (self.root / "run.log").open("w") as stream:
            return subprocess.Popen(
                [*command, "--cores", str(cores), *words],
                cwd=self.root,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def hold(self, *targets: str) -> None:
        """Have who writes a target, named by the end of its path, wait before it is there."""
        (self.root / "hold").write_text("\n".join(targets))

    def held(self, running: subprocess.Popen, but: Iterable[int] = ()) -> list[int]:
        """Return the processes that wait, one for every held target, other ones than ``but``."""
        names = (self.root / "hold").read_text().split()
        files = [self.root / "held" / name.replace("/", "+") for name in names]

        def waiting() -> list[int]:
            if running.poll() is not None:
                raise AssertionError((self.root / "run.log").read_text())
            found = [int(f.read_text() or 0) for f in files if f.exists()]
            return found if len(set(found) - {0, *but}) == len(files) else []

        return wait_for(waiting)

    def let_go(self) -> None:
        (self.root / "hold").unlink(missing_ok=True)
        for file in (self.root / "held").iterdir():
            file.unlink()

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

    def script_of(self, pid: int) -> str:
        """Return the name of the workflow's script that a process runs."""
        words = psutil.Process(pid).cmdline()
        return next(Path(w).stem for w in words if "workflow_scripts/" in w)

    def tables(self) -> dict[str, bytes]:
        """Return the content of every table but those that hold times."""
        folder = self.root / "results" / "tables"
        return {p.name: p.read_bytes() for p in folder.iterdir() if wanted(p.name)}

    def written(self) -> dict[str, Path]:
        """Return every file of the results that is no log, by its path there."""
        results = self.root / "results"
        files = (p for p in results.rglob("*") if p.is_file() and "logs" not in p.parts)
        return {p.relative_to(results).as_posix(): p for p in sorted(files)}


def covered(name: str) -> bool:
    """Whether a file of the results must be told from a damaged one."""
    return not any(fnmatch.fnmatch(name, p) for p in (*CHECKSUMS, *OTHERS))


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


def lay_out(folder: Path) -> None:
    """Write what the server has: a file of the CELLxGENE schema, and a table of counts."""
    counts = np.random.default_rng(0).poisson(2.0, (60, 30))
    cells = [f"cell{i}" for i in range(60)]
    obs = pd.DataFrame(
        {
            "donor_id": [f"d{i % 2}" for i in range(60)],
            "cell_type": [("T cell", "B cell")[i % 3 // 2] for i in range(60)],
        },
        index=cells,
    )
    var = pd.DataFrame(
        {"feature_name": [f"GENE{j}" for j in range(30)]}, index=[f"ENSG{j}" for j in range(30)]
    )
    folder.mkdir()
    anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var).write_h5ad(
        folder / "01234567-89ab-cdef-0123-456789abcdef.h5ad"
    )
    table = pd.DataFrame(counts, index=cells, columns=var["feature_name"])
    table.insert(0, "plate", [f"p{i % 2}" for i in range(60)])
    table.to_csv(folder / "counts.csv")


@pytest.fixture(scope="session")
def url(tmp_path_factory):
    """The address of a server."""
    folder = tmp_path_factory.mktemp("server") / "files"
    lay_out(folder)
    with Server(folder) as server:
        yield server.url


@pytest.fixture
def faulty(tmp_path, url):
    """Return a function that makes a project of a name."""
    return lambda name: Faulty(tmp_path / name, url)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, url):
    """A finished run, with what Snakemake printed."""
    project = Faulty(tmp_path_factory.mktemp("faults") / "undisturbed", url)
    done = project.snakemake("--printshellcmds", timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout
    project.output = done.stdout
    return project
