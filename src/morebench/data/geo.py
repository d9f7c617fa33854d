"""What lies in GEO's folders: the names of supplementary files, and those that fit a pattern."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import partial
from html import unescape
from urllib.parse import unquote

from morebench.data.lock import Listing, read_listings, write_lock
from morebench.data.remote import geo_folder, mirrored
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import ACCESSION, FILE, VALID_ACCESSION, Downloads, is_pattern
from morebench.data.web import Patience, Refused, Session, check_status, insist, network
from morebench.errors import ConfigError, DataError, listed

LINK = re.compile(r'<a href="([^"/?#]+)"', re.IGNORECASE)
LONGEST = 1 << 24  # bytes of a page that lists files


def _links(session: Session, url: str, timeout: float) -> Listing:
    """Return the files that a folder's page leads to."""
    with network():
        response = session.get(url, stream=True, timeout=timeout)
    with response:
        check_status(response)
        with network():
            page = response.raw.read(LONGEST + 1, decode_content=True)
        sized = {"content-length", "transfer-encoding"} & {
            name.lower() for name in response.headers
        }
    if len(page) > LONGEST:
        raise Refused(f"its page is longer than {LONGEST:,} bytes")
    if not sized and b"</html>" not in page.lower():
        raise Refused("its page states no size and has no end, so that a cut could not be seen")
    names = {unquote(unescape(n)) for n in LINK.findall(page.decode("utf-8", "replace"))}
    names -= {".", ".."}
    if not names:
        raise Refused("has no files")
    return Listing(url, tuple(sorted(names)))


def list_files(accession: str, told: Downloads) -> Listing:
    """Return the supplementary files of a series or a sample, and the folder that has them.

    GEO's own folder is asked first, since a mirror need not have all of it.

    Raises
    ------
    ConfigError
        If the accession is none.
    DataError
        If neither GEO's own folder nor a mirror's can be read and has files.
    """
    if not ACCESSION.fullmatch(accession):
        raise ConfigError(f"{accession!r} is no accession; valid: {VALID_ACCESSION}")
    patience = Patience(told.retries, told.timeout, told.backoff)
    *mirrors, own = mirrored(f"{geo_folder(accession, told.geo)}/", told.mirrors)
    reasons = []
    with Session() as session:
        for url in (own, *mirrors):
            try:
                return insist(partial(_links, session, url, told.timeout), url, patience)
            except Refused as error:
                reasons.append(f"{url}: {error}")
    raise DataError(f"the files of {accession} cannot be listed: {'; '.join(reasons)}")


def _fitting(accession: str, pattern: str, told: Downloads, where: str) -> Listing:
    """Return the files of the folder that fit a pattern."""
    there = list_files(accession, told)
    found = tuple(name for name in there.files if fnmatchcase(name, pattern))
    if not found:
        raise DataError(
            f"{where}: {pattern!r}: no file of {accession} fits; there are {listed(there.files)}"
        )
    odd = [name for name in found if not FILE.fullmatch(name)]
    if odd:
        raise DataError(
            f"{where}: {pattern!r} fits {listed(odd)}; valid: names of letters, digits and . _ + "
            "-; narrow the pattern"
        )
    return Listing(there.url, found)


def with_names(dataset: DatasetConfig, told: Downloads, where: str) -> DatasetConfig:
    """Return a dataset whose GEO files are names, each once: patterns give those that fit.

    What fitted is written into the lock, which says so from then on: files that the series
    gets later change nothing.

    Raises
    ------
    DataError
        If nothing fits a pattern, the folder cannot be read, or, offline, the lock does not
        know a pattern.
    """
    geo, at = dataset.geo, f"{where}.geo.files"
    if geo is None or not any(is_pattern(file) for file in geo.files):
        return dataset
    known = read_listings(told.lock)
    keys = {p: f"geo/{geo.accession}/{p}" for p in geo.files if is_pattern(p)}
    missing = {pattern: key for pattern, key in keys.items() if key not in known}
    if missing and told.offline:
        raise DataError(
            f"{at}: offline, and {told.lock} does not say which files fit {listed(missing)}; "
            f"write their names, as {geo_folder(geo.accession, told.geo)} has them, or run "
            "'morebench download' where there is a network"
        )
    for pattern, key in missing.items():
        known[key] = _fitting(geo.accession, pattern, told, at)
        write_lock(told.lock, {key: known[key]})
    names: list[str] = []
    for file in geo.files:
        fitting = known[keys[file]].files if file in keys else (file,)
        names += [name for name in fitting if name not in names]
    return dataset.model_copy(update={"geo": geo.model_copy(update={"files": names})})
