"""Files of a cache: written whole or not at all, by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from morebench.errors import ContractError

_BLOCK = 1 << 22


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block succeeds."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; anything else raises ContractError."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ContractError(f"{path}: is not there") from error
    except ValueError as error:
        raise ContractError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ContractError(f"{path}: holds {type(content).__name__}, expected an object")
    return content


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock; the system frees it when the process ends, however it ends."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    hashed = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()
