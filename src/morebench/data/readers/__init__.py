"""Readers: one file of counts as an AnnData, its values as they stand there.

Every reader gives cells x features, ids as in the file, and in ``var`` what the file says of
its features: ``gene_id``, and ``feature_types`` where there are several kinds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morebench.data.raw import readable
from morebench.data.readers.h5ad import read_h5ad
from morebench.data.readers.mtx import read_mtx
from morebench.data.readers.table import read_table
from morebench.data.readers.tenx import read_10x
from morebench.data.spec_source import Read

if TYPE_CHECKING:
    from anndata import AnnData


def read_file(
    path: Path,
    entry: Read,
    beside: Sequence[Path],
    where: str,
    *,
    layer: str | None = None,
    raw: bool = False,
) -> AnnData:
    """Read one file of counts in the format of its entry.

    Parameters
    ----------
    path
        The file, plain or gzip.
    entry
        How it is read.
    beside
        The files among which barcodes and features of a MatrixMarket file stand.
    where
        Dataset and file, for errors.
    layer, raw
        Of an h5ad: see ``read_h5ad``.

    Raises
    ------
    DataError
        If the file is damaged, or is not what the entry says.
    """
    with readable(path, where), warnings.catch_warnings():
        # Features of one name are put together later, where all files are at hand.
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        if entry.format == "table":
            return read_table(path, entry, where)
        if entry.format == "mtx":
            return read_mtx(path, entry, beside, where)
        if entry.format == "h5":
            return read_10x(path, where)
        return read_h5ad(path, where, layer=layer, raw=raw, var_names=entry.var_names)
