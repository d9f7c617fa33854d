"""How processes end: with the one that started them, and with nothing of theirs left behind."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What ``this_process`` returned in Snakemake, for its jobs (rules/common.smk).
PARENT = "MOREBENCH_PARENT"
# In this time after a SIGTERM another one does not disturb what removes folders.
GRACE_S = 10.0


def die_with_parent(number: signal.Signals, parent: int | None = None) -> None:
    """Ask Linux to send this process a signal when its parent dies, so that no orphan runs on.

    Parameters
    ----------
    parent
        The process that started this one, which may have died before it was asked for.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, number)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


def bound(command: Sequence[str]) -> list[str]:
    """Return a command that ends, by SIGKILL, with the process that starts it.

    It asks for that itself before it becomes the command: code between fork and exec could hang a
    process that has threads.
    """
    return [sys.executable, "-I", __file__, str(os.getpid()), *command]


def this_process() -> str:
    """Return the number of this process, and the namespace that it is a number in."""
    return f"{os.getpid()} {_namespace()}"


def follow(workflow: str) -> None:
    """End this process by SIGTERM when Snakemake ends, or where it already has.

    The kernel tells a process of its parent only. Where another one stands between the two, a
    container's say, an end of Snakemake that is still to come is not seen.

    Parameters
    ----------
    workflow
        What ``this_process`` returned in Snakemake.
    """
    die_with_parent(signal.SIGTERM)
    number, _, namespace = workflow.partition(" ")
    if namespace == _namespace() and _is_orphan_of(int(number)):
        os.kill(os.getpid(), signal.SIGTERM)


class _Exit:
    """Handler of a signal: ``SystemExit``, once in the grace period.

    Of ``scancel`` a job gets one signal from the scheduler and one as Snakemake ends.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, number: int, _frame: Any) -> None:
        now = time.monotonic()
        if now - self._last > GRACE_S:
            self._last = now
            raise SystemExit(128 + number)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into ``SystemExit``, so that ``finally`` blocks stop children, remove folders.

    Python's default ends the process where it stands. Compiled code is not interrupted: the exit
    follows when it returns.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if not isinstance(previous, _Exit):  # else the outer one goes on counting
        signal.signal(signal.SIGTERM, _Exit())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _namespace() -> str:
    link = Path("/proc/self/ns/pid")
    return os.readlink(link) if link.is_symlink() else ""


def _is_orphan_of(process: int) -> bool:
    """Whether no ancestor is that process: who loses its parent is given to another one.

    That there is a process of this number says less: one that was killed is there for a while.
    """
    ancestor = os.getppid()
    while ancestor not in (process, 0, 1):
        import psutil

        try:
            ancestor = psutil.Process(ancestor).ppid()
        except psutil.Error:
            return False  # not to be told: one stands between that may not be looked at
    return ancestor != process


if __name__ == "__main__":
    die_with_parent(signal.SIGKILL, int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
