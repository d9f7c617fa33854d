"""HDF5 files of Cell Ranger, versions 2 and 3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from morebench.data.readers.stored import seekable
from morebench.io.counts import check_sparse
from morebench.io.hdf5 import check_hdf5

if TYPE_CHECKING:
    from anndata import AnnData


def read_10x(path: Path, where: str) -> AnnData:
    """Read all features of a Cell Ranger file; ``var`` has ``gene_id`` and ``feature_types``."""
    import scanpy as sc

    with seekable(path) as plain:
        check_hdf5(plain, where)
        data = sc.read_10x_h5(plain, gex_only=False)
    check_sparse(data.X, f"{where}: {path}")
    data.var = data.var.rename(columns={"gene_ids": "gene_id"})
    return data
