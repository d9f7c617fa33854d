"""Which code made a result."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from morebench.errors import MorebenchError, listed

ROOT = Path(__file__).parents[2]

CHANGED = "+changes"
UNKNOWN = "unknown"


def commit(root: Path = ROOT) -> str:
    """Return the git commit of the code (with ``+changes``), or 'unknown' outside a checkout."""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return UNKNOWN
    return head.strip() + (CHANGED if _git(root, "status", "--porcelain", "-uno") else "")


def check_commit(told: str, code: Iterable[str], where: str, root: Path = ROOT) -> None:
    """Refuse code that is not known to be what made a result.

    Parameters
    ----------
    told
        The commit of the result, as ``commit`` gave it then.
    code
        Names of files below ``root``. Where the result was made by a commit without changes, all
        must be of it.
    where
        File and key that say so, for errors.

    Raises
    ------
    MorebenchError
        The checkout is at another commit now, has changes that it had not then (or none where it
        had), or a file is not of the commit.
    """
    found = commit(root)
    if found != told:
        raise MorebenchError(
            f"{where} is {told}, that of the checkout {root} is {found}: its code may not be the "
            "one that made the tables; valid: the checkout as it was then, or snakemake run in "
            "this one with --forcerun aggregate, which makes anew what its code makes otherwise"
        )
    names = None if told == UNKNOWN or told.endswith(CHANGED) else _git(root, "ls-files", "-z")
    more = [] if names is None else sorted(set(code) - set(names.split("\0")))
    if more:
        raise MorebenchError(
            f"{where} is {told}, which lacks {listed(more, 5)} of the checkout {root}; move such "
            "files away, or commit them and run snakemake with --forcerun aggregate"
        )


def origin(told: str) -> str:
    """Say how far the code beside a result is known to be the one that made it."""
    if told == UNKNOWN:
        return "the code as it was when this was written (its commit is not known)"
    if told.endswith(CHANGED):
        of = told.removesuffix(CHANGED)
        return f"the code as it was when this was written (commit {of} with changes, as of the run)"
    return f"the code that made them (commit {told})"


def _git(root: Path, *words: str) -> str | None:
    command = ["git", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or no checkout: a released copy, say


def figure_source(table: Path, config_hash: str) -> dict[str, str]:
    """Return what a figure's metadata says of its origin: table, configuration, commit."""
    return {"table": table.as_posix(), "config": config_hash, "commit": commit()}
