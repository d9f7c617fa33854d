"""Processes that tests start, look for and wait for."""

import os
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

from morebench import endings

SRC = Path(__file__).resolve().parents[1] / "src"


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def number_in(file):
    assert wait_for(lambda: file.exists() and file.read_text()), "did not start"
    return int(file.read_text())


@contextmanager
def started(code, **variables):
    """Run code in a Python of its own, of which no Snakemake is known; it is killed at the end."""
    environment = {k: v for k, v in os.environ.items() if k != endings.PARENT}
    environment |= {"PYTHONPATH": str(SRC), **variables}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)
