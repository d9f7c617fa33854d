"""The manifest of a dataset's downloads, read where the files are."""

from __future__ import annotations

from pathlib import Path

from morebench.data.part import Wanted
from morebench.data.verify import Known, Mismatch, verify
from morebench.errors import ContractError, DataError
from morebench.files import read_json

KEYS = ("name", "path", "url", "size", "sha256")


def fetched(manifest: Path) -> list[Path]:
    """Return the paths of the files that ``obtain`` fetched, each verified again.

    Raises
    ------
    DataError
        If one is gone from the cache, or is another one now.
    ContractError
        If the manifest is not one.
    """
    files = read_json(manifest).get("files")
    remedy = f"delete {manifest} to have it fetched again"
    if not isinstance(files, list) or any(set(f) != set(KEYS) for f in files):
        raise ContractError(f"{manifest}: no list of files with {', '.join(KEYS)}; {remedy}")
    paths = []
    for file in files:
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
