"""What lies in GEO's folders: the names of supplementary files."""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import unquote

import requests

from morebench.data.remote import geo_folder
from morebench.data.spec_source import ACCESSION, VALID_ACCESSION, Downloads
from morebench.data.transfer import Session
from morebench.errors import ConfigError, DataError

LINK = re.compile(r'<a href="([^"/?#]+)"', re.IGNORECASE)


def list_files(accession: str, told: Downloads) -> list[str]:
    """Return the names of the supplementary files of a series or a sample.

    Raises
    ------
    ConfigError
        If the accession is none.
    DataError
        If the folder cannot be read, or has no files.
    """
    if not ACCESSION.fullmatch(accession):
        raise ConfigError(f"{accession!r} is no accession; valid: {VALID_ACCESSION}")
    folder = geo_folder(accession, told.geo) + "/"
    try:
        with Session() as session:
            answer = session.get(folder, timeout=told.timeout)
            answer.raise_for_status()
    except requests.RequestException as error:
        raise DataError(f"{folder}: cannot be read ({error})") from error
    names = sorted({unquote(unescape(name)) for name in LINK.findall(answer.text)})
    if not names:
        raise DataError(f"{folder}: has no files")
    return names
