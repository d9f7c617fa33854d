"""Gzip files of kinds whose libraries must seek."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morebench.data.archives import CHUNK, GZIP, open_binary
from morebench.files import room_for


def is_gzip(path: Path) -> bool:
    """Tell whether a file is compressed by gzip, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(len(GZIP)) == GZIP


@contextmanager
def seekable(path: Path) -> Iterator[Path]:
    """Yield the path of a plain file: itself, or what a gzip file holds, while it is needed."""
    if not is_gzip(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.name.removesuffix(".gz")
        with room_for(plain), open_binary(path) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
        yield plain
