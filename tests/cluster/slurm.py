"""A Slurm of its own on this machine, as plain processes: a controller and two nodes.

One node has two GPUs, which are ``/dev/null`` and ``/dev/zero``. Keys, sockets, logs and state
are in one folder; only the address of the configuration stands in ``/etc/slurm``, since jobs
forget the variable that names it, and is taken away again.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

CPU_NODE, GPU_NODE = "cpu1", "gpu1"
SYSTEM = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
COMMANDS = (
    "setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel"
)  # fmt: skip

CONFIGURATION = """\
ClusterName=morebench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/builtin
MpiDefault=none
GresTypes=gpu
MinJobAge=3600
KillWait=2
ReturnToService=2
NodeName={cpu} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=64000
NodeName={gpu} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=64000 \
Gres=gpu:fake:2
PartitionName=cpu Nodes={cpu} Default=YES MaxTime=1440
PartitionName=gpu Nodes={gpu} MaxTime=1440
"""

GPUS = """\
NodeName={gpu} Name=gpu Type=fake File=/dev/null
NodeName={gpu} Name=gpu Type=fake File=/dev/zero
"""


def missing() -> str:
    """Return why no Slurm can be started here; empty where one can."""
    absent = [c for c in COMMANDS if _command(c) is None]
    if absent:
        return f"no Slurm: {', '.join(absent)} not found (Debian: slurm-wlm, munge)"
    if os.geteuid() != 0:
        return f"a Slurm of our own needs root, to name its configuration in {SYSTEM}"
    there = [str(SYSTEM / f) for f in FILES if os.path.lexists(SYSTEM / f)]
    if there:
        return f"a Slurm is configured already, or a killed test left it so: {', '.join(there)}"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed"
    return ""


def _command(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Slurm:
    """The running Slurm; a context that starts it and leaves nothing behind."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        self._processes: dict[str, subprocess.Popen] = {}
        self._made: list[Path] = []

    def __enter__(self) -> Slurm:
        try:
            self._write()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._processes and all(p.poll() is None for p in self._processes.values()):
                subprocess.run(["scancel", "--user=root"], capture_output=True, check=False)
                self._wait(lambda: not self.active(), "jobs still run after scancel")
        finally:
            for process in reversed(self._processes.values()):
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for path in reversed(self._made):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def _write(self) -> None:
        names = {"folder": self.folder, "host": self.host, "ports": _free_ports(3)}
        names |= {"cpu": CPU_NODE, "gpu": GPU_NODE}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**names))
        (self.folder / "gres.conf").write_text(GPUS.format(**names))
        for name in ("state", f"spool-{CPU_NODE}", f"spool-{GPU_NODE}"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        if not SYSTEM.exists():
            SYSTEM.mkdir()
            self._made.append(SYSTEM)
        for name in FILES:
            (SYSTEM / name).symlink_to(self.folder / name)
            self._made.append(SYSTEM / name)

    def _start(self) -> None:
        config = ["-D", "-f", str(self.folder / "slurm.conf")]
        files = [
            f"--{o}={self.folder / f'munge{e}'}"
            for o, e in (("socket", ".socket"), ("key-file", ".key"), ("pid-file", ".pid"),
                         ("log-file", ".log"), ("seed-file", ".seed"))
        ]  # fmt: skip
        # Forced: the folder is closed to others, who have no business with the socket.
        self._run("munged", "munged", "--foreground", "--force", *files)
        self._wait((self.folder / "munge.socket").exists, "munged has no socket")
        self._run("slurmctld", "slurmctld", *config)
        for node in (CPU_NODE, GPU_NODE):
            self._run(node, "slurmd", "-N", node, *config)
        self._wait(lambda: self._idle() == {CPU_NODE, GPU_NODE}, "its nodes are not idle")

    def _run(self, name: str, command: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("w") as out:
            self._processes[name] = subprocess.Popen(
                # They end with a test that is killed.
                ["setpriv", "--pdeathsig=TERM", str(_command(command)), *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _idle(self) -> set[str]:
        told = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return set(told.stdout.split())

    def _wait(self, until: Callable[[], bool], failure: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not until():
            ended = [n for n, p in self._processes.items() if p.poll() is not None]
            if ended or time.monotonic() > end:
                outputs = [f"{o.name}:\n{o.read_text()[-2000:]}" for o in self.folder.glob("*.out")]
                raise RuntimeError("\n".join([f"Slurm: {failure}; ended: {ended}", *outputs]))
            time.sleep(0.1)

    def active(self) -> list[str]:
        """Return the states of the jobs that wait or run."""
        told = subprocess.run(
            ["squeue", "--noheader", "--format=%T"], capture_output=True, text=True, check=True
        )
        return told.stdout.split()

    def jobs(self) -> dict[str, dict[str, str]]:
        """Return what the controller recorded of every job, by its number."""
        told = subprocess.run(
            ["scontrol", "show", "jobs", "--oneliner"], capture_output=True, text=True, check=True
        )
        records = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in told.stdout.splitlines()]
        return {r["JobId"]: r for r in records if "JobId" in r}
