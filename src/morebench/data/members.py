"""The files of a source: those given, and the members of archives among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from morebench.data.archives import unpack
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import Read
from morebench.errors import DataError, listed

ARCHIVES = (".tar", ".tar.gz", ".tgz")


def matching(files: Iterable[Path], pattern: str) -> list[Path]:
    """Return the files whose name, without folders, fits a pattern (``*``, ``?``, ``[0-9]``)."""
    return [f for f in files if fnmatchcase(f.name, pattern)]


def one_matching(files: Sequence[Path], pattern: str, where: str) -> Path:
    """Return the only file that fits a pattern; DataError for none or several."""
    found = matching(files, pattern)
    if len(found) != 1:
        names = listed(sorted(f.name for f in found or files))
        raise DataError(f"{where}: {len(found)} files fit {pattern!r}, expected one; {names}")
    return found[0]


def patterns_of(entries: Sequence[Read], dataset: DatasetConfig) -> list[str]:
    """Return the patterns of all files that a dataset's reading needs."""
    found = [a.file for a in dataset.annotation if a.file is not None]
    for entry in entries:
        found.append(entry.files)
        if entry.names is not None:
            found.append(entry.names.file)
        if entry.format == "mtx":
            found += [entry.barcodes] if entry.barcodes else ["*barcodes*"]
            found += [entry.features] if entry.features else ["*features*", "*genes*"]
    return found


def members_of(files: Sequence[Path], patterns: Sequence[str], scratch: Path) -> list[Path]:
    """Return the files, with archives replaced by their members of some names.

    Parameters
    ----------
    files
        Files, archives among them (``.tar``, ``.tar.gz``, ``.tgz``).
    patterns
        Members of other names stay packed.
    scratch
        Folder that archives are unpacked into.

    Raises
    ------
    DataError
        If an archive is damaged or not to be trusted, or has no member of these names.
    """
    found = []
    for number, file in enumerate(files):
        if file.name.lower().endswith(ARCHIVES):
            keep = scratch / str(number)
            found += unpack(
                file, keep, keep=lambda name: any(matching([Path(name)], p) for p in patterns)
            )
        else:
            found.append(file)
    return found
