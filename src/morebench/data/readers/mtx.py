"""MatrixMarket files with their barcodes and features, as Cell Ranger and others write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from morebench.data.archives import open_binary
from morebench.data.readers.text import read_text
from morebench.data.spec_source import Read
from morebench.errors import DataError, listed

if TYPE_CHECKING:
    from anndata import AnnData

# What stands in place of ``matrix.mtx`` in the names of the other two files.
BARCODES = ("barcodes.tsv", "barcodes.txt")
FEATURES = ("features.tsv", "genes.tsv", "features.txt", "genes.txt")
VAR = ("gene_id", "name", "feature_types")


def companion(path: Path, words: Sequence[str]) -> list[str]:
    """Return the names under which a file of the same triplet may stand.

    >>> companion(Path("GSM1_a_matrix.mtx.gz"), ("barcodes.tsv",))
    ['GSM1_a_barcodes.tsv.gz', 'GSM1_a_barcodes.tsv']
    """
    stem = re.sub(r"(matrix\.)?mtx(\.gz)?$", "", path.name)
    return [f"{stem}{word}{packed}" for word in words for packed in (".gz", "")]


def _find(path: Path, given: str | None, words: Sequence[str], key: str, beside: Sequence[Path],
          where: str) -> Path:  # fmt: skip
    valid = companion(path, words) if given is None else [given]
    found = [p for p in beside if any(fnmatchcase(p.name, v) for v in valid)]
    same = [p for p in found if p.parent == path.parent] or found
    if len(same) != 1:
        what = f"{len(same)} files are" if same else "no file is"
        raise DataError(
            f"{where}: {what} named {listed(valid)}; name one with '{key}:'; there are "
            f"{listed(sorted(p.name for p in beside))}"
        )
    return same[0]


def read_mtx(path: Path, entry: Read, beside: Sequence[Path], where: str) -> AnnData:
    """Read a MatrixMarket file, plain or gzip, features x cells or cells x features.

    Features have one column (names), two (ids, names) or more (ids, names, types).

    Raises
    ------
    DataError
        If barcodes or features are missing, or the matrix has another shape than they say;
        the header is checked before anything is allocated.
    """
    import anndata
    from scipy.io import mminfo, mmread

    barcodes = _find(path, entry.barcodes, BARCODES, "barcodes", beside, where)
    features = _find(path, entry.features, FEATURES, "features", beside, where)
    cells = read_text(barcodes, "\t", None, f"{where}, {barcodes.name}")
    genes = read_text(features, "\t", None, f"{where}, {features.name}")
    with open_binary(path) as stream:
        rows, columns, entries, *_ = mminfo(stream)
    shape = (len(genes), len(cells))
    if (rows, columns) not in (shape, shape[::-1]) or entries > rows * columns:
        raise DataError(
            f"{where}: the header says {rows} x {columns} with {entries} values, but "
            f"{features.name} has {shape[0]} lines and {barcodes.name} {shape[1]}"
        )
    with open_binary(path) as stream:
        matrix = mmread(stream)
    if (rows, columns) == shape:
        matrix = matrix.T
    table = genes.iloc[:, : len(VAR)]
    table.columns = list(VAR[: table.shape[1]]) if table.shape[1] > 1 else ["name"]
    var = table.drop(columns="name").set_index(table["name"].to_numpy())
    obs = pd.DataFrame(index=cells.iloc[:, 0].to_numpy())
    return anndata.AnnData(matrix.tocsr(), obs=obs, var=var)
