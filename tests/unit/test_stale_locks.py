"""Locks of killed runs: whose they are, and which are taken away."""

import json
import multiprocessing
import os

import pytest

from morebench import stale_locks

pytestmark = pytest.mark.faults


@pytest.fixture
def locks(tmp_path):
    """Two lock files, as Snakemake names them."""
    files = [tmp_path / "0.input.lock", tmp_path / "0.output.lock"]
    for file in files:
        file.write_text("results/a\n")
    return files


def claimed(locks):
    """Have a process claim the locks and end; return its number."""
    process = multiprocessing.get_context("fork").Process(target=stale_locks.claim, args=(locks,))
    process.start()
    process.join()
    assert process.exitcode == 0
    return process.pid


def test_the_lock_of_a_process_that_is_gone_is_removed(locks, tmp_path):
    pid = claimed(locks)
    assert stale_locks.release(tmp_path) == [pid]
    assert not list(tmp_path.iterdir())
    assert stale_locks.release(tmp_path) == []


def test_the_lock_of_a_living_process_stays(locks, tmp_path):
    stale_locks.claim(locks)
    assert stale_locks.release(tmp_path) == []
    assert all(file.exists() for file in locks)
    assert json.loads((tmp_path / f"owner-{os.getpid()}.json").read_text())["pid"] == os.getpid()


def test_a_lock_that_nobody_claimed_stays(locks, tmp_path):
    other = tmp_path / "1.output.lock"
    other.write_text("results/b\n")
    claimed(locks)
    stale_locks.release(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [other.name]


def test_a_lock_that_was_written_again_stays(locks, tmp_path):
    claimed(locks)
    locks[1].unlink()
    locks[1].write_text("results/b\n")
    os.utime(locks[1], ns=(1, 1))
    stale_locks.release(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [locks[1].name]


def test_a_lock_of_another_machine_stays(locks, tmp_path, monkeypatch):
    claimed(locks)
    monkeypatch.setattr(stale_locks.platform, "node", lambda: "elsewhere")
    assert stale_locks.release(tmp_path) == []
    assert all(file.exists() for file in locks)


def test_no_lock_is_no_claim(tmp_path):
    stale_locks.claim([])
    assert stale_locks.release(tmp_path / "none") == []
    assert not list(tmp_path.iterdir())
