"""Run a method in a process of its own, so that a crash, a kill or a hang is a status."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

import morebench
from morebench import threads
from morebench.child import (
    ABOUT_FILE,
    ALL_GENES_FILE,
    FEATURES_DIR,
    INPUT_FILE,
    LABELS_FILE,
    NO_ROOM,
    PRETRAINED_FILE,
    RESULT_FILE,
    TASK_FILE,
    versions,
)
from morebench.errors import NoRoom
from morebench.files import atomic_directory, copy, read_json, room_for, write_json
from morebench.io.outputs import MODEL_FILE, OUTPUT_FILE, Status, write_status
from morebench.watchdog import Limits, Watched, watch

# Where data and truth stand is none of a method's business.
HIDDEN_VARIABLES = ("PWD", "OLDPWD")
HIDDEN_PREFIX = "MOREBENCH_"
PROBE_BYTES = 2**20  # a disk that lacks them is full


class RetryWithMoreMemory(Exception):
    """The method ran out of memory and the workflow has attempts left."""


def child_environment(n_threads: int, directory: Path, gpu: int = 0) -> dict[str, str]:
    """Return the process environment of a method: its threads, its temporary folder."""
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in HIDDEN_VARIABLES and not k.startswith(HIDDEN_PREFIX)
    }
    environment |= threads.environment(n_threads)
    environment |= {
        "PYTHONPATH": str(Path(morebench.__file__).parents[1]),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(directory),
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(directory)),
    }
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""  # no GPU is used that was not asked for
    return environment


def hardware() -> str:
    """Return the processor, cores, memory and GPUs of this machine in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    memory = psutil.virtual_memory().total / 2**30
    gpus = gpu_models(Path("/proc/driver/nvidia/gpus"))
    return ", ".join([name, f"{psutil.cpu_count()} cores", f"{memory:.0f} GiB", *gpus])


def gpu_models(folder: Path) -> list[str]:
    """Return how many GPUs there are of each model, as NVIDIA's driver lists them in a folder.

    Read from the driver, so that no library is loaded and no GPU is woken.
    """
    told = [p.read_text().splitlines() for p in sorted(folder.glob("*/information"))]
    models = [x.split(":", 1)[1].strip() for lines in told for x in lines if x.startswith("Model:")]
    return [f"{models.count(m)} x {m}" for m in dict.fromkeys(models)]


def verdict(watched: Watched, result: Mapping[str, Any] | None, limits: Limits) -> tuple[str, str]:
    """Return state and reason of a run from how its process ended and what it wrote.

    Reasons stand in tables, which are the same for the same configuration: what was measured
    is in the status.
    """
    if watched.stopped == "memory":
        return (
            "out_of_memory",
            f"resident memory went beyond it: the limit is {limits.mem_mb:.0f} MiB",
        )
    if watched.stopped == "time":
        return "timeout", f"did not end in time: the limit is {limits.wall_s:.0f} s"
    if result is not None:
        return str(result["state"]), str(result["reason"])
    if watched.code < 0:
        name = signal.Signals(-watched.code).name
        # The kernel's out-of-memory killer sends SIGKILL; a small process was not its victim.
        if name == "SIGKILL" and watched.peak_rss_mb > limits.mem_mb / 2:
            return "out_of_memory", f"killed ({name}) beyond half of {limits.mem_mb:.0f} MiB"
        return "failed", f"ended by {name}"
    return "failed", f"exited with code {watched.code} and wrote no result"


def found_no_room(code: int, folder: Path) -> bool:
    """Tell whether a process that wrote no result ended for want of room in its folder.

    It says so, where it can: HDF5, and what is mapped into memory, crash it on a full disk.
    """
    if code not in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT):
        return code == NO_ROOM
    probe = folder / "probe"
    try:
        with room_for(folder), probe.open("wb") as stream:
            stream.write(bytes(PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except NoRoom:
        return True
    finally:
        probe.unlink(missing_ok=True)
    return False


def write_unrun(output: Path, status: Status) -> None:
    """Write the status of a method that could not even be started."""
    status.hardware, status.versions = hardware(), versions([])
    with atomic_directory(output) as directory:
        write_status(directory, status)


def run(
    settings: Mapping[str, Any],
    status: Status,
    *,
    files: Mapping[str, Path],
    labels: tuple[Any, Any] | None,
    output: Path,
    limits: Limits,
    interpreter: Path = Path(sys.executable),
    attempts: int = 1,
) -> Status:
    """Run one method and write ``output``: ``status.json`` always, the output when ok.

    Parameters
    ----------
    settings
        ``config.Method.settings()``.
    status
        Names the run (dataset, split, method, seed, attempt, log); is completed here.
    files
        Names inside the work directory and the files that are copied there.
    labels
        Cell ids and labels that the split shows, for the semi-supervised track.
    attempts
        Attempts in all: before the last one, running out of memory raises.

    Raises
    ------
    RetryWithMoreMemory
        Then nothing is written.
    Damaged
        A file to copy is not what was written.
    NoRoom
        A disk is full, for what is copied or for what the method writes. Nothing is written: it is
        no fault of the method, and the next run tries again.
    """
    from morebench.io.inputs import write_labels

    log = Path(status.log)
    work = Path(tempfile.mkdtemp(prefix="morebench-"))
    try:
        for name, source in files.items():
            with room_for(work / name):
                copy(source, work / name)
        if labels is not None:
            write_labels(work / LABELS_FILE, *labels)
        task = {k: settings[k] for k in ("entry", "outputs", "inductive", "packages", "params")}
        write_json(work / TASK_FILE, {**task, "seed": status.seed, "threads": limits.threads})
        # -P and the work directory: neither modules nor data of the caller's folder are near.
        command = [str(interpreter), "-P", "-m", "morebench.child", str(os.getpid()), str(work)]
        environment = child_environment(limits.threads, work, limits.gpu)
        watched = watch(command, environment, limits, log, work)
        written = work / RESULT_FILE
        result = read_json(written) if written.exists() else None
        if result is None and not watched.stopped and found_no_room(watched.code, work):
            raise NoRoom(
                f"{work.parent}: there is no room for what the method writes there (log: {log}); "
                "nothing of it is left; make room, or set TMPDIR to a folder that has it, and run "
                "again"
            )
        status.state, status.reason = verdict(watched, result, limits)
        status.wall_s = round(watched.wall_s, 3)
        status.cpu_s = round(watched.cpu_s, 3)
        status.peak_rss_mb = round(watched.peak_rss_mb, 1)
        status.threads = limits.threads
        status.params = dict(settings["params"])
        status.hardware = hardware()
        about = work / ABOUT_FILE
        status.versions = read_json(about) if about.exists() else {}  # of a process that was killed
        for key in ("parameters_trained", "parameters_frozen", "notes", "versions", "peak_gpu_mb"):
            if result is not None and key in result:
                setattr(status, key, result[key])
        if status.state == "out_of_memory" and status.attempt < attempts:
            raise RetryWithMoreMemory(status.reason)
        with atomic_directory(output) as directory:
            if status.state == "ok":
                copy(work / OUTPUT_FILE, directory / OUTPUT_FILE)
                if "model" in settings["outputs"]:
                    copy(work / MODEL_FILE, directory / MODEL_FILE)
            write_status(directory, status)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return status


INPUT_NAMES = {
    "input": INPUT_FILE,
    "all_genes": ALL_GENES_FILE,
    "features": FEATURES_DIR,
    "pretrained": PRETRAINED_FILE,
}
