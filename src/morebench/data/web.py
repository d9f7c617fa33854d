"""Requests over HTTP: who asks, which faults pass, and how long they are tried again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin

import requests
import urllib3
from urllib3.util.retry import Retry

from morebench import __version__

LOG = logging.getLogger(__name__)
T = TypeVar("T")

TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
MAX_REDIRECTS = 10
MAX_PAUSE = 300.0
# An attempt that brought this much counts as one that gets on: the retries start anew.
GAIN = 1 << 20


class Refused(Exception):
    """A URL will not give what is asked for."""


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
def network() -> Iterator[None]:
    """Tell faults of the network, which pass, from those of the request, which stay.

    Raises
    ------
    Interrupted, Refused
        In place of what requests raises.
    """
    try:
        yield
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):  # what else is one may pass: a cut handshake
            raise Refused(f"no valid certificate ({error})") from error
        raise Interrupted(str(error)) from error
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


def _pause(response: requests.Response) -> float | None:
    try:
        text = response.headers.get("Retry-After")
        return None if text is None else Retry().parse_retry_after(text)
    except urllib3.exceptions.InvalidHeader:
        return None


def check_status(response: requests.Response) -> None:
    """Raise unless the answer is 200: Interrupted for what may pass, Refused for the rest."""
    status = f"HTTP {response.status_code} {response.reason}"
    if response.status_code in TRANSIENT:
        raise Interrupted(status, _pause(response))
    if response.status_code != 200:
        raise Refused(status)


def insist(
    attempt: Callable[[], T], url: str, patience: Patience, there: Callable[[], int] = lambda: 0
) -> T:
    """Return what an attempt returns, made again after each interruption.

    Parameters
    ----------
    attempt
        Raises Interrupted where another one may succeed.
    url
        For the log.
    patience
        ``retries`` counts attempts in a row that brought less than 1 MiB. The pause doubles
        from ``backoff`` to 300 s, unless the server names one (Retry-After).
    there
        Bytes that are there already, of what attempts go on with.

    Raises
    ------
    Refused
        If the attempts are used up, the server asks for too long a pause, or an attempt
        raises it.
    """
    failures, best = 0, there()
    while True:
        try:
            return attempt()
        except Interrupted as error:
            gained = there() - best
            best = max(best, there())
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
