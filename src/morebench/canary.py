"""The leak canary: labels that a method must not see must not matter.

A small dataset is taken from its source file through prepare, split and input to every method's
process, twice: as it is, and with the hidden labels permuted in the source, so in every file
that is made of it. A method whose output differs has read, by whatever way, what was hidden.
The ids of the source spell the labels, and change with them. Methods start from another's model
and run in ranges of cells as they do in the workflow.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from morebench import environments, runner, shards
from morebench.canary_world import (
    DATASET,
    HELD_OUT,
    SPLIT,
    files_of,
    make_world,
    permuted,
    source_cells,
)
from morebench.config import Config, Method, pretrained_of
from morebench.contract import MethodOutput
from morebench.io.inputs import read_input
from morebench.io.outputs import MODEL_FILE, Status, read_output
from morebench.io.splits import read_split
from morebench.paths import Paths
from morebench.plan import Run

TOLERANCE = 1e-5  # of numbers that come from the same seed on the same machine
RANGES, SAMPLE = 2, 160  # of a run in ranges: their number, and the cells of its fit


@dataclass(frozen=True)
class Verdict:
    """What became of a method: ``passed``, ``caught``, ``exempt``, or the state of its run."""

    method: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True)
class Canary:
    """One world's files, and who runs on them: the methods by name, the checkout, the seed."""

    paths: Paths
    methods: Mapping[str, Method]
    root: Path
    seed: int

    def run(self, method: Method) -> tuple[Status, MethodOutput]:
        """Run a method as the workflow does; the output is empty unless it ends ok."""
        run = self._run_of(method)
        status = self._part(method, self.paths.embedding(run), "", self._pretrained(method))
        return status, self._output(method, run, status)

    def run_in_ranges(self, method: Method) -> tuple[Status, MethodOutput]:
        """Run a method that declares ``sharded`` on a sample and, by its model, on ranges.

        Without frozen features, which rest on counts alone and are made by ranges before.
        """
        method = replace(method, params={**method.params, "features": False})
        run = replace(self._run_of(method), split=f"{SPLIT}.ranges")
        fitted = self.paths.shard(run, "fit")
        status = self._part(method, fitted, f"fit:{SAMPLE}:{self.seed}", None)
        parts = [self.paths.shard(run, str(i)) for i in range(RANGES)]
        if status.state == "ok":
            for i, part in enumerate(parts):
                self._part(method, part, f"embed:{i}/{RANGES}", fitted / MODEL_FILE)
            given = self.paths.input(DATASET, "all")
            outputs = method.spec.outputs
            status = shards.gather(self.paths.embedding(run), fitted, parts, given, outputs)
        return status, self._output(method, run, status)

    def _run_of(self, method: Method) -> Run:
        return Run(DATASET, SPLIT, method.name, self.seed)

    def _pretrained(self, method: Method) -> Path | None:
        """Return the model that a method starts from, fitted in this world."""
        name = pretrained_of(method, self.methods)
        if name is None:
            return None
        earlier = self.methods[name]
        model = self.paths.embedding(self._run_of(earlier)) / MODEL_FILE
        if not model.exists():
            self.run(earlier)
        return model if model.exists() else None

    def _part(self, method: Method, output: Path, part: str, model: Path | None) -> Status:
        shown = None
        if method.spec.track == "semi-supervised":
            table = read_split(self.paths.split(DATASET, SPLIT))
            shown = (table["cell_id"].to_numpy(object), table["label"].to_numpy(object))
        log = self.paths.log(self._run_of(method))
        status = Status(DATASET, SPLIT, method.name, self.seed, "failed", log=str(log))
        files = files_of(method, self.paths)
        if part:
            files.pop("all_genes", None)  # as in the workflow: the input has them
        if model is not None:
            files["pretrained"] = model
        with shards.part_of(files, shown, method.spec.outputs, part) as (files, shown, outputs):
            return runner.run(
                {**method.settings(), "outputs": outputs},
                status,
                files={runner.INPUT_NAMES[k]: path for k, path in files.items()},
                labels=shown,
                output=output,
                limits=runner.Limits(1, method.spec.mem_mb, method.spec.runtime_min * 60),
                interpreter=environments.interpreter(method.spec.environment, root=self.root),
            )

    def _output(self, method: Method, run: Run, status: Status) -> MethodOutput:
        if status.state != "ok":
            return MethodOutput()
        given = read_input(self.paths.input(DATASET, "all"))
        folder, declared = self.paths.embedding(run), method.spec.outputs
        return read_output(folder, given.cell_ids, len(given.genes), declared)


def differences(one: MethodOutput, two: MethodOutput) -> list[str]:
    """Return the kinds of output in which two runs differ by more than ``TOLERANCE``."""
    found = []
    for kind in ("embedding", "doublet_score", "novelty", "expression", "graph", "probabilities"):
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
    weights, others = one.model or {}, two.model or {}
    if any(
        name not in others
        or others[name].shape != value.shape
        or np.abs(value.astype(float) - others[name].astype(float)).max(initial=0) > TOLERANCE
        for name, value in weights.items()
    ):
        found.append("its model")
    return found


def watch_methods(
    methods: Mapping[str, Method], folder: Path, config: Config, *, root: Path, seed: int = 0
) -> Iterator[Verdict]:
    """Run methods with the hidden labels as they are and permuted, and compare.

    Hidden are the labels of the held-out batch for methods that are shown the others, all of
    them for the rest. Both runs find their files under the same names. Methods that declare
    ``sharded`` run in ranges of cells too.

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
    found: dict[str, list[list[tuple[Status, MethodOutput]]]] = {}
    watched = {name: m for name, m in methods.items() if not m.spec.truth}
    for world, source in worlds.items():
        shutil.rmtree(folder, ignore_errors=True)
        here = Canary(make_world(folder, source, config), methods, root, seed)
        for name, method in watched.items():
            own = "held out" if method.spec.track == "semi-supervised" else "all"
            if world in ("as it is", own):
                ran = [here.run(method)]
                if method.spec.sharded:
                    ran.append(here.run_in_ranges(method))
                found.setdefault(name, []).append(ran)
    for name in methods:
        if name in watched:
            yield verdict(name, *found[name])
        else:
            yield Verdict(name, "exempt", "a control that is given the truth")


def verdict(
    name: str,
    plain: list[tuple[Status, MethodOutput]],
    permuted: list[tuple[Status, MethodOutput]],
) -> Verdict:
    """Return what a method's runs in two worlds say of it: whole first, then in ranges."""
    for (first, one), (second, two) in zip(plain, permuted, strict=True):
        if second.state != first.state:
            told = f"{first.state}, and {second.state} with other labels hidden"
            return Verdict(name, "caught", f"{told}: {first.reason or second.reason}")
        if first.state != "ok":
            return Verdict(name, first.state, first.reason)
        apart = differences(one, two)
        if apart:
            return Verdict(name, "caught", ", ".join(apart))
    return Verdict(name, "passed")
