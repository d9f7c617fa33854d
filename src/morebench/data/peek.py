"""A look at a dataset's files before any job starts: columns and names, no counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from morebench.data.local import local_sources
from morebench.data.mapping import check_unique, map_obs, settle
from morebench.data.raw import check_layer, check_names, join_obs, readable, shared_genes
from morebench.data.sources import (
    check_shared_cells,
    file_of,
    h5mu_obs,
    in_file,
    in_part,
    main_modality,
    modality_names,
)
from morebench.data.spec import DatasetConfig
from morebench.errors import DataError
from morebench.io.hdf5 import check_hdf5


@dataclass
class _Seen:
    """What a look at a file shows of a modality: its obs table and feature names."""

    obs: pd.DataFrame
    genes: pd.Index


def _look(group: Any, layer: str | None, where: str) -> _Seen:
    from anndata.io import read_elem

    seen = _Seen(read_elem(group["obs"]), read_elem(group["var"]).index)
    check_names(seen.obs.index, seen.genes, where)
    check_layer(layer, "X" in group, list(group.get("layers", ())), where)
    return seen


def _peek_h5ad(path: str, layer: str | None, where: str) -> _Seen:
    import h5py

    found = file_of(path, where, (".h5ad",))
    with readable(found, where):
        check_hdf5(found, where)
    with readable(found, where), h5py.File(found) as file:
        if "mod" in file:
            raise DataError(f"{where}: {found} holds several modalities: name it .h5mu")
        return _look(file, layer, where)


def _peek_h5mu(dataset: DatasetConfig, where: str) -> tuple[pd.DataFrame, dict[str, _Seen]]:
    import h5py
    from anndata.io import read_elem

    path = file_of(str(dataset.path), where)
    with readable(path, where):
        check_hdf5(path, where)
    with readable(path, where), h5py.File(path) as file:
        obs = read_elem(file["obs"])
        order = file["mod"].attrs.get("mod-order", list(file["mod"]))
        chosen = modality_names(dataset, [str(m) for m in order], where)
        found = {
            m: _look(file["mod"][key], dataset.layer, f"{where}[{m}]") for m, key in chosen.items()
        }
    check_unique(obs.index, "cell ids", where)
    return h5mu_obs(obs, {key: found[m].obs for m, key in chosen.items()}), found


def peek(name: str, dataset: DatasetConfig) -> tuple[pd.DataFrame, int] | None:
    """Map a dataset's columns without reading its counts.

    Returns
    -------
    The mapped obs table and the number of features of the main modality, or None for what
    only the run itself can know: bundled data, downloads, and files that need a reader.
    """
    where = f"datasets.{name}"
    local_sources(dataset, where)
    if dataset.bundled or dataset.remote or dataset.read:
        return None
    if dataset.concat:
        frames, names = [], []
        for i, part in enumerate(dataset.concat):
            at = f"{where}.concat[{i}]"
            seen = _peek_h5ad(part.path, part.layer or dataset.layer, at)
            frames.append(in_part(map_obs(seen.obs, dataset, at, part), i))
            names.append(seen.genes)
        return settle(pd.concat(frames), dataset, where), len(
            shared_genes(names, f"{where}.concat")
        )
    if isinstance(dataset.path, dict):
        found = {
            str(m): _peek_h5ad(p, dataset.layer, f"{where}, {m}") for m, p in dataset.path.items()
        }
        obs = join_obs([s.obs for s in found.values()])
    elif str(dataset.path).endswith(".h5mu"):
        obs, found = _peek_h5mu(dataset, where)
    elif dataset.stays_in_file:
        obs, counted = in_file(dataset, where)
        found = {dataset.modality: _Seen(obs, counted.var.index)}
    else:
        found = {dataset.modality: _peek_h5ad(str(dataset.path), dataset.layer, where)}
        obs = found[dataset.modality].obs
    check_shared_cells({m: s.obs.index for m, s in found.items()}, where)
    mapped = settle(map_obs(obs, dataset, where), dataset, where)
    return mapped, len(found[main_modality(found)].genes)
