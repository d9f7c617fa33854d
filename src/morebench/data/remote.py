"""Datasets from the web: the addresses of their files, fetched, and what was fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from morebench.data.download import Remote, cache_folder, download
from morebench.data.lock import read_lock
from morebench.data.part import Wanted
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import Downloads
from morebench.data.verify import Known, Mismatch, verify
from morebench.errors import ConfigError, DataError, listed


def geo_folder(accession: str, base: str) -> str:
    """Return the URL of a series' or a sample's supplementary files.

    >>> geo_folder("GSE84133", "https://ftp.ncbi.nlm.nih.gov/geo")
    'https://ftp.ncbi.nlm.nih.gov/geo/series/GSE84nnn/GSE84133/suppl'
    """
    kind = "series" if accession.startswith("GSE") else "samples"
    return f"{base}/{kind}/{accession[:3]}{accession[3:-3]}nnn/{accession}/suppl"


def mirrored(url: str, mirrors: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the URLs that a file is tried at: those of mirrors of its address, then its own."""
    found = []
    for start, places in mirrors.items():
        if url == start or url.startswith(f"{start}/"):
            found += [f"{place}{url[len(start) :]}" for place in places]
    return (*found, url)


def _name_of(url: str) -> str:
    """Return where a file of a URL stands below the cache folder: ``url/HOST/PATH``."""
    parts = urlsplit(url)
    path = unquote(parts.path).strip("/")
    query = re.sub(r"[^\w.+-]+", "_", parts.query)
    return f"url/{parts.hostname}/{path}{'_' if query else ''}{query}"


def remotes_of(dataset: DatasetConfig, told: Downloads, where: str) -> list[Remote]:
    """Return the files of a dataset from the web, in the order of its configuration.

    Raises
    ------
    ConfigError
        If a hash is given for a file that the dataset has not, or two files share a name.
    """
    pairs: list[tuple[str, str]] = []
    if dataset.geo is not None:
        folder, accession = geo_folder(dataset.geo.accession, told.geo), dataset.geo.accession
        pairs += [(f"{folder}/{quote(f)}", f"geo/{accession}/{f}") for f in dataset.geo.files]
        pairs += [(url, _name_of(url)) for url in dataset.geo.urls]
    elif dataset.cellxgene is not None:
        file = f"{dataset.cellxgene.dataset}.h5ad"
        pairs.append((f"{told.cellxgene}/{file}", f"cellxgene/{file}"))
    else:
        pairs += [(url, _name_of(url)) for url in dataset.url]
    files = [name.rsplit("/", 1)[-1] for _, name in pairs]
    for file in files:
        if files.count(file) > 1:
            raise ConfigError(f"{where}: two files are called {file!r}; valid: each name once")
    for file in dataset.sha256:
        if file not in files:
            raise ConfigError(f"{where}.sha256: there is no file {file!r}; valid: {listed(files)}")
    return [
        Remote(mirrored(url, told.mirrors), name, dataset.sha256.get(file))
        for (url, name), file in zip(pairs, files, strict=True)
    ]


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
        As ``download.download``.
    """
    remotes, folder, lock = remotes_of(dataset, told, where), cache_folder(told.cache), Path(told.lock)
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


def fetched(files: Sequence[Mapping[str, Any]], manifest: Path) -> list[Path]:
    """Return the paths of files that ``obtain`` fetched, each verified again.

    Raises
    ------
    DataError
        If one is gone from the cache, or is another one now.
    """
    paths = []
    remedy = f"have it fetched again: delete {manifest} and run again"
    for file in files:
        path = Path(file["path"])
        if not path.is_file():
            raise DataError(f"{manifest}: {path} is gone from the cache; {remedy}")
        wanted = Wanted(file["name"], file["size"], file["sha256"])
        try:
            verify(path, file["url"], Known(wanted, str(manifest), remedy))
        except Mismatch as error:
            raise DataError(f"{error}; delete {path}, or, if it is right, {manifest}") from error
        paths.append(path)
    return paths
