"""The lock of downloaded files: what each of them was when it was first used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from morebench.errors import DataError, listed
from morebench.files import write_json

SHA256 = re.compile(r"[0-9a-f]{64}")
KEYS = ("sha256", "size", "url")


@dataclass(frozen=True)
class Entry:
    """One file of the lock.

    Attributes
    ----------
    url
        Where the file came from when it was first used.
    size
        In bytes.
    sha256
        Of the whole file, 64 lower-case hexadecimal digits.
    """

    url: str
    size: int
    sha256: str


def _entry(path: Path, name: str, content: object) -> Entry:
    if not isinstance(content, dict) or sorted(content) != sorted(KEYS):
        raise DataError(f"{path}: {name} holds {content!r}; valid: {', '.join(KEYS)}, no other key")
    size, sha256, url = content["size"], content["sha256"], content["url"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise DataError(f"{path}: the size of {name} is {size!r}; valid: a number of bytes, >= 1")
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise DataError(
            f"{path}: the sha256 of {name} is {sha256!r}; valid: 64 lower-case hexadecimal digits"
        )
    if not isinstance(url, str):
        raise DataError(f"{path}: the url of {name} is {url!r}; valid: text")
    return Entry(url, size, sha256)


def read_lock(path: str | Path) -> dict[str, Entry]:
    """Read the lock; one that is not there yet is empty.

    Parameters
    ----------
    path
        A JSON object: the name of each file below the cache folder, with ``url``, ``size``
        (bytes) and ``sha256``.

    Raises
    ------
    DataError
        If the file cannot be read, or is not of this form.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(
            f"{path}: not JSON ({error}); restore it, or delete it to trust anew"
        ) from (error)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__}; valid: an object, one key a file")
    return {name: _entry(path, name, content[name]) for name in sorted(content)}


def write_lock(path: str | Path, entries: Mapping[str, Entry]) -> None:
    """Add entries to the lock, which other processes may write at the same time.

    An entry that is there already stays as it is. Where nothing is new, nothing is written.

    Raises
    ------
    DataError
        If an entry has another size or hash than the one that is there (two first uses at
        once got different bytes), or the lock cannot be written.
    """
    path = Path(path)
    if not _missing(path, entries):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.guard")):
            missing = _missing(path, entries)
            if missing:
                known = read_lock(path) | missing
                content = {name: asdict(entry) for name, entry in known.items()}
                write_json(path, content, checksum=False)  # people edit and commit it
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}), and lacks {listed(entries)}; "
            "it must be writable when a file is first used"
        ) from error


def _missing(path: Path, entries: Mapping[str, Entry]) -> dict[str, Entry]:
    known = read_lock(path)
    for name, entry in entries.items():
        other = known.get(name, entry)
        if (other.size, other.sha256) != (entry.size, entry.sha256):
            raise DataError(
                f"{name}: {path} says {other.size} bytes with sha256 {other.sha256}, found "
                f"{entry.size} bytes with {entry.sha256}; if the source changed on purpose, "
                f"delete the entry of {name} in {path}"
            )
    return {name: entry for name, entry in entries.items() if name not in known}
