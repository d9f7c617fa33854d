"""Processes that end with the one that started them, from their first import on."""

import ast
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from tests.processes import SRC, alive, number_in, started, wait_for

from morebench import endings

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "workflow_scripts").glob("*.py"))

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells a child"),
]


def workflow(tmp_path, command, told=True):
    """Code that starts a job as rules do, in a shell that becomes it, and waits for it."""
    return f"""
        import os, subprocess
        from morebench import endings
        os.environ["PYTHONPATH"] = os.pathsep.join([{str(tmp_path)!r}, {str(SRC)!r}])
        if {told}:
            os.environ[endings.PARENT] = endings.this_process()
        subprocess.run(["bash", "-c", {command!r}])
    """


def modules(tmp_path, **texts):
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))


HELD = """
    import os, time
    from pathlib import Path
    folder = Path(__file__).parent
    (folder / "part").write_text(str(os.getpid()))
    (folder / "part").rename(folder / "pid")
    end = time.monotonic() + 60
    while not (folder / "go").exists() and time.monotonic() < end:
        time.sleep(0.02)
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_script_imports_its_frame_before_all_else(script):
    first = next(n for n in ast.walk(ast.parse(script.read_text()))
                 if isinstance(n, ast.Import | ast.ImportFrom))  # fmt: skip
    assert ast.unparse(first) == "from morebench import job"


def test_a_job_that_is_still_importing_ends_with_snakemake(tmp_path):
    """The script is a rule's own; what it imports second is held."""
    modules(tmp_path, typer=HELD)
    command = f"exec {sys.executable} -P {ROOT}/workflow_scripts/split.py --help"
    with started(workflow(tmp_path, command)) as snakemake:
        job = number_in(tmp_path / "pid")
        assert psutil.Process(job).ppid() == snakemake.pid
        snakemake.kill()
        snakemake.wait(30)
        assert wait_for(lambda: not alive(job), 10)


def test_a_job_whose_snakemake_was_killed_before_it_could_ask_for_a_signal_ends(tmp_path):
    """It is held before its first import, until Snakemake is gone."""
    modules(tmp_path, sitecustomize=HELD, typer="raise AssertionError('it went on')")
    command = f"exec {sys.executable} -P {ROOT}/workflow_scripts/split.py --help 2> {tmp_path}/log"
    with started(workflow(tmp_path, command)) as snakemake:
        job = number_in(tmp_path / "pid")
        snakemake.kill()
        snakemake.wait(30)
        assert alive(job)
        (tmp_path / "go").write_text("")
        assert wait_for(lambda: not alive(job), 10)
    assert (tmp_path / "log").read_text() == ""


def test_a_script_that_is_run_by_hand_goes_on_alone(tmp_path):
    modules(tmp_path, slow=HELD)
    (tmp_path / "script.py").write_text(
        "from morebench import job\nimport slow\nopen('done', 'w').close()\n"
    )
    command = f"cd {tmp_path}; exec {sys.executable} script.py"
    with started(workflow(tmp_path, command, told=False)) as shell:
        script = number_in(tmp_path / "pid")
        shell.kill()
        shell.wait(30)
        (tmp_path / "go").write_text("")
        assert wait_for((tmp_path / "done").exists, 10)
        assert wait_for(lambda: not alive(script), 10)


def code_of(told, shell=False):
    """Run what imports the frame of the scripts and no more; return how it ended."""
    environment = {k: v for k, v in os.environ.items() if k != endings.PARENT}
    environment |= {"PYTHONPATH": str(SRC)} | ({} if told is None else {endings.PARENT: told})
    command = [sys.executable, "-c", "from morebench import job"]
    if shell:
        command = ["bash", "-c", '"$@"; exit $?', "bash", *command]
    return subprocess.run(command, env=environment, timeout=60).returncode


def test_who_is_told_of_its_workflow_and_who_of_another(tmp_path):
    here = endings.this_process()
    assert here.split(" ", 1)[0] == str(os.getpid())
    assert code_of(None) == code_of(here) == 0
    assert code_of(here, shell=True) == 0  # as where a container or a module stands between
    with started("import time; time.sleep(60)") as other:
        told = here.replace(str(os.getpid()), str(other.pid), 1)
        assert code_of(told) == -signal.SIGTERM  # its number was given to somebody else
        assert code_of(told, shell=True) == 128 + signal.SIGTERM
        other.kill()
        assert wait_for(lambda: not alive(other.pid))
        assert code_of(told) == -signal.SIGTERM  # killed, and there until it is waited for
    assert code_of(told) == -signal.SIGTERM
    assert code_of(f"{other.pid} pid:[of another container]") == 0


def test_one_that_may_not_be_looked_at_is_no_proof_of_an_orphan(monkeypatch):
    def hidden(pid):
        raise psutil.AccessDenied(pid)

    assert endings._is_orphan_of(2**22 + 1)  # beyond what Linux numbers
    monkeypatch.setattr(psutil, "Process", hidden)
    assert not endings._is_orphan_of(2**22 + 1)


def test_pip_ends_with_the_job_that_makes_an_environment(tmp_path):
    """The interpreter that makes it is held; only what starts the command passes."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -I ] && exec {sys.executable} "$@"\n'
        f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 60\n"
    )
    python.chmod(0o755)
    (tmp_path / "tiny.yaml").write_text("dependencies:\n- pip:\n  - numpy==1.0\n")
    code = f"""
        import sys
        from pathlib import Path
        from morebench import environments
        from morebench.registry import EnvironmentSpec
        sys.executable = {str(python)!r}
        spec = EnvironmentSpec("tiny", "tiny.yaml", True, ("numpy",))
        environments.ENVIRONMENTS = {{"tiny": spec}}
        environments.interpreter("tiny", root=Path({str(tmp_path)!r}))
    """
    with started(code) as job:
        held = number_in(tmp_path / "pid")
        assert wait_for(lambda: psutil.Process(held).name() == "sleep")
        assert psutil.Process(held).ppid() == job.pid
        job.kill()
        job.wait(30)
        assert wait_for(lambda: not alive(held), 10)


def test_a_bound_command_is_itself_and_passes_its_exit_code_on():
    command = [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(5)", "a b", "-I"]
    done = subprocess.run(endings.bound(command), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (5, "['a b', '-I']\n")
