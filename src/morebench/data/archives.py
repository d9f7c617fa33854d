"""Compressed files and archives of others, opened without trust in what they claim."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from morebench.errors import DataError, listed
from morebench.files import atomic_directory

GZIP = b"\x1f\x8b"
MAX_BYTES = 1 << 40
# Count matrices written as text shrink some 60-fold at most; deflate ends at 1032.
MAX_RATIO = 250.0
# What comes out of a small file may be a run of zeros, and harms nobody.
RATIO_FREE = 1 << 24
CHUNK = 1 << 20


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise DataError unless the file system of ``folder`` has ``needed`` bytes free.

    The folder need not be there yet.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{what} needs {needed:,} bytes in {folder}, where {free:,} are free; "
            "make room, or name another folder"
        )


class _Inflated(io.RawIOBase):
    """What stands in a gzip file, up to a limit; every fault of the file is a DataError."""

    def __init__(self, path: Path, stream: IO[bytes], max_bytes: int, max_ratio: float) -> None:
        self._path = path
        self._inner = gzip.GzipFile(fileobj=stream)
        self._packed = os.fstat(stream.fileno()).st_size
        self._max_bytes = max_bytes
        self._max_by_ratio = max(RATIO_FREE, int(max_ratio * self._packed))
        self._max_ratio = max_ratio
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self._inner.read1(len(buffer))
        except EOFError as error:
            raise DataError(
                f"{self._path}: the gzip file is cut short after {self._packed:,} bytes; "
                "get it again"
            ) from error
        except (OSError, zlib.error) as error:
            raise DataError(f"{self._path}: damaged gzip file ({error}); get it again") from error
        self._count += len(data)
        if self._count > self._max_bytes:
            raise DataError(
                f"{self._path}: holds more than {self._max_bytes:,} bytes once decompressed, "
                "the most that is read"
            )
        if self._count > self._max_by_ratio:
            raise DataError(
                f"{self._path}: its {self._packed:,} bytes hold more than {self._max_by_ratio:,}; "
                f"valid: at most {self._max_ratio:g} times the file (a gzip bomb?)"
            )
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_binary(
    path: str | Path, *, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO
) -> Iterator[IO[bytes]]:
    """Open a plain or a gzip file for reading; its first bytes tell which, not its name.

    Parameters
    ----------
    path
        The file.
    max_bytes
        The most that may come out of it.
    max_ratio
        The most that may come out of a gzip file, over its size; the first 16 MiB are free.

    Yields
    ------
    A buffered stream of bytes. That of a gzip file cannot seek.

    Raises
    ------
    DataError
        On a file beyond a limit, and, where reading gets there, on a gzip file that is cut
        short or damaged.
    """
    path = Path(path)
    with path.open("rb") as stream:
        if stream.read(len(GZIP)) == GZIP:
            stream.seek(0)
            yield io.BufferedReader(_Inflated(path, stream, max_bytes, max_ratio), CHUNK)
            return
        size = os.fstat(stream.fileno()).st_size
        if size > max_bytes:
            raise DataError(f"{path}: holds {size:,} bytes; at most {max_bytes:,} are read")
        stream.seek(0)
        yield stream


class _Member(tarfile.TarInfo):
    """A member; where tarfile takes a cut or damaged header for the end, this is an error."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        """Read a header; a block of zeros is the proper end of an archive."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError(str(error)) from error


def _inside(archive: Path, name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(
            f"{archive}: the member {name!r} leads out of the archive; nothing was unpacked "
            "(valid: relative names without '..')"
        )
    return path.as_posix()


def _copy(archive: Path, source: IO[bytes], target: Path, name: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            shutil.copyfileobj(source, out, CHUNK)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"{archive}: the member {name!r} is there twice") from error


def unpack(
    archive: str | Path,
    folder: str | Path,
    *,
    keep: Callable[[str], bool] = lambda name: True,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
) -> list[Path]:
    """Unpack a tar archive, plain or gzip, into a folder that appears complete or not at all.

    Owners, modes and times of the archive are left out.

    Parameters
    ----------
    archive
        The tar file.
    folder
        What it is unpacked into; one that is there is replaced.
    keep
        Which members: called with each name (``/`` between parts, no leading ``./``).
    max_bytes, max_ratio
        Limits on the whole archive, as in ``open_binary``.

    Returns
    -------
    list of Path
        The unpacked files, sorted.

    Raises
    ------
    DataError
        If the archive is damaged or beyond a limit, a member's name leads out of the folder
        or is there twice, a kept member is no plain file (a link, a device), the disk has
        no room, or nothing is kept.
    """
    archive, folder = Path(archive), Path(folder)
    names: list[str] = []
    seen: list[str] = []
    with (
        open_binary(archive, max_bytes=max_bytes, max_ratio=max_ratio) as stream,
        atomic_directory(folder, checksums=False) as temporary,
    ):
        try:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                for member in tar:
                    name = _inside(archive, member.name)
                    if member.size < 0:
                        raise tarfile.ReadError(f"{name!r} has {member.size} bytes")
                    seen.append(name)
                    if member.isdir() or not keep(name):
                        continue
                    source = tar.extractfile(member) if member.isreg() else None
                    # A sparse member claims bytes that the archive does not hold.
                    if source is None or member.issparse():
                        raise DataError(
                            f"{archive}: the member {name!r} is a link, a device or a sparse "
                            "file; nothing was unpacked (valid: plain files)"
                        )
                    check_space(folder, member.size, f"{archive}: {name}")
                    _copy(archive, source, temporary / name, name)
                    names.append(name)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{archive}: damaged tar archive ({error}); get it again") from error
        if not names:
            raise DataError(f"{archive}: no member was asked for; it has {listed(seen)}")
    return sorted(folder / name for name in names)
