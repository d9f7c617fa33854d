"""What a file must begin with, by its name: an error page is no data."""

from __future__ import annotations

from pathlib import PurePosixPath

from morebench.errors import DataError

HEAD = 1024
HDF5 = (0, b"\x89HDF\r\n\x1a\n")
ZIP = (0, b"PK")
# suffix -> (offset, bytes)
MAGIC = {
    ".bz2": (0, b"BZh"),
    ".gz": (0, b"\x1f\x8b"),
    ".h5": HDF5,
    ".h5ad": HDF5,
    ".h5mu": HDF5,
    ".hdf5": HDF5,
    ".loom": HDF5,
    ".tar": (257, b"ustar"),
    ".tgz": (0, b"\x1f\x8b"),
    ".xls": (0, b"\xd0\xcf\x11\xe0"),
    ".xlsx": ZIP,
    ".xz": (0, b"\xfd7zXZ\x00"),
    ".zip": ZIP,
}
PAGES = {".htm", ".html", ".xhtml", ".xml"}


def is_page(head: bytes) -> bool:
    """Return whether a file that begins so is an HTML page."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html"))


def check_kind(name: str, head: bytes) -> None:
    """Raise DataError unless a file of this name may begin so.

    Parameters
    ----------
    name
        Of the file; its last suffix tells the kind.
    head
        The first ``HEAD`` bytes of the file, all of a shorter one.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if not head:
        raise DataError(f"{name}: the file is empty")
    if suffix not in PAGES and is_page(head):
        raise DataError(f"{name}: an HTML page (an error page?) in place of the file")
    if suffix in MAGIC:
        offset, magic = MAGIC[suffix]
        found = head[offset : offset + len(magic)]
        if found != magic:
            raise DataError(
                f"{name}: holds {found!r} at byte {offset}, where a {suffix} file has {magic!r}"
            )
