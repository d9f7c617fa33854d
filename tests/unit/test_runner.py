"""The runner with real child processes: every way to end becomes a status.

The child imports a method by its entry. The methods here stand in a folder of the test,
which a patched ``runner.child_environment`` adds to the child's PYTHONPATH.
"""

import json
import os
import platform
import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.processes import alive, wait_for
from tests.seal import names, seal

from morebench import runner, threads
from morebench.config import Method
from morebench.errors import NoRoom
from morebench.files import atomic_directory
from morebench.io.inputs import write_input
from morebench.io.outputs import Status, read_output, read_status
from morebench.registry import METHODS
from morebench.runner import RetryWithMoreMemory, verdict
from morebench.watchdog import Limits, Watched, watch

SRC = Path(runner.__file__).parents[1]
N, G, P = 30, 12, 5
# variables that would tell a method where data and truth stand
OUTSIDE = ("MOREBENCH_DATA", "MOREBENCH_ROOT", "PWD", "OLDPWD")
IDS = np.array([f"c{i + 1:06d}" for i in range(N)], dtype=object)

TOYS = '''
import errno, os, resource, signal, sys, time
from pathlib import Path
import numpy as np
import pandas as pd
from morebench.errors import Unavailable, Unsupported
from morebench.contract import MethodOutput

def _good(data, **more):
    return MethodOutput(embedding=np.ones((data.n_cells, 2), np.float32), **more)

def look(data, *, seed, threads, names, word):
    """Tell what the process sees."""
    print("said on stdout")
    print("said on stderr", file=sys.stderr)
    labels = None if data.labels is None else [v for v in data.labels]
    return _good(data, parameters_trained=7, parameters_frozen=11, notes={
        "environment": {k: os.environ.get(k) for k in names}, "cwd": os.getcwd(),
        "files": sorted(
            p.name for p in Path(os.environ["TMPDIR"]).iterdir() if p.suffix != ".sha256"
        ),
        "labels": labels, "seed": seed, "threads": threads, "word": word,
        "all_genes": str(data.all_genes_file), "path": sys.path,
    })

def boom(data, *, seed, threads):
    raise ValueError("boom\\nover two lines")

def unsupported(data, *, seed, threads):
    raise Unsupported("one batch only")

def unavailable(data, *, seed, threads):
    raise Unavailable("no weights")

def memory_error(data, *, seed, threads):
    raise MemoryError("cannot have 9 TB")

def hungry(data, *, seed, threads):
    kept = bytearray(600 * 2**20)
    kept[:: 4096] = b"x" * len(kept[:: 4096])
    time.sleep(60)

def hang(data, *, seed, threads):
    if "TOY_PID" in os.environ:
        Path(os.environ["TOY_PID"]).write_text(str(os.getpid()))
    time.sleep(60)

def exit_three(data, *, seed, threads):
    os._exit(3)

def polite_exit(data, *, seed, threads):
    sys.exit(0)

def kill_itself(data, *, seed, threads):
    os.kill(os.getpid(), signal.SIGKILL)

def segfault(data, *, seed, threads):
    os.kill(os.getpid(), signal.SIGSEGV)

def transposed(data, *, seed, threads):
    return MethodOutput(embedding=np.ones((2, data.n_cells), np.float32))

def not_finite(data, *, seed, threads):
    return MethodOutput(embedding=np.full((data.n_cells, 2), np.nan))

def nothing(data, *, seed, threads):
    return None

def told_of_a_full_disk(data, *, seed, threads):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scratch.bin")

def limited(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

def finds_no_room(data, *, seed, threads):
    limited(2**16)
    (Path(os.environ["TMPDIR"]) / "scratch.bin").write_bytes(bytes(2**17))

def no_room_for_its_output(data, *, seed, threads):
    limited(2**17)
    return MethodOutput(embedding=np.ones((data.n_cells, 2**14), np.float32))

def no_room_for_its_model(data, *, seed, threads):
    limited(2**17)
    return _good(data, model={"w": np.zeros(2**17, np.float32)})

def no_room_for_a_word(data, *, seed, threads):
    limited(0)
    raise ValueError("of which nobody can be told")

def odd_notes(data, *, seed, threads):
    return _good(data, notes={"loss": float("nan")})
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Toy methods, and an input with and without hidden cells."""
    made = tmp_path_factory.mktemp("runner")
    (made / "toys.py").write_text(TOYS)
    rng = np.random.default_rng(0)
    for name, hidden in (("input", 0), ("hidden", 4)):
        obs = pd.DataFrame(
            {"batch": pd.Categorical(["a", "b"] * 15), "fit_visible": np.arange(N) >= hidden},
            index=IDS,
        )
        data = anndata.AnnData(
            sp.csr_matrix(rng.poisson(2, (N, G)).astype(np.float32)),
            obs=obs,
            var=pd.DataFrame(index=[f"g{i}" for i in range(G)]),
            obsm={"X_pca": rng.normal(size=(N, P)).astype(np.float32)},
        )
        write_input(made / f"{name}.h5ad", data)
    return made


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A temporary folder of its own, to see what is left in it."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.setattr(runner.tempfile, "tempdir", str(path))
    yield path
    assert list(path.iterdir()) == [], "the work directory was not removed"


@pytest.fixture
def call(folder, tmp_path, work, monkeypatch):
    original = runner.child_environment

    def with_toys(threads, directory, gpu=0):
        found = original(threads, directory, gpu)
        return found | {"PYTHONPATH": os.pathsep.join([found["PYTHONPATH"], str(folder)])}

    monkeypatch.setattr(runner, "child_environment", with_toys)

    def run(name, *, limits=(2, 4000, 50), attempt=1, attempts=1, params=None, inductive=False,
            files=None, labels=None, given="input", settings=None):  # fmt: skip
        settings = settings or {
            "entry": f"toys:{name}", "outputs": ["embedding"], "inductive": inductive,
            "packages": ["numpy", "no-such-package"], "params": params or {},
        }  # fmt: skip
        status = Status(
            "data", "all", name, 5, "failed", attempt=attempt, log=str(tmp_path / "log/x.log")
        )
        return runner.run(
            settings,
            status,
            files={runner.INPUT_NAMES["input"]: folder / f"{given}.h5ad", **(files or {})},
            labels=labels,
            output=tmp_path / "out",
            limits=Limits(*limits),
            attempts=attempts,
        )

    return run


def log_of(tmp_path):
    return (tmp_path / "log/x.log").read_text()


# --- a run that is ok ---------------------------------------------------------------------


def test_pca_end_to_end(call, folder, tmp_path):
    method = Method("pca", METHODS["pca"], {"n_components": 3})
    status = call("pca", settings=method.settings())
    assert (status.state, status.reason) == ("ok", ""), log_of(tmp_path)
    assert names(tmp_path / "out") == ["output.h5ad", "status.json"]
    assert read_status(tmp_path / "out") == status
    output = read_output(tmp_path / "out", IDS, G, ["embedding"])
    given = anndata.read_h5ad(folder / "input.h5ad")
    np.testing.assert_array_equal(output.embedding, given.obsm["X_pca"][:, :3])
    for name in ("scikit-learn", "numpy", "scipy", "anndata"):  # all it loaded
        assert status.versions[name] == metadata.version(name)
    assert status.versions["blas"].startswith("openblas ") and "torch" not in status.versions
    assert status.versions["system"] == platform.platform()
    assert status.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert status.params == {"n_components": 3} and status.threads == 2 and status.attempt == 1
    assert 30 < status.peak_rss_mb < 2000 and status.peak_gpu_mb == 0
    assert 0.2 < status.cpu_s < status.wall_s * os.cpu_count() and status.wall_s < 50
    assert "cores" in status.hardware and "GiB" in status.hardware


def test_what_the_process_sees(call, tmp_path, monkeypatch, folder):
    for name in ("MOREBENCH_DATA", "MOREBENCH_ROOT"):
        monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    names = [*threads.VARIABLES, *OUTSIDE, "PYTHONHASHSEED"]
    labels = np.array(["t1" if i < 10 else None for i in range(N)], dtype=object)
    (tmp_path / "prepared").write_text("all genes")
    seal(tmp_path / "prepared")
    status = call(
        "look",
        limits=(3, 4000, 50),
        params={"names": names, "word": "given"},
        labels=(IDS, labels),
        files={runner.INPUT_NAMES["all_genes"]: tmp_path / "prepared"},
    )
    assert status.state == "ok", log_of(tmp_path)
    seen = status.notes
    environment = seen["environment"]
    assert {environment[v] for v in threads.VARIABLES} == {"3"}
    assert {environment[v] for v in OUTSIDE} == {None}
    assert environment["PYTHONHASHSEED"] == "0"
    assert seen["labels"] == list(labels)
    assert (seen["seed"], seen["threads"], seen["word"]) == (5, 3, "given")
    # the work directory is where it stands, and holds what it may see and no more
    assert Path(seen["all_genes"]) == Path(seen["cwd"]) / "all_genes.h5mu"
    given = ["all_genes.h5mu", "input.h5ad", "labels.parquet", "task.json"]
    assert seen["files"] == ["about.json", *given]
    assert "" not in seen["path"] and os.getcwd() not in seen["path"]
    assert (status.parameters_trained, status.parameters_frozen) == (7, 11)
    assert status.versions["no-such-package"] == "not installed"
    assert "said on stdout" in log_of(tmp_path) and "said on stderr" in log_of(tmp_path)


# --- runs that are not --------------------------------------------------------------------


def expect(call, tmp_path, name, state, reason, **more):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/output.h5ad").write_text("of an earlier run")
    status = call(name, **more)
    assert status.state == state and reason in status.reason, log_of(tmp_path)
    assert names(tmp_path / "out") == ["status.json"]
    assert read_status(tmp_path / "out") == status
    return status


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("boom", "failed", "ValueError: boom over two lines"),
        ("unsupported", "unsupported", "one batch only"),
        ("unavailable", "unavailable", "no weights"),
        ("memory_error", "out_of_memory", "MemoryError: cannot have 9 TB"),
        ("exit_three", "failed", "exited with code 3 and wrote no result"),
        ("polite_exit", "failed", "exited with code 0 and wrote no result"),
        ("kill_itself", "failed", "ended by SIGKILL"),
        ("segfault", "failed", "ended by SIGSEGV"),
        ("transposed", "failed", "embedding has shape (2, 30), expected 30 x any"),
        ("not_finite", "failed", "embedding has values that are not finite"),
        ("odd_notes", "failed", "ValueError: Out of range float values are not JSON compliant"),
        ("nothing", "failed", "AttributeError"),
        ("no_such_function", "failed", "has no attribute 'no_such_function'"),
    ],
)
def test_every_failure_is_a_status(call, tmp_path, name, state, reason):
    status = expect(call, tmp_path, name, state, reason)
    assert status.wall_s > 0 and status.peak_rss_mb > 0
    # also of a process that was killed
    assert status.versions["no-such-package"] == "not installed"
    assert {"python", "system"} <= set(status.versions) and "GiB" in status.hardware
    traceback = "Traceback (most recent call last)" in log_of(tmp_path)
    assert traceback == ("Error" in status.reason or "embedding" in reason)


NO_ROOM = {
    "told_of_a_full_disk": "No space left on device: 'scratch.bin'",
    "finds_no_room": "File too large",
    "no_room_for_its_output": "File too large",
    "no_room_for_its_model": "File too large",
    "no_room_for_a_word": "",  # in the log, which is on the same disk
}


@pytest.mark.faults
@pytest.mark.parametrize("name", NO_ROOM)
def test_a_full_disk_is_no_fault_of_the_method(call, work, tmp_path, name):
    """Its job fails, with one line, and writes nothing: the next run makes it."""
    outputs = ["embedding", "model"] if name.endswith("model") else ["embedding"]
    settings = {"entry": f"toys:{name}", "outputs": outputs, "inductive": False, "packages": [],
                "params": {}}  # fmt: skip
    (tmp_path / "log").mkdir()
    with pytest.raises(NoRoom) as stop:
        call(name, settings=settings)
    line = str(stop.value)
    assert line.startswith(f"{work}: there is no room for what the method writes there")
    assert f"log: {tmp_path}/log/x.log" in line and "run again" in line and "\n" not in line
    assert not (tmp_path / "out").exists()
    assert NO_ROOM[name] in log_of(tmp_path)


@contextmanager
def limit_on_files(size):
    """Let no file grow beyond a size, here and in processes that are started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("name", "reason"), [("segfault", None), ("kill_itself", "ended by SIGKILL")]
)
def test_a_crash_on_a_full_disk_is_none_of_the_method(call, work, folder, tmp_path, name, reason):
    with limit_on_files((folder / "input.h5ad").stat().st_size):
        if reason is None:  # as HDF5 does where it cannot write its last bytes
            with pytest.raises(NoRoom, match="there is no room for what the method writes there"):
                call(name)
        else:
            assert call(name).reason == reason
    assert (tmp_path / "out").exists() == (reason is not None)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["input", "features"])
def test_no_room_for_what_a_method_is_given_is_one_line(call, work, folder, tmp_path, name):
    with atomic_directory(tmp_path / "made") as directory:
        (directory / "rows.f16").write_bytes(bytes(2**16))
    files = {runner.INPUT_NAMES["features"]: tmp_path / "made"} if name == "features" else {}
    size = (folder / "input.h5ad").stat().st_size
    with limit_on_files(size - (name == "input")), pytest.raises(NoRoom) as stop:
        call("look", files=files)
    line = str(stop.value)
    assert (
        line.startswith(f"{work}/morebench-") and f"/{runner.INPUT_NAMES[name]}: there is" in line
    )
    assert "File too large" in line and "\n" not in line
    assert not (tmp_path / "out").exists() and not (tmp_path / "log").exists()


@pytest.mark.faults
def test_a_hang_is_a_timeout(call, tmp_path):
    status = expect(call, tmp_path, "hang", "timeout", "the limit is 2 s", limits=(1, 4000, 2))
    assert 2 <= status.wall_s < 6


@pytest.mark.faults
def test_too_much_memory_is_retried_and_then_a_status(call, tmp_path):
    limits = (1, 450, 50)
    with pytest.raises(RetryWithMoreMemory, match="the limit is 450 MiB"):
        call("hungry", limits=limits, attempts=2)
    assert not (tmp_path / "out").exists()
    status = expect(
        call, tmp_path, "hungry", "out_of_memory", "the limit is 450 MiB", limits=limits,
        attempt=2, attempts=2,
    )  # fmt: skip
    assert 450 < status.peak_rss_mb < 1500 and status.attempt == 2 and status.wall_s < 20


def test_hidden_cells_need_an_inductive_method(call, tmp_path):
    reason = "4 cells are not visible to fitting and the method cannot embed cells"
    expect(call, tmp_path, "look", "unsupported", reason, given="hidden",
           params={"names": [], "word": ""})  # fmt: skip


def test_an_inductive_method_gets_hidden_cells(call, tmp_path):
    status = call("look", inductive=True, given="hidden", params={"names": [], "word": ""})
    assert status.state == "ok"


# --- the watchdog, on plain commands --------------------------------------------------------


def watched(tmp_path, code, mem_mb=2000, wall_s=20):
    command = [sys.executable, "-c", textwrap.dedent(code)]
    limits = Limits(1, mem_mb, wall_s)
    return watch(command, dict(os.environ), limits, tmp_path / "log", tmp_path)


SPAWN = """
    import subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", {inner!r}], start_new_session={session})
    print(child.pid, flush=True)
    time.sleep({wait})
"""


@pytest.mark.faults
@pytest.mark.parametrize(
    ("session", "wait"),
    [(False, 0), (True, 0.5)],  # one started too late to be seen; one that left the session
)
def test_workers_do_not_outlive_their_method(tmp_path, session, wait):
    code = SPAWN.format(inner="import time; time.sleep(60)", session=session, wait=wait)
    found = watched(tmp_path, code)
    assert (found.code, found.stopped) == (0, "")
    pid = int((tmp_path / "log").read_text())
    assert wait_for(lambda: not alive(pid), 3)


@pytest.mark.faults
def test_memory_of_workers_counts(tmp_path):
    inner = "kept = b'x' * (300 * 2**20); import time; time.sleep(60)"
    found = watched(tmp_path, SPAWN.format(inner=inner, session=False, wait=60), mem_mb=250)
    assert found.stopped == "memory" and 250 < found.peak_rss_mb < 600 and found.wall_s < 15
    assert wait_for(lambda: not alive(int((tmp_path / "log").read_text())), 3)


def test_cpu_time_is_that_of_the_process_and_not_of_waiting(tmp_path):
    busy = watched(
        tmp_path, "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: 1"
    )
    idle = watched(tmp_path, "import time; time.sleep(0.6)")
    assert 0.55 < busy.cpu_s < 1.5 and idle.cpu_s < 0.4
    assert idle.wall_s > 0.55


def test_the_log_is_continued_and_stdin_is_empty(tmp_path):
    (tmp_path / "log").write_text("before\n")
    watched(tmp_path, "import sys; print(repr(sys.stdin.read()))")
    assert (tmp_path / "log").read_text() == "before\n''\n"


@pytest.mark.faults
@pytest.mark.parametrize(
    ("watched", "result", "expected"),
    [
        (Watched(0, "", 1, 1, 100), {"state": "ok", "reason": ""}, ("ok", "")),
        # it ended while its libraries were unloaded: the result stands
        (Watched(-11, "", 1, 1, 100), {"state": "ok", "reason": ""}, ("ok", "")),
        (Watched(-9, "memory", 1, 1, 1200), {"state": "ok", "reason": ""},
         ("out_of_memory", "resident memory went beyond it: the limit is 1000 MiB")),
        (Watched(-9, "time", 61, 1, 10), None,
         ("timeout", "did not end in time: the limit is 60 s")),
        (Watched(-9, "", 1, 1, 900), None,
         ("out_of_memory", "killed (SIGKILL) beyond half of 1000 MiB")),
        (Watched(-9, "", 1, 1, 400), None, ("failed", "ended by SIGKILL")),
        (Watched(-6, "", 1, 1, 900), None, ("failed", "ended by SIGABRT")),
        (Watched(3, "", 1, 1, 1), None, ("failed", "exited with code 3 and wrote no result")),
    ],
)  # fmt: skip
def test_verdicts(watched, result, expected):
    assert verdict(watched, result, Limits(1, 1000, 60)) == expected


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_parent_leaves_no_orphan(folder, tmp_path, number):
    """SIGTERM also removes the work directory; SIGKILL leaves no one to do so."""
    work = tmp_path / "work"
    work.mkdir()
    driver = textwrap.dedent(
        f"""
        from pathlib import Path
        from morebench import runner
        from morebench.io.outputs import Status
        settings = {{"entry": "toys:hang", "outputs": ["embedding"], "inductive": False,
                    "packages": [], "params": {{}}}}
        inside = runner.child_environment
        runner.child_environment = lambda *given: {{
            **inside(*given), "PYTHONPATH": {f"{SRC}{os.pathsep}{folder}"!r}}}
        runner.run(settings, Status("d", "all", "m", 0, "failed", log={str(tmp_path / "log")!r}),
                   files={{"input.h5ad": Path({str(folder / "input.h5ad")!r})}}, labels=None,
                   output=Path({str(tmp_path / "out")!r}), limits=runner.Limits(1, 4000, 50))
        """
    )
    pid_file = tmp_path / "pid"
    environment = {
        **os.environ, "TMPDIR": str(work), "TOY_PID": str(pid_file), "PYTHONPATH": str(SRC),
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", driver], env=environment)
    try:
        assert wait_for(lambda: pid_file.exists() and pid_file.read_text(), 20), "did not start"
        child = int(pid_file.read_text())
        assert alive(child)
        process.send_signal(number)
        assert process.wait(10) == (128 + number if number == signal.SIGTERM else -number)
        assert wait_for(lambda: not alive(child), 5)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "out").exists()
    if number == signal.SIGTERM:
        assert list(work.iterdir()) == []


def test_the_task_file_is_all_that_a_method_is_told(call, tmp_path, monkeypatch):
    """Neither dataset nor split stand in it: their names could tell."""
    found = {}

    def stop(command, environment, limits, log, cwd):
        found.update(json.loads((cwd / "task.json").read_text()), files=names(cwd))
        return Watched(1, "", 0, 0, 0)

    monkeypatch.setattr(runner, "watch", stop)
    call("look", params={"names": [], "word": "w"})
    assert found == {
        "entry": "toys:look", "outputs": ["embedding"], "inductive": False, "seed": 5,
        "threads": 2, "packages": ["numpy", "no-such-package"],
        "params": {"names": [], "word": "w"}, "files": ["input.h5ad", "task.json"],
    }  # fmt: skip


def test_the_driver_tells_the_models_of_the_gpus(tmp_path):
    for i, model in enumerate(["NVIDIA A100", "NVIDIA H100", "NVIDIA A100"]):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "information").write_text(f"Model: \t\t {model}\nIRQ:   1\n")
    assert runner.gpu_models(tmp_path) == ["2 x NVIDIA A100", "1 x NVIDIA H100"]
    assert runner.gpu_models(tmp_path / "none") == []
