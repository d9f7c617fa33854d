"""The leak canary's small dataset, and all that the workflow makes of it for methods."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morebench.config import Config, Method, backbone_of, backbones_of, load
from morebench.data.spec import splits_of
from morebench.files import atomic_directory
from morebench.paths import Paths

if TYPE_CHECKING:
    from anndata import AnnData

DATASET, HELD_OUT = "canary", "batch1"
SPLIT = f"lobo-{HELD_OUT}"
SIZES: dict[str, Any] = {
    "n_cells": 240, "n_genes": 200, "n_peaks": 60, "n_proteins": 8, "n_types": 4, "n_rare": 0,
    "rare_fraction": 0.05, "n_batches": 3, "batch_effect": 0.4, "missing_fraction": 0.0,
}  # fmt: skip
SETTINGS = {
    "batch": "batch",
    "labels": {"column": "cell_type", "source": "planted"},
    "doublets": {"column": "is_doublet"},
    "features": {"n_top": 150, "n_pcs": 30, "min_cells": 1},
    "splits": {"lobo": [HELD_OUT]},
    "tasks": ["annotation", "doublets"],
}


def source_cells(seed: int) -> AnnData:
    """Return simulated cells with planted types, doublets by chance, and batches."""
    from morebench.data.simulate import sim_multiome

    whole = sim_multiome(**SIZES, seed=seed)
    cells = whole.mod["rna"].copy()
    rng = np.random.default_rng(seed)
    for column in ("batch", "cell_type"):
        cells.obs[column] = whole.obs.loc[cells.obs_names, column].astype(str).to_numpy()
    cells.obs = cells.obs[["batch", "cell_type"]]
    cells.obs["is_doublet"] = rng.random(cells.n_obs) < 0.1
    return cells


def permuted(cells: AnnData, hidden: np.ndarray, seed: int) -> AnnData:
    """Return the cells with the truth of the hidden ones dealt out among them.

    That is types and doublets; a known doublet shows no label, so those of other cells stay.
    """
    rng = np.random.default_rng(seed)
    other = cells.copy()
    rows = np.flatnonzero(hidden)
    for column in ("cell_type", "is_doublet"):
        values = other.obs[column].to_numpy().copy()
        values[rows] = values[rng.permutation(rows)]
        other.obs[column] = values
    return other


def make_world(root: Path, cells: AnnData, config: Config, *, threads: int = 1) -> Paths:
    """Write the source and all that the workflow makes of it for methods.

    The ids in the source file end in the cell's type.
    """
    from morebench.data.features import make_input
    from morebench.data.prepare import prepare
    from morebench.data.splits import make_split
    from morebench.frozen import input_features
    from morebench.io.inputs import read_input, write_input
    from morebench.io.prepared import write_prepared, write_truth
    from morebench.io.splits import write_split

    paths, dataset = Paths(root / "results"), config.datasets[DATASET]
    cells = cells.copy()
    kind = cells.obs["cell_type"].astype(str)
    cells.obs_names = [f"{i}_{t}" for i, t in enumerate(kind)]
    root.mkdir(parents=True, exist_ok=True)
    cells.write_h5ad(root / "source.h5ad")
    result = prepare(DATASET, dataset)
    write_truth(paths.truth(DATASET), result.truth)
    write_prepared(paths.prepared(DATASET), result.data, result.truth)
    batch = result.data.obs["batch"].astype(str).to_numpy()
    for split, held_out in splits_of(dataset).items():
        table, facts = make_split(split, held_out, result.truth, batch, None)
        write_split(paths.split(DATASET, split), table, facts)
        if split == "all":
            visible = table["fit_visible"].to_numpy()
            made = make_input(result.data, visible, dataset.features, DATASET)
            write_input(paths.input(DATASET, split), made.data)
    given = read_input(paths.input(DATASET, "all"))
    for slug, settings in backbones_of(config).items():
        files = input_features(
            given, settings, cache=paths.feature_cache / DATASET,
            texts=paths.feature_cache / "texts", threads=threads, device="cpu",
        )  # fmt: skip
        folder = paths.features(DATASET, "all", slug)
        with atomic_directory(folder) as directory:
            for file in files:
                shutil.copyfile(file, directory / file.name)
    return paths


def files_of(method: Method, paths: Paths) -> dict[str, Path]:
    """Return what the workflow copies into the method's folder, by what it is."""
    found = {"input": paths.input(DATASET, "all")}
    if method.spec.all_genes:
        found["all_genes"] = paths.prepared(DATASET)
    backbone = backbone_of(method)
    if backbone is not None:
        found["features"] = paths.features(DATASET, "all", backbone)
    return found


def canary_config(root: Path, methods: Mapping[str, Mapping[str, object]]) -> Config:
    """Return the configuration of the canary's dataset, with these entries as methods."""
    dataset = {**SETTINGS, "path": str(root / "source.h5ad")}
    return load({"datasets": {DATASET: dataset}, "methods": methods}, "canary")
