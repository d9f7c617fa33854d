"""The leak canary: labels that a method must not see must not matter.

A small dataset is taken from its source file through prepare, split and input to every method's
process, twice: as it is, and with the hidden labels permuted in the source, so in every file
that is made of it. A method whose output differs has read, by whatever way, what was hidden.
The ids of the source spell the labels, and change with them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morebench import runner
from morebench.config import Config, Method, backbone_of, backbones_of, load
from morebench.contract import MethodOutput
from morebench.data.spec import splits_of
from morebench.files import atomic_directory
from morebench.io.outputs import Status, read_output
from morebench.paths import Paths
from morebench.plan import Run

if TYPE_CHECKING:
    from anndata import AnnData

DATASET, HELD_OUT = "canary", "batch1"
SPLIT = f"lobo-{HELD_OUT}"
TOLERANCE = 1e-5  # of numbers that come from the same seed on the same machine
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


@dataclass(frozen=True)
class Verdict:
    """What became of a method: ``passed``, ``caught``, ``exempt``, or the state of its run."""

    method: str
    outcome: str
    reason: str = ""


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
    """Return what the workflow copies into the method's folder, by its names there."""
    found = {runner.INPUT_NAMES["input"]: paths.input(DATASET, "all")}
    if method.spec.all_genes:
        found[runner.INPUT_NAMES["all_genes"]] = paths.prepared(DATASET)
    backbone = backbone_of(method)
    if backbone is not None:
        found[runner.INPUT_NAMES["features"]] = paths.features(DATASET, "all", backbone)
    return found


def run_method(method: Method, paths: Paths, root: Path, seed: int) -> tuple[Status, MethodOutput]:
    """Run a method as the workflow does; the output is empty unless it ends ok."""
    from morebench import environments
    from morebench.io.inputs import read_input
    from morebench.io.splits import read_split

    run = Run(DATASET, SPLIT, method.name, seed)
    shown = None
    if method.spec.track == "semi-supervised":
        table = read_split(paths.split(DATASET, SPLIT))
        shown = (table["cell_id"].to_numpy(dtype=object), table["label"].to_numpy(dtype=object))
    status = runner.run(
        method.settings(),
        Status(DATASET, SPLIT, method.name, seed, "failed", log=str(paths.log(run))),
        files=files_of(method, paths),
        labels=shown,
        output=paths.embedding(run),
        limits=runner.Limits(1, method.spec.mem_mb, method.spec.runtime_min * 60),
        interpreter=environments.interpreter(method.spec.environment, root=root),
    )
    if status.state != "ok":
        return status, MethodOutput()
    given = read_input(paths.input(DATASET, "all"))
    declared = method.spec.outputs
    return status, read_output(paths.embedding(run), given.cell_ids, len(given.genes), declared)


def differences(one: MethodOutput, two: MethodOutput) -> list[str]:
    """Return the kinds of output in which two runs differ by more than ``TOLERANCE``."""
    found = []
    for kind in ("embedding", "doublet_score", "expression", "graph", "probabilities"):
        a, b = getattr(one, kind), getattr(two, kind)
        if a is None and b is None:
            continue
        if kind == "graph":
            apart = float(abs(a - b).max())
        elif np.shape(a) != np.shape(b) or list(getattr(a, "columns", ())) != list(
            getattr(b, "columns", ())
        ):
            apart = np.inf
        else:
            apart = float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max(initial=0))
        if apart > TOLERANCE:
            found.append(f"{kind} by {apart:.2g}")
    if one.labels is not None and (one.labels != two.labels).any():
        found.append(f"labels of {int((one.labels != two.labels).sum())} cells")
    return found


def canary_config(root: Path, methods: Mapping[str, Mapping[str, object]]) -> Config:
    """Return the configuration of the canary's dataset, with these entries as methods."""
    dataset = {**SETTINGS, "path": str(root / "source.h5ad")}
    return load({"datasets": {DATASET: dataset}, "methods": methods}, "canary")


def watch_methods(
    methods: Mapping[str, Method], folder: Path, config: Config, *, root: Path, seed: int = 0
) -> Iterator[Verdict]:
    """Run methods with the hidden labels as they are and permuted, and compare.

    Hidden are the labels of the held-out batch for methods that are shown the others, all of
    them for the rest. Both runs find their files under the same names.

    Parameters
    ----------
    methods
        By name; those that are given the truth are exempt.
    folder
        Where the dataset is made, three times; emptied each time.
    config
        ``canary_config`` of the folder, for its dataset and its frozen features.
    root
        Checkout that holds ``envs/``.
    """
    cells = source_cells(seed)
    told = (cells.obs["batch"] != HELD_OUT).to_numpy()
    worlds = {
        "as it is": cells,
        "held out": permuted(cells, ~told, seed + 1),
        "all": permuted(cells, np.ones(len(told), dtype=bool), seed + 1),
    }
    found: dict[str, dict[str, tuple[Status, MethodOutput]]] = {}
    watched = {name: m for name, m in methods.items() if not m.spec.truth}
    for world, source in worlds.items():
        shutil.rmtree(folder, ignore_errors=True)
        paths = make_world(folder, source, config)
        for name, method in watched.items():
            own = "held out" if method.spec.track == "semi-supervised" else "all"
            if world in ("as it is", own):
                kept = found.setdefault(name, {})
                kept["plain" if world == "as it is" else "permuted"] = run_method(
                    method, paths, root, seed
                )
    for name in methods:
        if name not in watched:
            yield Verdict(name, "exempt", "a control that is given the truth")
            continue
        (first, one), (second, two) = found[name]["plain"], found[name]["permuted"]
        if first.state != "ok" or second.state != first.state:
            worst = first if first.state != "ok" else second
            yield Verdict(name, worst.state, worst.reason)
            continue
        apart = differences(one, two)
        yield Verdict(name, "caught" if apart else "passed", ", ".join(apart))
