"""Which code made a result."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commit(root: Path = ROOT) -> str:
    """Return the git commit of the code (with ``+changes``), or 'unknown' outside a checkout."""

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(root), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return None  # no git, or no checkout: a released copy, say

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head.strip() + ("+changes" if git("status", "--porcelain", "-uno") else "")


def figure_source(table: Path, config_hash: str) -> dict[str, str]:
    """Return what a figure's metadata says of its origin: table, configuration, commit."""
    return {"table": table.as_posix(), "config": config_hash, "commit": commit()}
