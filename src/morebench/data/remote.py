"""Files of the web: their addresses, and their names in the cache folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from morebench.data.lock import SHA256
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import Downloads, is_pattern
from morebench.errors import ConfigError, DataError, listed


@dataclass(frozen=True)
class Remote:
    """A file to have in the cache folder.

    Attributes
    ----------
    urls
        First choice, then mirrors of the same file.
    name
        Its path below the cache folder, with ``/``.
    sha256
        Expected hash, 64 lower-case hexadecimal digits, where it is known.
    size
        Expected size in bytes, where it is known.
    """

    urls: tuple[str, ...]
    name: str
    sha256: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if (
            path.is_absolute()
            or ".." in path.parts
            or path.as_posix() != self.name
            or not path.name
        ):
            raise DataError(
                f"name {self.name!r} of a download; valid: a relative path without '.' and '..'"
            )
        if not self.urls:
            raise DataError(f"{self.name}: no URL; valid: one or more")
        for url in self.urls:
            if not url.startswith(("https://", "http://")):
                raise DataError(f"{self.name}: URL {url!r}; valid: https://..., http://...")
        if self.sha256 is not None and not SHA256.fullmatch(self.sha256):
            raise DataError(
                f"{self.name}: sha256 {self.sha256!r}; valid: 64 lower-case hexadecimal digits"
            )


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

    A pattern stands for itself; ``geo.with_names`` replaces it by names before any fetch.

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
    patterns = [f for f in (dataset.geo.files if dataset.geo else []) if is_pattern(f)]
    names = set(files) - set(patterns)
    for file in dataset.sha256:
        fits = not is_pattern(file) and any(fnmatchcase(file, pattern) for pattern in patterns)
        if file not in names and not fits:
            raise ConfigError(f"{where}.sha256: there is no file {file!r}; valid: {listed(files)}")
    return [
        Remote(mirrored(url, told.mirrors), name, dataset.sha256.get(file))
        for (url, name), file in zip(pairs, files, strict=True)
    ]
