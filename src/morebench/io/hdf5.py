"""HDF5 files that claim more than they hold: refused by their headers, before anything is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morebench.errors import DataError

if TYPE_CHECKING:
    import h5py

#: Deflate, the strongest usual filter, makes 1032 bytes of one at most (zlib's manual).
MAX_RATIO = 1100
#: Bytes of a dataset that are let pass: fill values of small tables need not be stored.
SMALL = 1 << 20
_SPARSE = {"csr_matrix": 0, "csc_matrix": 1}


def sparse_shape(group: h5py.Group) -> tuple[int, ...] | None:
    """Return the shape that a sparse matrix claims, as today's anndata or that before 0.7 says."""
    shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    return None if shape is None else tuple(map(int, shape))


def check_hdf5(path: str | Path, where: str) -> None:
    """Refuse an HDF5 file whose datasets could not have been stored in it.

    Only headers are read. A dataset passes when all its bytes are in the file, or all its chunks
    are, with no filter that made more than ``MAX_RATIO`` of them; so what is allocated is bounded
    by the file's size. Sparse matrices must have the rows and values that their shape says.

    Raises
    ------
    DataError
        A shape that the file does not hold, or content that stands in other files.
    """
    import h5py

    with h5py.File(path, "r") as file:
        _Check(Path(path), where).group(file, "")


class _Check:
    """One walk through a file, each object once."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where
        self.size = path.stat().st_size
        self.seen: set[tuple[int, int]] = set()

    def refuse(self, name: str, words: str) -> DataError:
        return DataError(f"{self.where}: {self.path}: {name or '/'} {words}")

    def group(self, group: h5py.Group, at: str) -> None:
        import h5py

        self.attributes(group, at)
        for key in group:
            name = f"{at}/{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise self.refuse(name, f"is a link to another file ({link.filename})")
            if isinstance(link, h5py.SoftLink):
                continue  # to an object of this file, which is met by its own name
            item = group[key]
            info = h5py.h5o.get_info(item.id)
            if (info.fileno, info.addr) in self.seen:
                continue
            self.seen.add((info.fileno, info.addr))
            if isinstance(item, h5py.Group):
                self.group(item, name)
            elif isinstance(item, h5py.Dataset):
                self.dataset(item, name)
        self.sparse(group, at)

    def attributes(self, item: Any, name: str) -> None:
        for key in item.attrs:
            attribute = item.attrs.get_id(key)
            claimed = math.prod(attribute.shape or ()) * attribute.get_type().get_size()
            if claimed > self.size:
                raise self.refuse(
                    f"{name}.attrs[{key!r}]",
                    f"claims {claimed:,} bytes, the whole file has {self.size:,}",
                )

    def dataset(self, data: h5py.Dataset, name: str) -> None:
        self.attributes(data, name)
        if data.is_virtual or data.external:
            raise self.refuse(name, "stands in another file; valid: data in the file itself")
        if data.shape is None:
            return
        width = data.id.get_type().get_size()
        claimed, stored = math.prod(data.shape) * width, data.id.get_storage_size()
        held, ratio = stored, 1
        if data.chunks is not None:
            held = data.id.get_num_chunks() * math.prod(data.chunks) * width
            ratio = MAX_RATIO if data.id.get_create_plist().get_nfilters() else 1
        start = 0 if data.chunks is not None else data.id.get_offset() or 0
        short = claimed > SMALL and (held < claimed or stored * ratio < claimed)
        if short or start + stored > self.size:
            raise self.refuse(
                name,
                f"claims the shape {data.shape} of {data.dtype}, {claimed:,} bytes, and the file "
                f"of {self.size:,} bytes holds {stored:,} for it: it is damaged or was not "
                "written whole",
            )

    def sparse(self, group: h5py.Group, name: str) -> None:
        encoding = group.attrs.get("encoding-type")
        if "h5sparse_format" in group.attrs:  # anndata before 0.7
            encoding = f"{group.attrs['h5sparse_format']}_matrix"
        if not isinstance(encoding, str) or encoding not in _SPARSE:
            return
        shape = sparse_shape(group)
        lengths = {k: group[k].shape for k in ("data", "indices", "indptr") if k in group}
        valid = (
            shape is not None
            and len(shape) == 2
            and min(shape) >= 0
            and len(lengths) == 3
            and lengths["data"] == lengths["indices"]
            and lengths["indptr"] == (int(shape[_SPARSE[encoding]]) + 1,)
        )
        if not valid:
            raise self.refuse(name, f"is a {encoding} of shape {shape} with {lengths}")
