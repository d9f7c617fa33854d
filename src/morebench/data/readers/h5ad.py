"""AnnData files, of which only what is needed is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from morebench.data.mapping import column
from morebench.data.raw import check_layer
from morebench.data.readers.stored import seekable
from morebench.errors import DataError
from morebench.io.backed import BackedCounts, backed
from morebench.io.counts import check_sparse
from morebench.io.hdf5 import check_hdf5, sparse_shape

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData


def _places(
    file: h5py.File, where: str, layer: str | None, raw: bool
) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """Return the key of the counts, and their ``obs`` and ``var``."""
    from anndata.io import read_elem

    held = "raw/" if raw and layer is None and "raw" in file else ""
    check_layer(layer, f"{held}X" in file, list(file.get("layers", ())), where)
    key = f"{held}X" if layer is None else f"layers/{layer}"
    return key, read_elem(file["obs"]), read_elem(file[f"{held}var"])


def _named(var: pd.DataFrame, var_names: str | None, where: str) -> pd.DataFrame:
    """Return ``var`` under the names of a column; the ids become ``gene_id``."""
    if var_names is None:
        return var
    names = column(var, var_names, f"{where}, var").astype(str).to_numpy()
    return var.assign(gene_id=var.index).set_axis(names, axis=0)


def h5ad_in_file(
    path: Path,
    where: str,
    *,
    layer: str | None = None,
    raw: bool = False,
    var_names: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, BackedCounts]:
    """Return ``obs``, ``var`` and counts of a plain h5ad; the counts stay in the file.

    Parameters
    ----------
    layer, raw, var_names
        As ``read_h5ad``.

    Raises
    ------
    DataError
        As for other files, where the counts have another shape than ``obs`` and ``var``, or
        are stored by columns.
    """
    import h5py

    check_hdf5(path, where)
    with h5py.File(path) as file:
        key, obs, var = _places(file, where, layer, raw)
        stored = file[key]
        told = stored.shape if isinstance(stored, h5py.Dataset) else sparse_shape(stored)
        shape = (len(obs), len(var))
        if told != shape:
            raise DataError(
                f"{where}: {path}: {key} has the shape {told}, obs and var say {shape}: the "
                "file is damaged or was not written whole"
            )
    return obs, _named(var, var_names, where), backed(path, key, where)


def read_h5ad(
    path: Path,
    where: str,
    *,
    layer: str | None = None,
    raw: bool = False,
    var_names: str | None = None,
) -> AnnData:
    """Read counts, ``obs`` and ``var`` of an h5ad, plain or gzip.

    Parameters
    ----------
    layer
        The layer that holds the counts; X by default.
    raw
        Take the counts of ``raw`` where the file has one and no layer is named, which is the
        rule of the CELLxGENE schema.
    var_names
        Column of ``var`` that names the features; their ids become ``gene_id``.
    """
    import anndata
    import h5py
    from anndata.io import read_elem

    with seekable(path) as plain:
        check_hdf5(plain, where)
        with h5py.File(plain) as file:
            key, obs, var = _places(file, where, layer, raw)
            counts: Any = read_elem(file[key])
    check_sparse(counts, f"{where}: {path}")
    return anndata.AnnData(counts, obs=obs, var=_named(var, var_names, where))
