"""Sources: from a bundled name or files by path to one raw dataset."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import scipy.sparse as sp

from morebench.data.mapping import check_held_out, map_obs
from morebench.data.spec import DatasetConfig, resolve
from morebench.errors import DataError, listed
from morebench.io.counts import as_counts
from morebench.io.prepared import VAR_COLUMNS
from morebench.registry import DATASETS

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass
class Modality:
    """Counts of one modality.

    Attributes
    ----------
    counts_mg : (m, g) csr matrix of float32
    cells : (m,) index of original cell ids
    var : (g, ...) DataFrame, indexed by feature names
    """

    counts_mg: sp.csr_matrix
    cells: pd.Index
    var: pd.DataFrame


@dataclass
class Raw:
    """A dataset as its source gives it.

    Attributes
    ----------
    obs : (n, ...) DataFrame
        ``mapping.MAPPED`` columns, indexed by original cell ids.
    modalities
        Modalities by name; each holds a subset of the cells, in the order of ``obs``.
    """

    obs: pd.DataFrame
    modalities: dict[str, Modality]


def _modality(part: AnnData, layer: str | None, where: str) -> Modality:
    doubled = part.var_names[part.var_names.duplicated()]
    if len(doubled):
        raise DataError(
            f"{where}: {len(doubled)} duplicated gene names, the first is {doubled[0]!r}; "
            "make them unique first (anndata: var_names_make_unique)"
        )
    if layer is not None and layer not in part.layers:
        raise DataError(f"{where}: there is no layer {layer!r}; it has {listed(part.layers)}")
    if part.n_obs == 0 or part.n_vars == 0:
        raise DataError(f"{where}: is empty ({part.n_obs} cells x {part.n_vars} genes)")
    counts = as_counts(part.X if layer is None else part.layers[layer], where)
    var = part.var[[c for c in VAR_COLUMNS if c in part.var]].astype(str)
    return Modality(counts, part.obs_names, var)


def file_of(path: str, where: str) -> Path:
    """Return an existing file's path; DataError otherwise."""
    found = resolve(path, where)
    if not found.is_file():
        raise DataError(f"{where}: there is no file {found} (from {path!r})")
    if found.suffix not in (".h5ad", ".h5mu"):
        raise DataError(f"{where}: {found.name} is no .h5ad or .h5mu file")
    return found


def _read_h5ad(path: str, where: str) -> AnnData:
    import anndata

    return anndata.read_h5ad(file_of(path, where))


def check_shared_cells(cells: dict[str, pd.Index], where: str) -> None:
    """Raise DataError for a modality that shares no cell with the first one."""
    first, *others = cells
    for other in others:
        if not len(cells[first].intersection(cells[other])):
            raise DataError(
                f"{where}: the modality {other!r} shares no cell with {first!r}: ids are like "
                f"{cells[other][0]!r} and {cells[first][0]!r}; they must be the same strings"
            )


def _from_path(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, Modality]]:
    paths = dataset.path
    if isinstance(paths, dict):
        parts: dict[str, Any] = {m: _read_h5ad(p, f"{where}, {m}") for m, p in paths.items()}
        obs = pd.concat([p.obs for p in parts.values()], axis=0)
        obs = obs.loc[~obs.index.duplicated()]
    elif str(paths).endswith(".h5mu"):
        import mudata

        data = mudata.read_h5mu(file_of(str(paths), where))
        chosen = dataset.modalities or {m: m for m in data.mod}
        absent = [m for m in chosen.values() if m not in data.mod]
        if absent:
            raise DataError(
                f"{where}: there is no modality {absent[0]!r}; it has {listed(data.mod)}"
            )
        parts, obs = {m: data.mod[key] for m, key in chosen.items()}, data.obs
    else:
        data = _read_h5ad(str(paths), where)
        parts, obs = {dataset.modality: data}, data.obs
    check_shared_cells({m: p.obs_names for m, p in parts.items()}, where)
    found = {m: _modality(p, dataset.layer, f"{where}[{m}]") for m, p in parts.items()}
    return map_obs(obs, dataset, where), found


