"""A disk without room, as a limit on the size of files: one clear line, nothing half written."""

import resource
import subprocess
import sys

import pytest

from tests.faults.conftest import LIMIT_S, Faulty, jobs

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.workflow]


def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_fails_the_job_and_the_next_run_makes_the_file(tmp_path, undisturbed):
    project = Faulty(tmp_path / "full")
    target = "results/splits/tiny/all.parquet"
    whole = (undisturbed.root / "results/prepared/tiny.h5mu").stat().st_size
    project.start("--version").wait()  # writes the configuration
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--configfile", "test.yaml", "--cores", "2", target],
        cwd=project.root, preexec_fn=limited(whole // 2), capture_output=True, text=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error: results/prepared/tiny.h5mu: there is no room for it (" in output, output
    assert "make room and run again" in output
    assert not [n for n in project.written() if n.startswith(("prepared", "truth", "splits"))
                and not n.endswith(".sha256")]  # fmt: skip
    assert not list((project.root / "results").rglob(".tmp-*"))
    again = project.snakemake(target)
    assert again.returncode == 0, again.stdout
    assert jobs(again.stdout)[0] == {"prepare tiny", "split tiny / all"}
    made, expected = (p.root / target for p in (project, undisturbed))
    assert made.read_bytes() == expected.read_bytes()
