"""What has arrived of a file: ``NAME.part``, with its version in ``NAME.part.json``.

Both outlive a killed process, and the next one goes on from there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wanted:
    """What is known of a file: its name below the cache folder; its size and hash, or None."""

    name: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Version:
    """Which version of a file a part is of; None is what the server did not say."""

    url: str
    etag: str | None
    modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """The value of If-Range; a weak ETag does not promise equal bytes."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.modified


def part_of(target: Path) -> Path:
    """Return where a file stands while it arrives."""
    return target.with_name(target.name + ".part")


def _state_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def size_of(part: Path) -> int:
    """Return how many bytes are there, 0 without a part."""
    return part.stat().st_size if part.exists() else 0


def discard(part: Path) -> None:
    """Remove a part, if there is one, and what is known of it."""
    part.unlink(missing_ok=True)
    _state_of(part).unlink(missing_ok=True)


def write_version(part: Path, version: Version) -> None:
    """Write down of which version the part is; a kill in between leaves what reads as none."""
    _state_of(part).write_text(json.dumps(asdict(version)))


def _read_version(part: Path) -> Version | None:
    try:
        return Version(**json.loads(_state_of(part).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return None  # cut off while it was written


def resumable(part: Path, url: str, wanted: Wanted) -> Version | None:
    """Return which version a part is of, or None where the transfer must begin anew.

    Without a known hash, only the same URL with a validator may go on: nothing else could
    tell two versions put together from one.
    """
    version = _read_version(part)
    if version is None or not size_of(part):
        return None
    if wanted.sha256 is None and (version.url != url or version.validator is None):
        return None
    total = wanted.size if wanted.size is not None else version.size
    if total is not None and (version.size not in (None, total) or size_of(part) > total):
        return None
    return version
