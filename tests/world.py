"""A small dataset, with what the workflow's own code makes of it and methods make of that."""

import shutil

import numpy as np

from morebench import canary_world as canary
from morebench import child, runner
from morebench.config import load, methods_of
from morebench.evaluate import task_data
from morebench.files import copy, write_json
from morebench.io.inputs import write_labels
from morebench.io.outputs import read_output
from morebench.io.prepared import read_shown_truth
from morebench.io.splits import read_split
from morebench.registry import METHODS
from morebench.tasks.contract import Candidate
from tests.quick import QUICK
from tests.unit.test_models_scgpt import write as write_checkpoint


def settings_of(name):
    """Quick ones; the frozen features of a backbone are no matter here."""
    own = QUICK.get(name, {})
    return own | ({"backbone": "none"} if METHODS[name].features else {})


class World:
    """A small dataset, what the workflow makes of it, and what methods make of that."""

    def __init__(self, folder, cells, **settings):
        self.folder = folder
        dataset = {**canary.SETTINGS, "path": str(folder / "source.h5ad"), **settings}
        genes = list(cells.var_names)
        write_checkpoint(folder / "scgpt", genes=genes)
        methods = {name: settings_of(name) for name in METHODS}
        methods["scgpt"] = {"checkpoint": str(folder / "scgpt")}
        config = load({"datasets": {canary.DATASET: dataset}, "methods": methods}, "bad input")
        self.methods = methods_of(config)
        self.paths = canary.make_world(folder, cells, config)
        self.outcomes = {}

    def data(self, split):
        paths, name = self.paths, canary.DATASET
        files = paths.input(name, "all"), paths.split(name, split), paths.truth(name)
        return task_data(name, split, *files)

    def run(self, name, split, shown=None):
        """Return (state, reason, output) of a method; ``shown`` says which labels are kept."""
        key = (name, split if METHODS[name].track == "semi-supervised" else "", shown)
        if key not in self.outcomes:
            self.outcomes[key] = self._run(name, split, shown)
        return self.outcomes[key]

    def _run(self, name, split, shown):
        method, paths = self.methods[name], self.paths
        work = self.folder / f"work-{name}-{split}-{shown}"
        work.mkdir()
        for target, source in canary.files_of(method, paths).items():
            copy(source, work / runner.INPUT_NAMES[target])
        table = read_split(paths.split(canary.DATASET, split))
        ids, labels = table["cell_id"].to_numpy(object), table["label"].to_numpy(object)
        if method.spec.truth:
            ids, labels = read_shown_truth(paths.truth(canary.DATASET), method.spec.truth)
        if shown is not None:
            labels = np.where(labels == shown, labels, None)
        if method.spec.track == "semi-supervised" or method.spec.truth:
            write_labels(work / child.LABELS_FILE, ids, labels)
        told = method.settings()
        task = {k: told[k] for k in ("entry", "outputs", "inductive", "packages", "params")}
        write_json(work / child.TASK_FILE, {**task, "seed": 0, "threads": 1})
        result = child.run(work)
        output = None
        if result["state"] == "ok":
            given, _ = self.data(split)
            output = read_output(work, given.cell_ids, len(given.genes), method.spec.outputs)
        shutil.rmtree(work)
        return result["state"], result["reason"], output

    def candidate(self, name, split, shown=None):
        state, reason, output = self.run(name, split, shown)
        return Candidate(name, METHODS[name].track, 0, state, output, reason)

    def scores(self, task, split, candidate, **changes):
        _, data = self.data(split)
        for key, value in changes.items():
            setattr(data, key, value)
        params = {"n_boot": 20}
        found = task.score(data, [candidate], seed=0, threads=1, params=params)
        for s in found:  # what write_scores asks of every score
            assert np.isfinite(s.value) == (s.status == "ok"), s
            assert s.status == "ok" or s.reason, s
        return {s.metric: s for s in found}
