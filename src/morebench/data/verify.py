"""What a downloaded file should be, and whether it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from morebench.data.archives import CHUNK, open_binary
from morebench.data.kinds import HEAD, check_kind
from morebench.data.lock import Entry, read_lock
from morebench.data.part import Wanted
from morebench.errors import DataError


class Mismatch(DataError):
    """A file is not the one that was expected."""


@dataclass(frozen=True)
class Known:
    """What is known of a file.

    Attributes
    ----------
    wanted
        Its name, size and hash.
    source
        Who says so.
    remedy
        What to do where the file is right and they are not.
    """

    wanted: Wanted
    source: str
    remedy: str


def known_of(name: str, size: int | None, sha256: str | None, lock: Path) -> Known:
    """Return what the configuration (``size``, ``sha256``) and the lock know of a file.

    Raises
    ------
    DataError
        If they contradict each other.
    """
    entry = read_lock(lock).get(name)
    if entry is None:
        remedy = "correct what the configuration expects"
        return Known(Wanted(name, size, sha256), "the configuration", remedy)
    for key, told in (("sha256", sha256), ("size", size)):
        locked = getattr(entry, key)
        if told not in (None, locked):
            raise DataError(
                f"{name}: the configuration expects {key} {told}, {lock} has {locked}; correct "
                f"the one, or delete the entry of {name} in {lock}"
            )
    remedy = f"delete the entry of {name} in {lock}"
    return Known(Wanted(name, entry.size, entry.sha256), str(lock), remedy)


def verify(path: Path, url: str, known: Known) -> Entry:
    """Return what a file is.

    Parameters
    ----------
    path
        The file.
    url
        Where it comes from, for its entry.
    known
        What it should be. Where no hash is known, a gzip file's own checksums are verified.

    Raises
    ------
    Mismatch
        If size or hash are not the known ones.
    DataError
        If the file is not of the kind that its name promises, or damaged.
    """
    wanted, size = known.wanted, path.stat().st_size
    with path.open("rb") as stream:
        check_kind(wanted.name, stream.read(HEAD))
        stream.seek(0)
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if wanted.size not in (None, size) or wanted.sha256 not in (None, sha256):
        expected = [
            *([f"{wanted.size:,} bytes"] if wanted.size is not None else []),
            *([f"sha256 {wanted.sha256}"] if wanted.sha256 is not None else []),
        ]
        raise Mismatch(
            f"{wanted.name}: found {size:,} bytes, sha256 {sha256}; {known.source} expects "
            f"{', '.join(expected)}"
        )
    if wanted.sha256 is None and wanted.name.lower().endswith((".gz", ".tgz")):
        with open_binary(path) as stream:
            while stream.read(CHUNK):
                pass
    return Entry(url, size, sha256)
