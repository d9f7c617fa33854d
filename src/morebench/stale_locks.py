"""The lock of a Snakemake that was killed: known as such, and taken away.

Snakemake locks its outputs, and a lock says nothing of who holds it: after SIGKILL the next run
would wait for ``snakemake --unlock``. So a run whose jobs all end with it writes beside its lock
who it is, and the next one on the same machine removes the lock of a process that is gone.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import psutil

from morebench.files import atomic_path

OWNER = "owner-{pid}.json"


def _machine() -> list[str]:
    """Return what a process number is valid in: host, boot, and namespace where there are any."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return [
        platform.node(),
        boot.read_text().strip() if boot.exists() else "",
        os.readlink(namespace) if namespace.is_symlink() else "",
    ]


def claim(locks: Sequence[str | Path]) -> None:
    """Write beside lock files that this process holds them; nothing where there are none.

    Parameters
    ----------
    locks
        Lock files of one folder, which exist.
    """
    if not locks:
        return
    held = {Path(lock).name: Path(lock).stat().st_mtime_ns for lock in locks}
    owner = {"machine": _machine(), "pid": os.getpid(), "locks": held}
    file = Path(locks[0]).parent / OWNER.format(pid=os.getpid())
    with atomic_path(file, checksum=False) as temporary:
        temporary.write_text(json.dumps(owner))


def release(folder: str | Path) -> list[int]:
    """Remove the locks of processes of this machine that are gone.

    A lock stays that nobody has claimed, that was claimed on another machine or before it
    started anew, that was written again since, or whose process number is taken.

    Parameters
    ----------
    folder
        ``.snakemake/locks`` of the working directory; it need not exist.

    Returns
    -------
    list of int
        The processes whose locks were removed.
    """
    gone = []
    for file in sorted(Path(folder).glob(OWNER.format(pid="*"))):
        try:
            owner = json.loads(file.read_text())
        except FileNotFoundError:
            continue  # the run that held it has just ended
        if owner["machine"] != _machine() or psutil.pid_exists(owner["pid"]):
            continue
        for name, written in owner["locks"].items():
            lock = file.parent / name
            if lock.exists() and lock.stat().st_mtime_ns == written:
                lock.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        gone.append(owner["pid"])
    return gone
