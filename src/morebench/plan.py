"""From a configuration to everything that a run must produce: no file is read here."""

from __future__ import annotations

from dataclasses import dataclass

from morebench.config import Config, Method, methods_of
from morebench.data.spec import DatasetConfig, splits_of
from morebench.registry import TASKS, TaskSpec, fit_split, split_kind


@dataclass(frozen=True, order=True)
class Run:
    """One run of a method: what ``results/embeddings`` holds a directory for."""

    dataset: str
    split: str
    method: str
    seed: int


@dataclass(frozen=True, order=True)
class Cell:
    """One expected cell of the result: a run, scored by a task on a split.

    ``run.split`` differs from ``split`` where a method without labels is scored on the
    cells of a split that shows labels: its embedding is that of the shared fit.
    """

    split: str
    task: str
    run: Run


def takes_part(method: Method, task: TaskSpec, split: str) -> bool:
    """Tell whether a method is scored by a task on a split.

    A semi-supervised method needs shown labels, so it has no run on ``all``.
    """
    if not set(method.spec.outputs) & set(task.outputs):
        return False
    return not (method.spec.track == "semi-supervised" and split_kind(split) == "all")


def run_of(dataset: str, split: str, method: Method, seed: int) -> Run:
    """Return the run that gives a method's output for a split."""
    return Run(dataset, fitted_on(split, method), method.name, seed)


def fitted_on(split: str, method: Method) -> str:
    """Return the split whose run serves a split: its own where the method sees labels."""
    return split if method.spec.track == "semi-supervised" else fit_split(split)


def seeds_of(config: Config, split: str, method: Method) -> list[int]:
    """Return a method's seeds on a scored split.

    They are those of the split's kind, also where the run is shared with another split:
    the shared fit is made for the union of the seeds. A method without randomness has one
    run a fit; its seed is the first one of the fitted split's kind.
    """
    if method.spec.seeded:
        return getattr(config.seeds, split_kind(split))
    return getattr(config.seeds, split_kind(fitted_on(split, method)))[:1]


def task_splits(dataset: DatasetConfig, task: TaskSpec) -> list[str]:
    """Return the dataset's splits that a task is scored on."""
    return [s for s in splits_of(dataset) if split_kind(s) in task.splits]


def expected(config: Config) -> list[Cell]:
    """Return every expected cell of the run, in the configuration's order."""
    cells = []
    methods = methods_of(config)
    for name, dataset in config.datasets.items():
        chosen = dataset.methods if dataset.methods is not None else list(methods)
        for task in (TASKS[t] for t in dataset.tasks):
            for split in task_splits(dataset, task):
                for method in (methods[m] for m in chosen):
                    if not takes_part(method, task, split):
                        continue
                    for seed in seeds_of(config, split, method):
                        cells.append(Cell(split, task.name, run_of(name, split, method, seed)))
    return cells


def runs(config: Config) -> list[Run]:
    """Return every run that the expected cells need, each once."""
    return list(dict.fromkeys(c.run for c in expected(config)))


def scored(config: Config) -> list[tuple[str, str, str]]:
    """Return every (dataset, split, task) that has a method to score."""
    return list(dict.fromkeys((c.run.dataset, c.split, c.task) for c in expected(config)))


def pooled(config: Config) -> list[str]:
    """Return the datasets whose annotation is pooled over their held-out batches."""
    held = (d for d, s, t in scored(config) if (split_kind(s), t) == ("lobo", "annotation"))
    return list(dict.fromkeys(held))
