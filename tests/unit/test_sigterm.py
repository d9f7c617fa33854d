"""A job that is told to end leaves no temporary folder: only SIGKILL leaves any."""

import os
import signal
import time

import pytest
from tests.processes import alive, number_in, started, wait_for

from morebench import endings

pytestmark = pytest.mark.faults

JOB = """
    import sys, tempfile, time
    from pathlib import Path
    from morebench import job

    class Slow(tempfile.TemporaryDirectory):
        def __exit__(self, *_):
            (Path(self.name) / "removing").write_text("")
            time.sleep({slow})
            super().__exit__(None, None, None)

    def main() -> None:
        with Slow(prefix="morebench-part-") as name:
            (Path(name) / "input.h5ad").write_text("")
            {body}

    sys.argv = ["script"]
    job.run(main)
"""


def job(tmp_path, body="time.sleep(60)", slow=0):
    """Start a job that holds a temporary folder; its TMPDIR is below the test's own folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return started(JOB.format(body=body, slow=slow), TMPDIR=str(folder), OMP_NUM_THREADS="1")


def inside(tmp_path, name):
    return list(tmp_path.glob(f"tmp/morebench-part-*/{name}"))


def test_a_job_that_is_told_to_end_removes_its_folders(tmp_path):
    with job(tmp_path) as process:
        assert wait_for(lambda: inside(tmp_path, "input.h5ad"))
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_second_signal_does_not_disturb_the_first(tmp_path):
    with job(tmp_path, slow=0.5) as process:
        assert wait_for(lambda: inside(tmp_path, "input.h5ad"))
        process.terminate()
        assert wait_for(lambda: inside(tmp_path, "removing"))
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_second_signal_ends_a_job_that_swallowed_the_first(tmp_path):
    body = """
            endings.GRACE_S = 0.2
            try:
                (Path(name) / "ready").write_text("")
                time.sleep(60)
            except SystemExit:
                (Path(name) / "swallowed").write_text("")
            time.sleep(60)
    """
    with job(tmp_path, body="from morebench import endings" + body) as process:
        assert wait_for(lambda: inside(tmp_path, "ready"))
        process.terminate()
        assert wait_for(lambda: inside(tmp_path, "swallowed"))
        time.sleep(0.5)
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_job_that_watches_a_command_ends_it_and_removes_its_folders(tmp_path):
    """One handler inside another, and two signals: the watchdog's stands in the job's."""
    command = f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 60"
    body = f"""
            import os
            from morebench.watchdog import Limits, watch
            limits = Limits(1, 2000, 60)
            watch(["sh", "-c", {command!r}], os.environ, limits, Path(name) / "log", Path(name))
    """
    with job(tmp_path, body=body.strip(), slow=0.5) as process:
        command = number_in(tmp_path / "pid")
        process.terminate()
        assert wait_for(lambda: inside(tmp_path, "removing"))
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
        assert wait_for(lambda: not alive(command), 10)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_handled_the_signal_before_does_so_again():
    def other(number, frame):
        raise AssertionError("not now")

    before = signal.signal(signal.SIGTERM, other)
    try:
        with pytest.raises(SystemExit) as stop, endings.exit_on_sigterm():
            outer = signal.getsignal(signal.SIGTERM)
            with endings.exit_on_sigterm():
                assert signal.getsignal(signal.SIGTERM) is outer
            assert signal.getsignal(signal.SIGTERM) is outer
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        assert stop.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is other
    finally:
        signal.signal(signal.SIGTERM, before)
