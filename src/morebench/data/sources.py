"""Sources: from a bundled name, files by path or downloaded files to one raw dataset."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd

from morebench.data.assemble import read_files
from morebench.data.mapping import check_held_out, map_obs, settle
from morebench.data.raw import (
    Modality,
    Raw,
    checked,
    join_obs,
    modality_of,
    readable,
    stacked,
)
from morebench.data.readers.h5ad import h5ad_in_file, read_h5ad
from morebench.data.spec import DatasetConfig, resolve
from morebench.data.strict import Modality as ModalityName
from morebench.errors import DataError, listed
from morebench.io.counts import check_sparse
from morebench.io.hdf5 import check_hdf5
from morebench.registry import DATASETS

if TYPE_CHECKING:
    from anndata import AnnData


def main_modality(names: Iterable[str]) -> str:
    """Return the modality that single-modality methods use: RNA where there is any."""
    known = list(names)
    return "rna" if "rna" in known else known[0]


def file_of(path: str, where: str, suffixes: tuple[str, ...] = (".h5ad", ".h5mu")) -> Path:
    """Return an existing file's path; DataError otherwise."""
    found = resolve(path, where)
    if found.is_dir():
        raise DataError(f"{where}: {found} is a directory, expected a file (from {path!r})")
    if not found.is_file():
        raise DataError(f"{where}: there is no file {found} (from {path!r})")
    if found.suffix not in suffixes:
        raise DataError(f"{where}: {found} is no {' or '.join(suffixes)} file")
    return found


def _read_h5ad(path: str, layer: str | None, where: str) -> AnnData:
    found = file_of(path, where, (".h5ad",))
    with readable(found, where):
        return read_h5ad(found, where, layer=layer)


def in_file(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, Modality]:
    """Return the cells and counts of an h5ad whose counts stay in it.

    Raises
    ------
    DataError
        As for other files, or where the counts are stored by columns.
    """
    path = file_of(str(dataset.path), where, (".h5ad",))
    with readable(path, where):
        obs, var, counts = h5ad_in_file(path, where, layer=dataset.layer)
    return obs, checked(counts, obs.index, var, where)


def local_files(path: str, where: str) -> list[Path]:
    """Return the file that a path names, or all files of the folder; DataError for none."""
    found = resolve(path, where)
    files = sorted(f for f in found.rglob("*") if f.is_file()) if found.is_dir() else [found]
    if not files or not files[0].is_file():
        raise DataError(f"{where}: there is no file {found}, nor a folder of files (from {path!r})")
    return files


def check_shared_cells(cells: Mapping[str, pd.Index], where: str) -> None:
    """Raise DataError for a modality that shares no cell with the first one."""
    first, *others = cells
    for other in others:
        if not len(cells[first].intersection(cells[other])):
            raise DataError(
                f"{where}: the modality {other!r} shares no cell with {first!r}: ids are like "
                f"{cells[other][0]!r} and {cells[first][0]!r}; they must be the same strings"
            )


