"""A disk without room: one clear line, nothing half written, and the next run goes on.

As a limit on the size of files, and as a small file system that fills up in stage after stage.
"""

import contextlib
import resource
import subprocess
import sys

import pytest

from morebench.files import read_json, sha256_file, verify
from tests.faults.conftest import LIMIT_S, PATIENCE_S, covered, jobs

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.workflow]


def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limited_run(project, target, size):
    """Run Snakemake where no file may be larger than that; return code and output."""
    project.start("--version").wait(PATIENCE_S)  # writes the configuration
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


@contextlib.contextmanager
def small_disk(folder):
    """Mount a file system in memory at a folder; yields a function that sets its bytes."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a file system of its own size needs the right to mount one")

    def resize(n_bytes):
        subprocess.run(["mount", "-o", f"remount,size={n_bytes}", folder], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def used(folder):
    return sum(512 * p.lstat().st_blocks for p in folder.rglob("*"))


def test_a_disk_that_fills_up_stage_after_stage(faulty, undisturbed):
    """Each time there is a little more room, and the run comes further, until it is done."""
    project = faulty("disk")
    results, whole = project.root / "results", used(undisturbed.root / "results")
    finished = set()
    with small_disk(results) as resize:
        for percent in (20, 50, 80):
            resize(whole * percent // 100)
            run = project.snakemake(timeout=LIMIT_S)
            started, done = jobs(run.stdout)
            assert run.returncode != 0, f"{percent} % of the room was enough"
            assert not started & finished, f"{percent} %: what was finished ran again"
            finished |= done
            assert not list(results.rglob(".tmp-*"))
            for name, file in project.written().items():
                # a cache of features has its hash, or those of its chunks, in its JSON
                if covered(name) and not name.startswith("features/cache/"):
                    verify(file)
            for file in results.glob("features/cache/*/*.features.json"):
                assert sha256_file(file.with_suffix(".f16")) == read_json(file)["sha256"]
        assert len(finished) > 10
        resize(2 * whole)
        run = project.snakemake(timeout=LIMIT_S)
        assert run.returncode == 0, run.stdout
        assert finished | jobs(run.stdout)[0] == jobs(undisturbed.output)[0]
        assert project.tables() == undisturbed.tables()
        assert sorted(project.written()) == sorted(undisturbed.written())
