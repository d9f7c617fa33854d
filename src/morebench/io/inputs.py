"""The input of a split: what every method sees, fitted without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from morebench.contract import MethodInput
from morebench.errors import ContractError
from morebench.files import atomic_path, verify
from morebench.io.backed import BackedCounts, Counts, put_counts, read_but_counts
from morebench.io.counts import as_counts
from morebench.io.hdf5 import check_hdf5
from morebench.io.prepared import check_ids
from morebench.io.tables import read_parquet, write_parquet

if TYPE_CHECKING:
    from anndata import AnnData

OBS_COLUMNS = ("batch", "donor", "platform", "fit_visible")


def check_input(data: AnnData, where: str) -> None:
    """Raise ContractError unless the file holds counts, ids, batch, and PCA, and no more."""
    check_ids(data.obs_names, where)
    if set(data.obs.columns) - set(OBS_COLUMNS) or not {"batch", "fit_visible"} <= set(data.obs):
        raise ContractError(f"{where}: obs has {list(data.obs.columns)}; allowed: {OBS_COLUMNS}")
    beyond = {
        "obsm": set(data.obsm) - {"X_pca"},
        "var": set(data.var.columns),
        **{k: set(getattr(data, k)) for k in ("layers", "obsp", "varm", "varp", "uns")},
        "raw": {"X"} if data.raw is not None else set(),
    }
    extra = {k: sorted(v) for k, v in beyond.items() if v}
    if extra or "X_pca" not in data.obsm:
        raise ContractError(
            f"{where}: holds more or less than counts and obsm['X_pca']: {extra or list(data.obsm)}"
        )
    if data.obs["batch"].isna().any() or data.obs["fit_visible"].dtype != bool:
        raise ContractError(f"{where}: obs needs a batch for every cell and bool fit_visible")
    if not np.isfinite(data.obsm["X_pca"]).all():
        raise ContractError(f"{where}: obsm['X_pca'] has values that are not finite")


def write_input(path: str | Path, data: AnnData, counts: Counts | None = None) -> None:
    """Check and write the input of a split (h5ad).

    Parameters
    ----------
    counts
        Of counts in a file: they take the place of the data's.
    """
    check_input(data, str(path))
    as_counts(data.X, str(path))
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary)
        if isinstance(counts, BackedCounts):
            put_counts(temporary, "X", counts)


@dataclass
class Cells:
    """The input of a split but for its counts, for those who compare what methods made of it.

    Attributes
    ----------
    cell_ids, genes, pca_np, obs
        As in ``MethodInput``.
    """

    cell_ids: np.ndarray
    genes: np.ndarray
    pca_np: np.ndarray
    obs: pd.DataFrame

    @property
    def batch(self) -> np.ndarray:
        """(n,) array of str: the batch of each cell."""
        return self.obs["batch"].astype(str).to_numpy()


def read_cells(path: str | Path) -> Cells:
    """Read the input of a split without its counts, which may exceed memory."""
    import h5py

    verify(path)
    check_hdf5(path, "input")
    with h5py.File(path) as file:
        data = read_but_counts(file)
    check_input(data, str(path))
    return Cells(
        cell_ids=data.obs_names.to_numpy(dtype=object),
        genes=data.var_names.to_numpy(dtype=object),
        pca_np=np.asarray(data.obsm["X_pca"], dtype=np.float32),
        obs=data.obs.drop(columns="fit_visible"),
    )


def read_input(path: str | Path) -> MethodInput:
    """Read the input of a split as a method is given it, without labels."""
    import anndata

    verify(path)
    check_hdf5(path, "input")
    data = anndata.read_h5ad(path)
    check_input(data, str(path))
    return MethodInput(
        cell_ids=data.obs_names.to_numpy(dtype=object),
        genes=data.var_names.to_numpy(dtype=object),
        counts_ng=as_counts(data.X, str(path)),
        pca_np=np.asarray(data.obsm["X_pca"], dtype=np.float32),
        obs=data.obs.drop(columns="fit_visible"),
        fit_visible=data.obs["fit_visible"].to_numpy(dtype=bool),
    )


def cut_input(path: str | Path, rows: np.ndarray | slice, target: str | Path) -> None:
    """Write some cells of an input as an input of their own; only their counts are read.

    Parameters
    ----------
    rows
        Places of the cells, ascending, or a range of them.
    """
    import anndata
    import h5py
    from anndata.io import read_elem, sparse_dataset

    verify(path)
    with h5py.File(path) as file:
        data = anndata.AnnData(
            sparse_dataset(file["X"])[rows],
            obs=read_elem(file["obs"]).iloc[rows],
            var=read_elem(file["var"]),
            obsm={"X_pca": file["obsm/X_pca"][rows]},
        )
    write_input(target, data)


def shape_of(path: str | Path) -> tuple[int, int]:
    """Return the numbers of cells and genes of an input, from its header alone."""
    import h5py

    verify(path)
    with h5py.File(path) as file:
        n, g = file["X"].attrs["shape"]
    return int(n), int(g)


def read_obs(path: str | Path) -> pd.DataFrame:
    """Return ``batch``, ``fit_visible`` and the rest by cell id; no counts are read."""
    import h5py
    from anndata.io import read_elem

    verify(path)
    with h5py.File(path) as file:
        return read_elem(file["obs"])


def write_labels(path: str | Path, cell_ids: np.ndarray, labels: np.ndarray) -> None:
    """Write the labels that a split shows: only the cells that have one stand in the file."""
    shown = np.array([v is not None and v == v for v in labels])
    frame = pd.DataFrame({"cell_id": cell_ids[shown], "label": labels[shown]})
    write_parquet(path, frame)


def read_labels(path: str | Path, cell_ids: np.ndarray) -> np.ndarray:
    """Return (n,) array of object: the shown labels in the order of ``cell_ids``, else None."""
    frame = read_parquet(path, ("cell_id", "label")).set_index("cell_id")["label"]
    if not frame.index.is_unique or frame.isna().any():
        raise ContractError(f"{path}: a cell stands in it twice, or without a label")
    unknown = frame.index.difference(pd.Index(cell_ids))
    if len(unknown):
        raise ContractError(f"{path}: shows a label of {unknown[0]!r}, which the input lacks")
    return np.array([frame.get(c) for c in cell_ids], dtype=object)
