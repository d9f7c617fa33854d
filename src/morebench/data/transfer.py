"""One file from one URL: resumed where it broke off, tried again, never whole too early."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import requests

from morebench.data.archives import check_space
from morebench.data.kinds import HEAD, check_kind
from morebench.data.part import Version, Wanted, discard, resumable, size_of, write_version
from morebench.data.web import (
    Interrupted,
    Patience,
    Refused,
    Session,
    check_status,
    insist,
    network,
)
from morebench.errors import DataError

CHUNK = 1 << 16
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class OtherFile(Refused):
    """A URL offers a file of another size than the expected one."""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _check_status(response: requests.Response, part: Path, offset: int) -> None:
    if response.status_code == 416 and offset:
        discard(part)
        raise Interrupted(f"HTTP 416: the file there ends before byte {offset:,}")
    if response.status_code != 206 or not offset:
        check_status(response)


def _check_range(response: requests.Response, part: Path, url: str, old: Version) -> int | None:
    """Return the whole file's size; what is offered must go on where the part ends."""
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    etag = response.headers.get("ETag")
    start, total = (int(g) for g in found.groups()) if found else (None, None)
    same = old.url != url or old.etag is None or etag in (None, old.etag)
    if start != size_of(part) or old.size not in (None, total) or not same:
        discard(part)
        raise Interrupted("the file there changed while it was fetched")
    return total


def _check_offer(response: requests.Response, wanted: Wanted, total: int | None) -> None:
    coding = response.headers.get("Content-Encoding", "identity").lower()
    gz = wanted.name.lower().endswith((".gz", ".tgz"))  # some servers name a .gz file's own coding
    if coding != "identity" and not (gz and coding in ("gzip", "x-gzip")):
        raise Refused(f"sends the file in another form (Content-Encoding: {coding})")
    if total is None:
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if not chunked and wanted.size is None and wanted.sha256 is None:
            raise Refused("states no size, so that a cut could not be seen; give size or sha256")
    elif wanted.size not in (None, total):
        expected = f"{wanted.size:,} (sha256 {wanted.sha256 or 'not known'})"
        raise OtherFile(f"{wanted.name}: offers {total:,} bytes, expected {expected}")


def _write(
    response: requests.Response, part: Path, offset: int, wanted: Wanted, version: Version,
    report: Callable[[int, int | None], None],
) -> None:  # fmt: skip
    """Append the body to the part; what arrived before a fault stays there."""
    total = version.size
    with network():
        chunks = response.raw.stream(CHUNK, decode_content=False)
        first = next(chunks, b"")
    if not offset and (len(first) >= HEAD or len(first) == total):
        try:
            check_kind(wanted.name, first[:HEAD])
        except DataError as error:
            kind = response.headers.get("Content-Type", "no Content-Type")
            raise Refused(f"{error} ({kind})") from error
    _check_offer(response, wanted, total)
    if total is not None:
        check_space(part.parent, total - offset, wanted.name)
    done = offset
    try:
        with part.open("ab" if offset else "wb") as out:
            write_version(part, version)
            while first:
                out.write(first)
                done += len(first)
                report(done, total)
                if wanted.size is not None and done > wanted.size:
                    discard(part)
                    raise OtherFile(f"sends more than the expected {wanted.size:,} bytes")
                with network():
                    first = next(chunks, b"")
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise DataError(
            f"{part}: cannot be written ({error.strerror}); make room and run again: "
            "it goes on from what is there"
        ) from error


def _attempt(
    session: Session, url: str, part: Path, wanted: Wanted, timeout: float,
    report: Callable[[int, int | None], None],
) -> bool:  # fmt: skip
    """Fetch what the part lacks; return whether something of it was there before."""
    old = resumable(part, url, wanted)
    offset = size_of(part) if old else 0
    if old and offset == (wanted.size if wanted.size is not None else old.size):
        return True
    headers = {}
    if old:
        headers["Range"] = f"bytes={offset}-"
        if old.url == url and old.validator is not None:
            headers["If-Range"] = old.validator
    with network():
        response = session.get(url, headers=headers, stream=True, timeout=timeout)
    with response:
        _check_status(response, part, offset)
        total = _number(response.headers.get("Content-Length"))
        if old and response.status_code == 206:
            total = _check_range(response, part, url, old)
        else:
            offset = 0  # the server sends all of it
        version = Version(
            url, response.headers.get("ETag"), response.headers.get("Last-Modified"), total
        )
        try:
            _write(response, part, offset, wanted, version, report)
        except Interrupted as error:
            where = f"byte {size_of(part):,} of {'unknown' if total is None else f'{total:,}'}"
            raise Interrupted(f"broke off at {where}: {error}") from error
    if total is not None and size_of(part) < total:
        raise Interrupted(f"ended at byte {size_of(part):,} of {total:,}")
    return offset > 0


def fetch(
    session: Session, url: str, part: Path, wanted: Wanted, patience: Patience,
    report: Callable[[int, int | None], None],
) -> bool:  # fmt: skip
    """Fetch a file from a URL into its part, going on from what is there.

    Parameters
    ----------
    session
        Of this process.
    url
        http or https.
    part
        ``part_of`` the target.
    wanted
        What is known of the file. A size is enforced here; the hash only says whether a part
        without a validator may be gone on with: the caller compares it.
    patience
        As in ``web.insist``.
    report
        Called with the bytes that are there and the whole size (None: unknown).

    Returns
    -------
    bool
        Whether the part was put together from more than one transfer.

    Raises
    ------
    Refused
        If this URL will not give the file.
    DataError
        If the disk has no room.
    """
    return insist(
        lambda: _attempt(session, url, part, wanted, patience.timeout, report),
        url, patience, there=lambda: size_of(part),
    )  # fmt: skip
