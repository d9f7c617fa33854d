"""The lock of downloads: what each file was, and which files fitted, at first use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from morebench.data.spec_source import FILE
from morebench.errors import DataError, listed
from morebench.files import write_json

SHA256 = re.compile(r"[0-9a-f]{64}")


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


@dataclass(frozen=True)
class Listing:
    """The files that fitted a pattern.

    Attributes
    ----------
    url
        The folder that was asked.
    files
        Their names, sorted.
    """

    url: str
    files: tuple[str, ...]


def _check_keys(path: Path, name: str, content: object, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(content, dict) or sorted(content) != sorted(keys):
        raise DataError(f"{path}: {name} holds {content!r}; valid: {', '.join(keys)}, no other key")
    if not isinstance(content["url"], str):
        raise DataError(f"{path}: the url of {name} is {content['url']!r}; valid: text")
    return content


def _entry(path: Path, name: str, content: object) -> Entry:
    found = _check_keys(path, name, content, ("sha256", "size", "url"))
    size, sha256 = found["size"], found["sha256"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise DataError(f"{path}: the size of {name} is {size!r}; valid: a number of bytes, >= 1")
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise DataError(
            f"{path}: the sha256 of {name} is {sha256!r}; valid: 64 lower-case hexadecimal digits"
        )
    return Entry(found["url"], size, sha256)


def _listing(path: Path, name: str, content: object) -> Listing:
    found = _check_keys(path, name, content, ("files", "url"))
    files = found["files"]
    if (
        not isinstance(files, list)
        or not files
        or not all(isinstance(f, str) and FILE.fullmatch(f) for f in files)
        or sorted(set(files)) != files
    ):
        raise DataError(
            f"{path}: the files of {name} are {files!r}; valid: names, sorted, each once"
        )
    return Listing(found["url"], tuple(files))


def _one(path: Path, name: str, content: object) -> Entry | Listing:
    if isinstance(content, dict) and "files" in content:  # names of files may look like patterns
        return _listing(path, name, content)
    return _entry(path, name, content)


def _read(path: Path) -> dict[str, Entry | Listing]:
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
    return {name: _one(path, name, content[name]) for name in sorted(content)}


def read_lock(path: str | Path) -> dict[str, Entry]:
    """Read what the lock says of files; one that is not there yet is empty.

    Parameters
    ----------
    path
        A JSON object: the name of each file below the cache folder, with ``url``, ``size``
        (bytes) and ``sha256``; and each pattern, with ``url`` and ``files``.

    Raises
    ------
    DataError
        If the file cannot be read, or is not of this form.
    """
    return {name: e for name, e in _read(Path(path)).items() if isinstance(e, Entry)}


def read_listings(path: str | Path) -> dict[str, Listing]:
    """Read what the lock says of patterns, as ``read_lock`` of files."""
    return {name: e for name, e in _read(Path(path)).items() if isinstance(e, Listing)}


def write_lock(path: str | Path, entries: Mapping[str, Entry | Listing]) -> None:
    """Add entries to the lock, which other processes may write at the same time.

    An entry that is there already stays as it is. Where nothing is new, nothing is written.

    Raises
    ------
    DataError
        If an entry has another size, hash or files than the one that is there (two first
        uses at once got different ones), or the lock cannot be written.
    """
    path = Path(path)
    if not _missing(path, entries):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.guard")):
            missing = _missing(path, entries)
            if missing:
                known = _read(path) | missing
                content = {name: asdict(known[name]) for name in known}
                write_json(path, content, checksum=False)  # people edit and commit it
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}), and lacks {listed(entries)}; "
            "it must be writable when a file is first used"
        ) from error


def _what(entry: Entry | Listing) -> str:
    """Say what an entry holds its file or pattern to; where that came from is no part of it."""
    if isinstance(entry, Listing):
        return listed(entry.files, len(entry.files))
    return f"{entry.size} bytes with sha256 {entry.sha256}"


def _missing(path: Path, entries: Mapping[str, Entry | Listing]) -> dict[str, Entry | Listing]:
    known = _read(path)
    for name, entry in entries.items():
        other = known.get(name, entry)
        if _what(other) != _what(entry):
            raise DataError(
                f"{name}: {path} says {_what(other)}, found {_what(entry)}; if the source "
                f"changed on purpose, delete the entry of {name} in {path}"
            )
    return {name: entry for name, entry in entries.items() if name not in known}
