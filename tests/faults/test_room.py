"""A disk without room, as a limit on the size of files: one clear line, nothing half written."""

import resource
import subprocess
import sys

import pytest

from tests.faults.conftest import LIMIT_S, jobs

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.workflow]


def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limited_run(project, target, size):
    """Run Snakemake where no file may be larger than that; return code and output."""
    project.start("--version").wait()  # writes the configuration
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--configfile", "test.yaml", "--cores", "2", target],
        cwd=project.root, preexec_fn=limited(size), capture_output=True, text=True,
        timeout=LIMIT_S,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_counts_that_find_no_room_are_an_error_and_no_crash(faulty, undisturbed):
    """They are written block by block, where HDF5 itself would end the process."""
    project = faulty("counts")
    target = "results/inputs/tiny/all.h5ad"
    assert project.snakemake("results/splits/tiny/all.parquet").returncode == 0
    code, output = limited_run(project, target, (undisturbed.root / target).stat().st_size // 2)
    assert code != 0
    assert f"error: {target}: there is no room for it (" in output, output
    assert "Traceback" not in output
    assert not (project.root / target).exists()
    assert not list((project.root / "results").rglob(".tmp-*"))
    assert project.snakemake(target).returncode == 0
    made, expected = (p.root / target for p in (project, undisturbed))
    assert made.read_bytes() == expected.read_bytes()


def test_a_full_disk_fails_the_job_and_the_next_run_makes_the_file(faulty, undisturbed):
    project = faulty("full")
    target = "results/splits/tiny/all.parquet"
    whole = (undisturbed.root / "results/prepared/tiny.h5mu").stat().st_size
    code, output = limited_run(project, target, whole // 2)
    assert code != 0
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