def _from_parts(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, Modality]]:
    frames, parts = [], []
    for i, part in enumerate(dataset.concat):
        at = f"{where}.concat[{i}]"
        data = _read_h5ad(part.path, at)
        frames.append(map_obs(data.obs, dataset, at, part).rename(index=lambda c, i=i: f"{i}:{c}"))
        modality = _modality(data, part.layer or dataset.layer, at)
        modality.cells = pd.Index([f"{i}:{c}" for c in modality.cells])
        parts.append(modality)
    genes = parts[0].var.index
    for other in parts[1:]:
        genes = genes[genes.isin(other.var.index)]
    if len(genes) == 0:
        raise DataError(f"{where}: the files of concat have no gene name in common")
    stacked = sp.vstack([p.counts_mg[:, p.var.index.get_indexer(genes)] for p in parts]).tocsr()
    cells = parts[0].cells.append([p.cells for p in parts[1:]])
    merged = Modality(stacked, cells, parts[0].var.loc[genes])
    return pd.concat(frames), {dataset.modality: merged}


def _bundled(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, Modality]]:
    spec = DATASETS[str(dataset.bundled)]
    module, function = spec.entry.split(":")
    data = getattr(importlib.import_module(module), function)(**{**spec.params, **dataset.params})
    found = {m: _modality(p, None, f"{where}[{m}]") for m, p in data.mod.items()}
    return map_obs(data.obs, dataset, where), found


def load(name: str, dataset: DatasetConfig) -> Raw:
    """Load a dataset as its configuration describes it.

    Returns
    -------
    Raw
        Cells that ``exclude`` leaves, in the order of the source; counts checked.

    Raises
    ------
    DataError, ConfigError
        Naming the dataset, the file or key, and what would be valid.
    """
    where = f"datasets.{name}"
    if dataset.bundled:
        obs, modalities = _bundled(dataset, where)
    elif dataset.concat:
        obs, modalities = _from_parts(dataset, where)
    else:
        obs, modalities = _from_path(dataset, where)
    check_held_out(obs, dataset, where)
    kept: dict[str, Modality] = {}
    for key, part in modalities.items():
        order = obs.index[obs.index.isin(part.cells)]
        rows = part.cells.get_indexer(order)
        kept[key] = Modality(part.counts_mg[rows], order, part.var)
    return Raw(obs, kept)


def peek(name: str, dataset: DatasetConfig) -> tuple[pd.DataFrame, int] | None:
    """Map a dataset's columns without reading its counts.

    Returns
    -------
    The mapped obs table and the number of features of the first modality, or None for
    bundled data, which is made by the run itself.
    """
    where = f"datasets.{name}"
    if dataset.bundled:
        return None
    if dataset.concat:
        frames = []
        shared: pd.Index | None = None
        for i, part in enumerate(dataset.concat):
            at = f"{where}.concat[{i}]"
            obs, genes = _peek_file(file_of(part.path, at), dataset, at)
            frames.append(map_obs(obs, dataset, at, part).rename(index=lambda c, i=i: f"{i}:{c}"))
            shared = genes if shared is None else shared.intersection(genes)
        return pd.concat(frames), len(shared if shared is not None else ())
    if isinstance(dataset.path, dict):
        read = {
            m: _peek_file(file_of(p, f"{where}, {m}"), dataset, f"{where}, {m}")
            for m, p in dataset.path.items()
        }
        check_shared_cells({m: obs.index for m, (obs, _) in read.items()}, where)
        obs = pd.concat([o for o, _ in read.values()])
        return (
            map_obs(obs.loc[~obs.index.duplicated()], dataset, where),
            len(next(iter(read.values()))[1]),
        )
    obs, genes = _peek_file(file_of(str(dataset.path), where), dataset, where)
    return map_obs(obs, dataset, where), len(genes)


def _peek_file(path: Path, dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, pd.Index]:
    """Read obs and the feature names of a file, and check that both have unique names."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path) as file:
            group = file
            if "mod" in file:
                own = dataset.modalities or {m: m for m in file["mod"]}
                absent = [m for m in own.values() if m not in file["mod"]]
                if absent:
                    raise DataError(
                        f"{where}: there is no modality {absent[0]!r}; it has {listed(file['mod'])}"
                    )
                group = file["mod"][next(iter(own.values()))]
            obs, var = read_elem(file["obs"]), read_elem(group["var"])
    except (OSError, KeyError) as error:
        raise DataError(f"{where}: {path} is no readable HDF5 dataset ({error})") from error
    for what, index in (("cell ids", obs.index), ("gene names", var.index)):
        doubled = index[index.duplicated()]
        if len(doubled):
            raise DataError(
                f"{where}: {len(doubled)} duplicated {what}, the first is {doubled[0]!r}"
            )
    if len(obs) == 0 or len(var) == 0:
        raise DataError(f"{where}: is empty ({len(obs)} cells x {len(var)} genes)")
    return obs, var.index
