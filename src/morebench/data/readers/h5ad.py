"""AnnData files, of which only what is needed is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from morebench.data.mapping import column
from morebench.data.raw import check_layer
from morebench.data.readers.stored import seekable
from morebench.io.counts import check_sparse
from morebench.io.hdf5 import check_hdf5

if TYPE_CHECKING:
    from anndata import AnnData


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
            held = file["raw"] if raw and layer is None and "raw" in file else file
            check_layer(layer, "X" in held, list(file.get("layers", ())), where)
            counts = read_elem(held["X"] if layer is None else file["layers"][layer])
            obs, var = read_elem(file["obs"]), read_elem(held["var"])
    check_sparse(counts, f"{where}: {path}")
    data = anndata.AnnData(counts, obs=obs, var=var)
    if var_names is not None:
        names = column(data.var, var_names, f"{where}, var")
        data.var["gene_id"] = data.var_names
        data.var_names = names.astype(str)
    return data
