"""The files of one dataset, fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morebench.data.download import cache_folder, download
from morebench.data.geo import with_names
from morebench.data.lock import read_lock
from morebench.data.remote import remotes_of
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import Downloads


def obtain(dataset: DatasetConfig, told: Downloads, where: str) -> list[dict[str, Any]]:
    """Fetch a dataset's files into the cache folder, where they are not there yet.

    Returns
    -------
    list of dict
        For each file its ``name`` below the cache folder, ``path``, ``url``, ``size``
        (bytes) and ``sha256``.

    Raises
    ------
    DataError
        As ``geo.with_names`` and ``download.download``.
    ConfigError
        As ``remote.remotes_of``, of the names that patterns gave.
    """
    remotes = remotes_of(with_names(dataset, told, where), told, where)
    folder, lock = cache_folder(told.cache), Path(told.lock)
    paths = download(
        remotes, folder, lock, offline=told.offline, retries=told.retries, timeout=told.timeout,
        backoff=told.backoff,
    )  # fmt: skip
    entries = read_lock(lock)
    return [
        {
            "name": remote.name,
            "path": str(path.absolute()),
            "url": entries[remote.name].url,
            "size": entries[remote.name].size,
            "sha256": entries[remote.name].sha256,
        }
        for remote, path in zip(remotes, paths, strict=True)
    ]
