"""One file from one URL: resumed where it broke off, tried again, never whole too early."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

import requests
import urllib3
from urllib3.util.retry import Retry

from morebench import __version__
from morebench.data.archives import check_space
from morebench.data.kinds import HEAD, check_kind
from morebench.data.part import Version, Wanted, discard, resumable, size_of, write_version
from morebench.errors import DataError

LOG = logging.getLogger(__name__)

CHUNK = 1 << 16
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
MAX_REDIRECTS = 10
MAX_PAUSE = 300.0
# An attempt that brought this much counts as one that gets on: the retries start anew.
GAIN = 1 << 20
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class Refused(Exception):
    """A URL will not give the file."""


class OtherFile(Refused):
    """A URL offers a file of another size than the expected one."""


class Interrupted(Exception):
    """An attempt failed; another one may not.

    Attributes
    ----------
    pause
        Seconds that the server asks to wait; None where it asks for nothing.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class Patience:
    """How long to try: attempts after the first, seconds of silence, seconds of first pause."""

    retries: int
    timeout: float
    backoff: float


class Session(requests.Session):
    """A session that says who asks, and does not follow HTTPS to plain HTTP."""

    def __init__(self) -> None:
        super().__init__()
        self.max_redirects = MAX_REDIRECTS
        self.headers["User-Agent"] = f"morebench/{__version__}"
        # A file is wanted as it lies on the server, since its hash is.
        self.headers["Accept-Encoding"] = "identity"

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where a response leads to, or None."""
        target = super().get_redirect_target(resp)
        if target is not None:
            there = urljoin(resp.url, target)
            if resp.url.startswith("https:") and not there.startswith("https:"):
                raise Refused(f"leads from HTTPS to {there}, which is not protected")
        return target


@contextmanager
def _network() -> Iterator[None]:
    """Tell faults of the network, which pass, from those of the request, which stay."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise Refused(f"no valid certificate ({error})") from error
    except requests.exceptions.TooManyRedirects as error:
        raise Refused(f"redirects more than {MAX_REDIRECTS} times") from error
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
    ) as error:
        first = error.args[0] if error.args else ""  # urllib3 puts the cause behind it
        raise Interrupted(first if isinstance(first, str) and first else str(error)) from error
    except requests.exceptions.RequestException as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _pause(response: requests.Response) -> float | None:
    try:
        text = response.headers.get("Retry-After")
        return None if text is None else Retry().parse_retry_after(text)
    except urllib3.exceptions.InvalidHeader:
        return None


def _check_status(response: requests.Response, part: Path, offset: int) -> None:
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code in TRANSIENT:
        raise Interrupted(status, _pause(response))
    if response.status_code == 416 and offset:
        discard(part)
        raise Interrupted(f"{status}: the file there ends before byte {offset:,}")
    if response.status_code != 200 and not (response.status_code == 206 and offset):
        raise Refused(status)


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
    with _network():
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
                with _network():
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
    with _network():
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
        ``retries`` counts attempts in a row that brought less than 1 MiB. The pause doubles
        from ``backoff`` to 300 s, unless the server names one (Retry-After).
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
    failures, best = 0, size_of(part)
    while True:
        try:
            return _attempt(session, url, part, wanted, patience.timeout, report)
        except Interrupted as error:
            gained = size_of(part) - best
            best = max(best, size_of(part))
            failures = 1 if gained >= GAIN else failures + 1
            if failures > patience.retries:
                raise Refused(f"{error} (attempt {failures})") from error
            pause = min(patience.backoff * 2 ** (failures - 1), MAX_PAUSE)
            if error.pause is not None:
                pause = error.pause
            if pause > MAX_PAUSE:
                raise Refused(f"{error}; asks to wait {pause:,.0f} s") from error
            LOG.warning("%s: %s; again in %.1f s", url, error, pause)
            time.sleep(pause)
