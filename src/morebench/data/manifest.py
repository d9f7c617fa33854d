"""The manifest of a dataset's downloads, read where the files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morebench.data.lock import read_lock
from morebench.data.part import Wanted
from morebench.data.verify import Known, Mismatch, verify
from morebench.errors import ContractError, DataError
from morebench.files import read_json

KEYS = ("name", "path", "url", "size", "sha256")


def _remedy(manifest: Path) -> str:
    return f"delete {manifest} to have it fetched again"


def _files(manifest: Path) -> list[dict[str, Any]]:
    files = read_json(manifest).get("files")
    if not isinstance(files, list) or any(set(f) != set(KEYS) for f in files):
        keys = ", ".join(KEYS)
        raise ContractError(f"{manifest}: no list of files with {keys}; {_remedy(manifest)}")
    return files


def check_locked(manifest: Path, lock: Path) -> None:
    """Hold what was fetched against the lock, which may have changed since.

    Raises
    ------
    DataError
        If a file was another one than the lock's, or the lock has none of its name.
    ContractError
        As ``fetched``.
    """
    entries = read_lock(lock)
    for file in _files(manifest):
        entry, found = entries.get(file["name"]), (file["size"], file["sha256"])
        if entry is None or (entry.size, entry.sha256) != found:
            says = "has no entry of it"
            if entry is not None:
                says = f"says {entry.size} bytes with sha256 {entry.sha256}"
            raise DataError(
                f"{manifest}: fetched {file['name']}, {found[0]} bytes with sha256 {found[1]}, but "
                f"{lock} {says}; {_remedy(manifest)}"
            )


def fetched(manifest: Path) -> list[Path]:
    """Return the paths of the files that ``obtain`` fetched, each verified again.

    Raises
    ------
    DataError
        If one is gone from the cache, or is another one now.
    ContractError
        If the manifest is not one.
    """
    paths, remedy = [], _remedy(manifest)
    for file in _files(manifest):
        path = Path(file["path"])
        if not path.is_file():
            raise DataError(f"{manifest}: {path} is gone from the cache; {remedy}")
        wanted = Wanted(file["name"], file["size"], file["sha256"])
        try:
            verify(path, file["url"], Known(wanted, str(manifest), remedy))
        except Mismatch as error:
            raise DataError(f"{error}; delete {path} and {manifest} to have it again") from error
        paths.append(path)
    return paths
