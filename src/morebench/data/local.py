"""The local files of a dataset: which they are, and whether they are the ones meant."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from morebench.data.members import ARCHIVES, matching, patterns_of
from morebench.data.sources import file_of, local_files
from morebench.data.spec import DatasetConfig, resolve
from morebench.errors import ConfigError, DataError, listed
from morebench.files import sha256_file


def local_sources(dataset: DatasetConfig, where: str) -> list[tuple[str, Path]]:
    """Return the local files that a dataset is read from, and check the names of its hashes.

    Parameters
    ----------
    dataset
        Of any source. What is downloaded is no local file (its manifest has its hash), a table
        of one's own about the cells is.
    where
        The dataset, for errors.

    Returns
    -------
    list of (name, path)
        In the order of the configuration. The name is the file's, of one in a folder its path
        below the folder: the same on every machine.

    Raises
    ------
    DataError
        A file is not there.
    ConfigError
        ``sha256`` names a file that there is not, or two of them.
    """
    found = _counts(dataset, where)
    for number, table in enumerate(dataset.annotation):
        if table.path is not None:
            at = f"{where}.annotation[{number}]"
            path = resolve(table.path, at)
            if not path.is_file():
                raise DataError(f"{at}: there is no file {path} (from {table.path!r})")
            found.append((path.name, path))
    if not dataset.remote:  # those of downloads are checked where downloads are listed
        names = Counter(name for name, _ in found)
        for name in dataset.sha256:
            if names[name] != 1:
                some = f"{names[name]} files are" if names[name] else "no file is"
                raise ConfigError(
                    f"{where}.sha256: {some} called {name!r}; valid: a name that one file has, "
                    f"{listed([n for n in names if names[n] == 1]) or 'of which there are none'}"
                )
    return found


def record_sources(dataset: DatasetConfig, where: str) -> list[dict[str, Any]]:
    """Return what a dataset's local files are, each held against the hash that is given for it.

    Files are read from beginning to end, in pieces: memory does not grow with their size.

    Returns
    -------
    list of dict
        ``name`` (without folders of this machine), ``bytes`` and ``sha256`` of each.

    Raises
    ------
    DataError
        A file is not there, or has another hash.
    ConfigError
        As ``local_sources``.
    """
    pins = {} if dataset.remote else dataset.sha256
    recorded = []
    for name, path in local_sources(dataset, where):
        found, wanted = sha256_file(path), pins.get(name)
        if wanted is not None and found != wanted:
            raise DataError(
                f"{where}.sha256: {path} has the SHA-256 {found}, the configuration says {wanted} "
                f"of {name!r}: it is damaged or another file; restore the one that was meant, or, "
                "if it was changed on purpose, write its new hash into the configuration"
            )
        recorded.append({"name": name, "bytes": path.stat().st_size, "sha256": found})
    return recorded


def _counts(dataset: DatasetConfig, where: str) -> list[tuple[str, Path]]:
    """Return the files of counts, and what is read with them."""
    if dataset.bundled or dataset.remote:
        return []
    if dataset.concat:
        parts = [(p.path, f"{where}.concat[{i}]") for i, p in enumerate(dataset.concat)]
    elif isinstance(dataset.path, dict):
        parts = [(path, f"{where}, {modality}") for modality, path in dataset.path.items()]
    elif dataset.read:
        return _of_folder(dataset, where)
    else:
        parts = [(str(dataset.path), where)]
    several = str(dataset.path).endswith(".h5mu")
    paths = [file_of(path, at, (".h5mu",) if several else (".h5ad",)) for path, at in parts]
    return [(path.name, path) for path in paths]


def _of_folder(dataset: DatasetConfig, where: str) -> list[tuple[str, Path]]:
    """Return the files among those of a path that its patterns, or those of a table, fit."""
    top = resolve(str(dataset.path), where)
    files = local_files(str(dataset.path), where)
    read = {p for pattern in patterns_of(dataset.read, dataset) for p in matching(files, pattern)}
    read |= {p for p in files if p.name.lower().endswith(ARCHIVES)}
    return [
        (p.relative_to(top).as_posix() if top.is_dir() else p.name, p) for p in files if p in read
    ]
