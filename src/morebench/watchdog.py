"""A watchdog: a command under limits of resident memory and wall time, its whole tree with it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from morebench.endings import exit_on_sigterm

POLL_S = 0.1


@dataclass(frozen=True)
class Limits:
    """What the process may use: threads, MiB of resident memory, wall seconds, GPUs."""

    threads: int
    mem_mb: float
    wall_s: float
    gpu: int = 0


@dataclass
class Watched:
    """How a process ended: its exit code, what stopped it if we did, and what it took."""

    code: int
    stopped: str
    wall_s: float
    cpu_s: float
    peak_rss_mb: float


def _tree(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []  # it has ended since the last look


def _rss_mb(members: list[psutil.Process]) -> float:
    total = 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # a grandchild that ended between the two looks
    return total / 2**20


def _kill(process: subprocess.Popen[bytes], seen: set[psutil.Process]) -> None:
    """Kill the session's whole group and who left it: no worker outlives its method."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended and left nobody behind
    for member in seen:
        try:
            if member.pid != process.pid:
                member.kill()
        except psutil.NoSuchProcess:
            continue  # as it should be


def watch(
    command: list[str], environment: Mapping[str, str], limits: Limits, log: Path, cwd: Path
) -> Watched:
    """Run a command in a folder under a watchdog on its resident memory and wall time.

    The limit holds for the resident memory of the whole process tree (not for the address
    space, which CUDA and XLA reserve by the terabyte). Output goes to ``log``.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    peak, stopped = 0.0, ""
    seen: set[psutil.Process] = set()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream, exit_on_sigterm():
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            tree = psutil.Process(process.pid)
            while process.poll() is None:
                members = _tree(tree)
                seen.update(members)
                peak = max(peak, _rss_mb(members))
                if peak > limits.mem_mb:
                    stopped = "memory"
                elif time.monotonic() - start > limits.wall_s:
                    stopped = "time"
                if stopped:
                    break
                time.sleep(POLL_S)
        finally:
            _kill(process, seen)
            code = process.wait()
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Watched(code, stopped, wall, cpu, peak)
