"""Files written whole, each with its SHA-256, and read only while it still has it.

``NAME.sha256`` stands beside a file, ``SHA256SUMS`` inside a directory that was published as
one; both in the format of ``sha256sum``, so ``sha256sum -c`` checks them too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from typing import Any

from morebench.errors import ContractError, Damaged, NoRoom

SIDECAR = ".sha256"
SUMS_FILE = "SHA256SUMS"
TEMPORARY = ".tmp-"
_verified: dict[tuple[Any, ...], str] = {}


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def atomic_path(path: str | Path, *, checksum: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The temporary name keeps the suffixes, since some writers choose a format by them. The
    checksum is there before the file, so a new file is never without it; what a kill between
    the two leaves of an old file is told as damaged, never read.

    Parameters
    ----------
    checksum
        False: write no ``.sha256``, for files that are verified in another way or edited.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        with room_for(target):
            yield temporary
            _sync(temporary)
        os.chmod(temporary, 0o644)
        if checksum:
            _record(target, sha256_file(temporary))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path, *, checksums: bool = True) -> Iterator[Path]:
    """Yield a temporary directory that replaces ``path`` when the block succeeds.

    Parameters
    ----------
    checksums
        True: ``SHA256SUMS`` lists the directory's files, and takes the place of their ``.sha256``.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{TEMPORARY}{target.name}-"))
    try:
        with room_for(target):
            yield temporary
            if checksums:
                _record_all(temporary)
        os.chmod(temporary, 0o755)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def room_for(target: Path) -> Iterator[None]:
    """Say in one line that a disk, a quota or a limit on files leaves no room for a target."""
    try:
        yield
    except NoRoom:
        raise  # it names a file inside the target already
    except Exception as error:  # HDF5 and safetensors tell some by their words alone
        words = " ".join(str(error).split())
        full = [os.strerror(number) for number in (ENOSPC, EDQUOT, EFBIG)]
        if getattr(error, "errno", None) in (ENOSPC, EDQUOT, EFBIG) or any(
            word in words for word in full
        ):
            raise NoRoom(
                f"{target}: there is no room for it ({words}); nothing of it is left; make room "
                "and run again"
            ) from error
        raise


def take_room(path: Path, size: int) -> None:
    """Let a file that is there have so many bytes on the disk, zeros where it had none.

    For what is then written by compiled code, or through memory: there a full disk is no error, but
    the end of the process.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)


def verify(path: str | Path) -> None:
    """Check a file, or all files of a directory, that we wrote against their checksums.

    A process reads a file that has not changed since for this once.

    Raises
    ------
    Damaged
        The content is not what was written, or nothing says what that was.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / SUMS_FILE).exists():
            raise Damaged(
                f"{path}: lacks {SUMS_FILE}, so whether it is whole cannot be told; delete the "
                "folder and run again"
            )
        for file in (path / name for name in _sums(path / SUMS_FILE)):
            if not file.exists():
                raise Damaged(f"{file}: is not there; {_remedy(file, path / SUMS_FILE)}")
            verify(file)
        return
    known = path.stat()
    key = (path.absolute(), known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns)
    recorded, made_with = _recorded(path)
    if key not in _verified:
        _verified[key] = sha256_file(path)
    if _verified[key] != recorded:
        raise Damaged(
            f"{path}: its SHA-256 is {_verified[key]}, {made_with.name} says {recorded}: it was "
            f"damaged or edited since it was written; {_remedy(path, made_with)}"
        )


def copy(source: Path, target: Path) -> None:
    """Copy a file or directory that we wrote, checked and with its checksums."""
    verify(source)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
        _record(target, _recorded(source)[0])


def remove_leftovers(folder: Path, before: float) -> None:
    """Remove what writers that were killed left half written, anywhere in a folder.

    Parameters
    ----------
    before
        Seconds since the epoch: what changed after may be somebody's who works there now.
    """
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        if not path.exists() or path.stat().st_mtime > before:  # or gone with its folder
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_json(path: str | Path, content: Mapping[str, Any], *, checksum: bool = True) -> None:
    """Write JSON with sorted keys, so that equal content is an equal file."""
    with atomic_path(path, checksum=checksum) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path, *, checksum: bool = True) -> dict[str, Any]:
    """Read a JSON object that we wrote.

    Raises
    ------
    Damaged
        It is not what was written.
    ContractError
        It is not there, or no JSON object.
    """
    path = Path(path)
    if not path.exists():
        raise ContractError(f"{path}: is not there")
    if checksum:
        verify(path)
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ContractError(f"{path}: not JSON ({error}); delete it and run again") from error
    if not isinstance(content, dict):
        raise ContractError(f"{path}: holds {type(content).__name__}, expected an object")
    return content


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock; the system frees it when the process ends, however it ends."""
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _temporary(target: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY, suffix=f"-{target.name}")
    os.close(handle)
    return Path(name)


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR)


def _record(target: Path, digest: str) -> None:
    with atomic_path(_sidecar(target), checksum=False) as temporary:
        temporary.write_text(f"{digest}  {target.name}\n")


def _record_all(directory: Path) -> None:
    lines = []
    for path in sorted(p for p in directory.iterdir() if p.suffix != SIDECAR):
        beside = _sidecar(path)
        digest = _sums(beside)[path.name] if beside.exists() else sha256_file(path)
        lines.append(f"{digest}  {path.name}\n")
        beside.unlink(missing_ok=True)
    with atomic_path(directory / SUMS_FILE, checksum=False) as temporary:
        temporary.write_text("".join(lines))


def _sums(path: Path) -> dict[str, str]:
    """Return name: digest of a file in the format of sha256sum; nothing where it is absent."""
    if not path.exists():
        return {}
    lines = path.read_text(errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _recorded(path: Path) -> tuple[str, Path]:
    """Return the digest that a file was written with, and the file that says so."""
    places = (_sidecar(path), path.parent / SUMS_FILE)
    for place in places:
        digest = _sums(place).get(path.name)
        if digest is not None:
            return digest, place
    inside = places[1] if places[1].exists() else places[0]
    raise Damaged(
        f"{path}: neither {places[0].name} nor {SUMS_FILE} beside it has its SHA-256, so whether "
        f"it is whole cannot be told; {_remedy(path, inside)}"
    )


def _remedy(path: Path, made_with: Path) -> str:
    """Say what to delete: one file of a directory that is made as one would not be missed."""
    what = f"the folder {path.parent}" if made_with.name == SUMS_FILE else "it"
    return f"delete {what} and run again"
