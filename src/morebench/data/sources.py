"""Sources: from a bundled name or files by path to one raw dataset."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pandas as pd
import scipy.sparse as sp

from morebench.data.mapping import check_held_out, check_unique, map_obs, settle
from morebench.data.spec import DatasetConfig, resolve
from morebench.data.spec import Modality as ModalityName
from morebench.errors import DataError, MorebenchError, listed
from morebench.io.counts import as_counts
from morebench.io.hdf5 import check_hdf5
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


def main_modality(names: Iterable[str]) -> str:
    """Return the modality that single-modality methods use: RNA where there is any."""
    known = list(names)
    return "rna" if "rna" in known else known[0]


def check_layer(layer: str | None, has_x: bool, layers: Iterable[str], where: str) -> None:
    """Raise DataError unless the raw counts stand where the configuration says."""
    if layer is None and not has_x:
        raise DataError(
            f"{where}: there is no X; name the layer that holds the raw counts with 'layer:'; "
            f"it has {listed(layers)}"
        )
    if layer is not None and layer not in layers:
        raise DataError(f"{where}: there is no layer {layer!r}; it has {listed(layers)}")


def check_names(cells: pd.Index, genes: pd.Index, where: str) -> None:
    """Raise DataError unless there are cells and genes, each under a name of its own."""
    check_unique(cells, "cell ids", where)
    check_unique(genes, "gene names", where)
    if len(cells) == 0 or len(genes) == 0:
        raise DataError(f"{where}: is empty ({len(cells)} cells x {len(genes)} genes)")


def _modality(part: AnnData, layer: str | None, where: str) -> Modality:
    check_names(part.obs_names, part.var_names, where)
    check_layer(layer, part.X is not None, list(part.layers), where)
    counts = as_counts(part.X if layer is None else part.layers[layer], where)
    var = part.var[[c for c in VAR_COLUMNS if c in part.var]].astype(str)
    return Modality(counts, part.obs_names, var)


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


@contextmanager
def readable(path: Path, where: str) -> Iterator[None]:
    """Turn what the readers raise on a file that is none of theirs into one clear line."""
    try:
        yield
    except MorebenchError:
        raise
    except Exception as error:
        kind = path.suffix.removeprefix(".")
        text = " ".join(str(error).split())
        raise DataError(f"{where}: {path} cannot be read as {kind}: {text}") from error


def _read_h5ad(path: str, where: str) -> AnnData:
    import anndata

    found = file_of(path, where, (".h5ad",))
    with readable(found, where):
        check_hdf5(found, where)
        return anndata.read_h5ad(found)


def check_shared_cells(cells: Mapping[str, pd.Index], where: str) -> None:
    """Raise DataError for a modality that shares no cell with the first one."""
    first, *others = cells
    for other in others:
        if not len(cells[first].intersection(cells[other])):
            raise DataError(
                f"{where}: the modality {other!r} shares no cell with {first!r}: ids are like "
                f"{cells[other][0]!r} and {cells[first][0]!r}; they must be the same strings"
            )


def join_obs(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the obs tables of one dataset's modalities: each cell once, its first value known."""
    cells = tables[0].index
    for table in tables[1:]:
        cells = cells.append(table.index[~table.index.isin(cells)])
    joined = pd.DataFrame(index=cells)
    for table in tables:
        for name in table.columns:
            values = table[name].astype(object).reindex(cells)
            known = joined[name] if name in joined else values
            joined[name] = known.where(known.notna(), values)
    return joined


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
        parts: dict[str, Any] = {m: _read_h5ad(p, f"{where}, {m}") for m, p in paths.items()}
        found = {m: _modality(p, dataset.layer, f"{where}, {m}") for m, p in parts.items()}
        obs = join_obs([p.obs for p in parts.values()])
    elif str(paths).endswith(".h5mu"):
        import mudata

        path = file_of(str(paths), where)
        with readable(path, where), mudata.set_options(pull_on_update=False):
            check_hdf5(path, where)
            data = mudata.read_h5mu(path)
        chosen = modality_names(dataset, data.mod, where)
        parts = {m: data.mod[key] for m, key in chosen.items()}
        found = {m: _modality(p, dataset.layer, f"{where}[{m}]") for m, p in parts.items()}
        obs = h5mu_obs(data.obs, {key: data.mod[key].obs for key in chosen.values()})
    else:
        data = _read_h5ad(str(paths), where)
        found, obs = {dataset.modality: _modality(data, dataset.layer, where)}, data.obs
    check_shared_cells({m: p.cells for m, p in found.items()}, where)
    return map_obs(obs, dataset, where), found


def _from_parts(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, Modality]]:
    frames, parts = [], []
    for i, part in enumerate(dataset.concat):
        at = f"{where}.concat[{i}]"
        data = _read_h5ad(part.path, at)
        frames.append(in_part(map_obs(data.obs, dataset, at, part), i))
        modality = _modality(data, part.layer or dataset.layer, at)
        modality.cells = in_part(pd.DataFrame(index=modality.cells), i).index
        parts.append(modality)
    genes = shared_genes([p.var.index for p in parts], where)
    stacked = sp.vstack([p.counts_mg[:, p.var.index.get_indexer(genes)] for p in parts]).tocsr()
    cells = parts[0].cells.append([p.cells for p in parts[1:]])
    merged = Modality(stacked, cells, parts[0].var.loc[genes])
    return pd.concat(frames), {dataset.modality: merged}


def in_part(table: pd.DataFrame, part: int) -> pd.DataFrame:
    """Return a table whose cells are named after the file of ``concat`` that they stand in."""
    return table.set_axis(pd.Index([f"{part}:{cell}" for cell in table.index]))


def shared_genes(genes: Sequence[pd.Index], where: str) -> pd.Index:
    """Return the feature names that all files have, in the order of the first one."""
    shared = genes[0]
    for other in genes[1:]:
        shared = shared[shared.isin(other)]
    if len(shared) == 0:
        raise DataError(f"{where}: the files of concat have no gene name in common")
    return shared


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
    obs = settle(obs, dataset, where)
    check_held_out(obs, dataset, where)
    kept: dict[str, Modality] = {}
    for key, part in modalities.items():
        order = obs.index[obs.index.isin(part.cells)]
        rows = part.cells.get_indexer(order)
        kept[key] = Modality(part.counts_mg[rows], order, part.var)
    return Raw(obs, kept)
