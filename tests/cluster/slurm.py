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
import signal
import socket
import subprocess
import time
from pathlib import Path

CPU_NODE, GPU_NODE = "cpu1", "gpu1"
SYSTEM = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")

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
SchedulerParameters=sched_min_interval=100000,bf_interval=1,defer_batch
SchedulerType=sched/builtin
MpiDefault=none
GresTypes=gpu
MinJobAge=3600
KillWait=2
ReturnToService=2
NodeName={cpu} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=64000
NodeName={gpu} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=64000 \
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
    absent = [c for c in COMMANDS if shutil.which(c, path=_path()) is None]
    if absent:
        return f"no Slurm: {', '.join(absent)} not found (Debian: slurm-wlm, munge)"
    if os.geteuid() != 0:
        return f"a Slurm of our own needs root, to name its configuration in {SYSTEM}"
    there = [str(SYSTEM / f) for f in FILES if (SYSTEM / f).exists()]
    if there:
        return f"this machine has a Slurm already: {', '.join(there)}"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed"
    return ""


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()
