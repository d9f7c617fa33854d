"""Counts that stay in their file: chosen rows and columns of it, read block by block.

What a dataset larger than memory is made of. Memory is that of a block of cells, and disk is
read from its beginning to its end: rows in another order are parted into files on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from morebench.errors import DataError
from morebench.files import room_for, take_room
from morebench.io.counts import as_counts, check_pointers, check_sparse

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData

#: Cells of a block: 20,000 of 5,000 counts above 0 are 800 MB.
BLOCK = 20_000


@dataclass(frozen=True, eq=False)
class BackedCounts:
    """Counts in an HDF5 file, of which ``counts[rows]`` and ``counts[:, columns]`` read nothing.

    Nor does ``counts @ onto``, which sums features.

    Attributes
    ----------
    path, key
        The file, and the group or dataset that holds the (stored rows, stored columns) matrix.
    where
        For errors.
    rows : (n,) array of int
        Places of the cells in the file, in the cells' order; each at most once.
    columns : (c,) array of int
        Places of features in the file.
    onto : (c, g) csr matrix of 0 and 1, or None
        Which of them are summed to a gene; None where each feature is one.
    """

    path: Path
    key: str
    where: str
    rows: np.ndarray
    columns: np.ndarray
    onto: sp.csr_matrix | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(n, g)."""
        genes = len(self.columns) if self.onto is None else self.onto.shape[1]
        return len(self.rows), genes

    def __getitem__(self, key: Any) -> BackedCounts:
        """Choose rows by ``[places or mask]``, columns by ``[:, places or mask]``."""
        if isinstance(key, tuple):
            if key[0] != slice(None):
                raise IndexError("counts in a file: choose rows and columns one after the other")
            if self.onto is None:
                return replace(self, columns=self.columns[key[1]])
            onto = self.onto[:, key[1]]
            used = onto.getnnz(axis=1) > 0
            return replace(self, columns=self.columns[used], onto=onto[used])
        return replace(self, rows=self.rows[key])

    def __matmul__(self, onto: sp.csr_matrix) -> BackedCounts:
        """Sum genes: ``onto`` is a (g, new g) matrix of 0 and 1."""
        return replace(self, onto=onto if self.onto is None else self.onto @ onto)

    def blocks(self, size: int = BLOCK) -> Iterator[sp.csr_matrix]:
        """Yield (size, g) csr blocks of float32 in the cells' order, each checked by as_counts."""
        if (np.diff(self.rows) > 0).all():
            yield from self._ascending(size)
        else:
            yield from self._parted(size)

    def _read(self, start: int, stop: int, matrix: Any) -> sp.csr_matrix:
        """Return the chosen columns of all stored rows of a range."""
        block = matrix[start:stop]
        check_sparse(block, f"{self.where}: {self.path}: {self.key}, rows {start} to {stop - 1}")
        block = sp.csr_matrix(block)
        if not np.array_equal(self.columns, np.arange(block.shape[1])):
            block = block[:, self.columns]
        if self.onto is not None:
            block = block @ self.onto
        return as_counts(block, f"{self.where}, rows {start} to {stop - 1}")

    def _ascending(self, size: int) -> Iterator[sp.csr_matrix]:
        with _opened(self.path, self.key, self.where) as matrix:
            for first in range(0, len(self.rows), size):
                rows = self.rows[first : first + size]
                found = []
                for start in range(int(rows[0]), int(rows[-1]) + 1, size):
                    here = rows[(rows >= start) & (rows < start + size)]
                    if len(here):
                        stop = int(here[-1]) + 1
                        found.append(self._read(start, stop, matrix)[here - start])
                yield sp.vstack(found, format="csr")

    def _parted(self, size: int) -> Iterator[sp.csr_matrix]:
        """Part the file's rows into the blocks that they belong to, then sort each block."""
        stored = np.sort(self.rows)
        place = np.argsort(self.rows)  # of the stored rows among the cells
        with TemporaryDirectory(prefix="morebench-blocks-") as name, room_for(Path(name)):
            folder = Path(name)
            done = 0
            for block in replace(self, rows=stored)._ascending(size):
                to = place[done : done + block.shape[0]]
                done += block.shape[0]
                for number in np.unique(to // size):
                    here = np.flatnonzero(to // size == number)
                    _append(folder / str(number), block[here], to[here] - number * size)
            for number in range(-(-len(self.rows) // size)):
                yield _sorted(folder / str(number), self.shape[1])


Counts: TypeAlias = sp.csr_matrix | BackedCounts


def blocks_of(counts: Counts, size: int = BLOCK) -> Iterator[sp.csr_matrix]:
    """Yield blocks of rows, of counts in memory or in a file."""
    if isinstance(counts, BackedCounts):
        yield from counts.blocks(size)
        return
    for start in range(0, counts.shape[0], size):
        yield counts[start : start + size]


def in_memory(counts: Counts) -> sp.csr_matrix:
    """Return all rows, for those that fit."""
    if isinstance(counts, BackedCounts):
        return sp.vstack(list(counts.blocks()), format="csr")
    return counts


def found_in(counts: Counts) -> np.ndarray:
    """Return (g,) numbers of cells that a gene is found in."""
    total = np.zeros(counts.shape[1], dtype=np.int64)
    for block in blocks_of(counts):
        total += block.getnnz(axis=0)
    return total


def backed(path: Path, key: str, where: str) -> BackedCounts:
    """Return all counts of a matrix in a file, csr or dense.

    Raises
    ------
    DataError
        It is stored by columns.
    """
    with _opened(path, key, where) as matrix:
        n, g = matrix.shape
    return BackedCounts(path, key, where, np.arange(n), np.arange(g))


@contextmanager
def _opened(path: Path, key: str, where: str) -> Iterator[Any]:
    """Yield the matrix of a file, of which ranges of rows can be read."""
    import h5py
    from anndata.io import sparse_dataset

    with h5py.File(path) as file:
        if isinstance(file[key], h5py.Dataset):
            yield file[key]
            return
        matrix = sparse_dataset(file[key])
        if matrix.format != "csr":
            raise DataError(
                f"{where}: {path}: {key} is stored by columns ({matrix.format}), of which cells "
                "cannot be read in turn; valid with 'shards': csr, or dense"
            )
        values, indptr = file[key]["indices"].shape[0], file[key]["indptr"][:]
        check_pointers(indptr, values, f"{where}: {path}: {key}")
        yield matrix


def put_counts(path: Path, key: str, counts: BackedCounts) -> None:
    """Replace a matrix of an HDF5 file by counts, block by block; as anndata writes csr.

    The room that they take is asked for first: HDF5 crashes the process where it finds none.
    """
    import h5py

    n = counts.shape[0]
    n_values = int(found_in(counts[np.argsort(counts.rows)]).sum())
    # And a little more; HDF5 gives back what it does not need.
    take_room(path, path.stat().st_size + 8 * (n_values + n + 1) + 2**20)
    with h5py.File(path, "r+") as file:
        del file[key]
        group = file.create_group(key)
        group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": counts.shape}
        )
        data = group.create_dataset("data", (n_values,), np.float32)
        indices = group.create_dataset("indices", (n_values,), np.int32)
        indptr = group.create_dataset("indptr", (n + 1,), np.int64)
        indptr[0] = row = done = 0
        for block in counts.blocks():
            stop = done + block.nnz
            data[done:stop], indices[done:stop] = block.data, block.indices
            indptr[row + 1 : row + 1 + block.shape[0]] = done + block.indptr[1:].astype(np.int64)
            row, done = row + block.shape[0], stop


def without_counts(shape: Sequence[int]) -> sp.csr_matrix:
    """Return a matrix of nothing, which ``put_counts`` replaces in the written file."""
    return sp.csr_matrix(tuple(shape), dtype=np.float32)


def read_but_counts(group: h5py.Group) -> AnnData:
    """Return all that an AnnData in a file holds, with zeros in the place of ``X``."""
    from anndata import AnnData
    from anndata.io import read_elem

    places = ("obs", "var", "layers", "obsm", "obsp", "varm", "varp", "uns")
    held = {place: read_elem(group[place]) for place in places if place in group}
    data = AnnData(without_counts((len(held["obs"]), len(held["var"]))), **held)
    if "raw" in group:
        data.raw = data  # that there is one, not what it holds
    return data


# What a block is kept as while rows are parted: by suffix of its files.
_KINDS = {".data": np.float32, ".indices": np.int32, ".sizes": np.int64, ".place": np.int64}


def _append(stem: Path, block: sp.csr_matrix, place: np.ndarray) -> None:
    values = (block.data, block.indices, np.diff(block.indptr), place)
    for (suffix, kind), kept in zip(_KINDS.items(), values, strict=True):
        with stem.with_suffix(suffix).open("ab") as file:
            file.write(np.ascontiguousarray(kept, dtype=kind).data)


def _sorted(stem: Path, n_columns: int) -> sp.csr_matrix:
    files = {suffix: stem.with_suffix(suffix) for suffix in _KINDS}
    read = {suffix: np.fromfile(file, dtype=_KINDS[suffix]) for suffix, file in files.items()}
    for file in files.values():
        file.unlink()
    indptr = np.concatenate([[0], np.cumsum(read[".sizes"])])
    shape = (len(read[".place"]), n_columns)
    block = sp.csr_matrix((read[".data"], read[".indices"], indptr), shape=shape)
    return block[np.argsort(read[".place"])]