def h5mu_obs(obs: pd.DataFrame, own: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the cells that have a modality; columns of a modality as ``modality:column``.

    Some writers repeat those columns in the global table, others leave them out.
    """
    obs = obs.loc[obs.index.isin(join_obs(list(own.values())).index)].copy()
    for key, table in own.items():
        for name in table.columns:
            if f"{key}:{name}" not in obs:
                obs[f"{key}:{name}"] = table[name].astype(object).reindex(obs.index)
    return obs


def modality_names(dataset: DatasetConfig, present: Iterable[str], where: str) -> dict[str, str]:
    """Return our modality: its name in an h5mu file."""
    names = list(present)
    chosen: dict[str, str] = {str(k): v for k, v in dataset.modalities.items()}
    chosen = chosen or {m: m for m in names}
    for modality, name in chosen.items():
        if name not in names:
            raise DataError(f"{where}: there is no modality {name!r}; it has {listed(names)}")
        if modality not in get_args(ModalityName):
            raise DataError(
                f"{where}: {name!r} is none of {', '.join(get_args(ModalityName))}; say which of "
                "them it is with 'modalities:'"
            )
    return chosen


def _from_path(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, Modality]]:
    paths = dataset.path
    if isinstance(paths, dict):
        parts: dict[str, Any] = {
            m: _read_h5ad(p, dataset.layer, f"{where}, {m}") for m, p in paths.items()
        }
        found = {m: modality_of(p, None, f"{where}, {m}") for m, p in parts.items()}
        obs = join_obs([p.obs for p in parts.values()])
    elif str(paths).endswith(".h5mu"):
        import mudata

        path = file_of(str(paths), where)
        with readable(path, where), mudata.set_options(pull_on_update=False):
            check_hdf5(path, where)
            data = mudata.read_h5mu(path)
        for key, part in data.mod.items():
            for matrix in (part.X, *part.layers.values()):
                check_sparse(matrix, f"{where}: {path}, {key}")
        chosen = modality_names(dataset, data.mod, where)
        parts = {m: data.mod[key] for m, key in chosen.items()}
        found = {m: modality_of(p, dataset.layer, f"{where}[{m}]") for m, p in parts.items()}
        obs = h5mu_obs(data.obs, {key: data.mod[key].obs for key in chosen.values()})
    elif dataset.stays_in_file:
        obs, part = in_file(dataset, where)
        found = {dataset.modality: part}
    else:
        data = _read_h5ad(str(paths), dataset.layer, where)
        found, obs = {dataset.modality: modality_of(data, None, where)}, data.obs
    check_shared_cells({m: p.cells for m, p in found.items()}, where)
    return map_obs(obs, dataset, where), found


def _from_parts(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, Modality]]:
    frames, parts = [], []
    for i, part in enumerate(dataset.concat):
        at = f"{where}.concat[{i}]"
        data = _read_h5ad(part.path, part.layer or dataset.layer, at)
        frames.append(in_part(map_obs(data.obs, dataset, at, part), i))
        modality = modality_of(data, None, at)
        modality.cells = in_part(pd.DataFrame(index=modality.cells), i).index
        parts.append(modality)
    return pd.concat(frames), {dataset.modality: stacked(parts, f"{where}.concat")}


def in_part(table: pd.DataFrame, part: int) -> pd.DataFrame:
    """Return a table whose cells are named after the file of ``concat`` that they stand in."""
    return table.set_axis(pd.Index([f"{part}:{cell}" for cell in table.index]))


def _bundled(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, Modality]]:
    spec = DATASETS[str(dataset.bundled)]
    module, function = spec.entry.split(":")
    data = getattr(importlib.import_module(module), function)(**{**spec.params, **dataset.params})
    found = {m: modality_of(p, None, f"{where}[{m}]") for m, p in data.mod.items()}
    return map_obs(data.obs, dataset, where), found


def _from_files(
    dataset: DatasetConfig, files: Sequence[Path], where: str
) -> tuple[pd.DataFrame, dict[str, Modality]]:
    obs, found = read_files(files, dataset, where)
    check_shared_cells({m: p.cells for m, p in found.items()}, where)
    return map_obs(obs, dataset, where), found


def load(name: str, dataset: DatasetConfig, files: Sequence[Path] = ()) -> Raw:
    """Load a dataset as its configuration describes it.

    Parameters
    ----------
    name
        Of the dataset, for errors.
    files
        The downloaded files of a dataset from the web (``obtain.obtain``).

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
    elif dataset.remote:
        obs, modalities = _from_files(dataset, files, where)
    elif dataset.read:
        obs, modalities = _from_files(dataset, local_files(str(dataset.path), where), where)
    else:
        obs, modalities = _from_path(dataset, where)
    obs = settle(obs, dataset, where)
    check_held_out(obs, dataset, where)
    kept: dict[str, Modality] = {}
    for key, part in modalities.items():
        order = obs.index[obs.index.isin(part.cells)]
        rows = part.cells.get_indexer(order)
        kept[key] = Modality(part.counts_mg[rows], order, part.var)
    return Raw(obs, kept)
