"""What lies in GEO's folders: the names of supplementary files, and those that fit a pattern."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import partial
from html import unescape
from urllib.parse import unquote

from morebench.data.lock import Listing, is_pattern, read_listings, write_lock
from morebench.data.remote import geo_folder, mirrored
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import ACCESSION, FILE, VALID_ACCESSION, Downloads, Geo
from morebench.data.web import Patience, Refused, Session, check_status, insist, network
from morebench.errors import ConfigError, DataError, listed

LINK = re.compile(r'<a href="([^"/?#]+)"', re.IGNORECASE)
LONGEST = 1 << 24  # bytes of a page that lists files


def _links(session: Session, url: str, timeout: float) -> list[str]:
    """Return the names of the files that a folder's page leads to."""
    with network():
        response = session.get(url, stream=True, timeout=timeout)
    with response:
        check_status(response)
        with network():
            page = response.raw.read(LONGEST + 1, decode_content=True)
    if len(page) > LONGEST:
        raise Refused(f"its page is longer than {LONGEST:,} bytes")
    found = LINK.findall(page.decode("utf-8", "replace"))
    if not found:
        raise Refused("has no files")
    return sorted({unquote(unescape(name)) for name in found})


def list_files(accession: str, told: Downloads) -> list[str]:
    """Return the names of the supplementary files of a series or a sample, sorted.

    Raises
    ------
    ConfigError
        If the accession is none.
    DataError
        If neither a mirror's folder nor GEO's own can be read and has files.
    """
    if not ACCESSION.fullmatch(accession):
        raise ConfigError(f"{accession!r} is no accession; valid: {VALID_ACCESSION}")
    patience = Patience(told.retries, told.timeout, told.backoff)
    reasons = []
    with Session() as session:
        for url in mirrored(f"{geo_folder(accession, told.geo)}/", told.mirrors):
            try:
                return insist(partial(_links, session, url, told.timeout), url, patience)
            except Refused as error:
                reasons.append(f"{url}: {error}")
    raise DataError(f"the files of {accession} cannot be listed: {'; '.join(reasons)}")


def _fitting(geo: Geo, pattern: str, told: Downloads, where: str) -> tuple[str, ...]:
    """Return the files that fit a pattern: as the lock has them, else as the folder does."""
    key = f"geo/{geo.accession}/{pattern}"
    locked = read_listings(told.lock).get(key)
    if locked is not None:
        return locked.files
    at = f"{where}.geo.files: {pattern!r}"
    if told.offline:
        raise DataError(
            f"{at}: offline, and {told.lock} does not say which files fit; write their names, "
            f"or run once with a network"
        )
    names = list_files(geo.accession, told)
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise DataError(f"{at}: no file of {geo.accession} fits; there are {listed(names)}")
    odd = [name for name in found if not FILE.fullmatch(name)]
    if odd:
        raise DataError(
            f"{at}: fits {listed(odd)}; valid: names of letters, digits and . _ + -; narrow "
            "the pattern"
        )
    listing = Listing(geo_folder(geo.accession, told.geo), tuple(found))
    write_lock(told.lock, {key: listing})
    return listing.files


def with_names(dataset: DatasetConfig, told: Downloads, where: str) -> DatasetConfig:
    """Return a dataset whose GEO files are names, each once: patterns give those that fit.

    What fitted is written into the lock, which says so from then on: files that the series
    gets later change nothing.

    Raises
    ------
    DataError
        If nothing fits a pattern, the folder cannot be read, or, offline, the lock does not
        know the pattern.
    """
    geo = dataset.geo
    if geo is None or not any(is_pattern(file) for file in geo.files):
        return dataset
    names = [file for file in geo.files if not is_pattern(file)]
    for pattern in geo.files:
        if is_pattern(pattern):
            names += [n for n in _fitting(geo, pattern, told, where) if n not in names]
    return dataset.model_copy(update={"geo": geo.model_copy(update={"files": names})})
