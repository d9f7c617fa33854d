"""Checks of the data that need no counts: made before any job starts."""

from __future__ import annotations

from morebench.config import Config
from morebench.data.mapping import check_held_out, check_size
from morebench.data.sources import peek
from morebench.data.spec import DatasetConfig
from morebench.errors import ConfigError
from morebench.registry import TASKS, TRUSTED_LABEL_SOURCES


def check_tasks(name: str, dataset: DatasetConfig) -> None:
    """Raise ConfigError for a task that the dataset's declared truth cannot serve."""
    for task in dataset.tasks:
        at = f"datasets.{name}.tasks: {task!r}"
        needs = TASKS[task].needs
        if {"labels", "trusted_labels"} & set(needs) and dataset.labels is None:
            raise ConfigError(f"{at} needs 'labels'")
        if "doublets" in needs and dataset.doublets is None:
            raise ConfigError(f"{at} needs 'doublets'")
        if "two_batches" in needs and dataset.batch is None and not dataset.concat:
            raise ConfigError(f"{at} needs 'batch'")
        if "trusted_labels" in needs and dataset.labels is not None:
            if dataset.labels.source not in TRUSTED_LABEL_SOURCES:
                raise ConfigError(
                    f"{at} is never scored against labels whose source is "
                    f"{dataset.labels.source!r}; valid: {', '.join(TRUSTED_LABEL_SOURCES)}"
                )
    splits = dataset.splits
    if dataset.labels is None and (splits.partial or splits.lobo or splits.newtype):
        raise ConfigError(f"datasets.{name}.splits: splits that show labels need 'labels'")


def check(config: Config) -> None:
    """Check every dataset of a configuration against its files.

    Raises
    ------
    ConfigError, DataError
        The first thing that would make a job fail later.
    """
    for name, dataset in config.datasets.items():
        check_tasks(name, dataset)
        found = peek(name, dataset)
        if found is not None:
            obs, n_features = found
            where = f"datasets.{name}"
            check_held_out(obs, dataset, where)
            check_size(len(obs), n_features, dataset.features.n_pcs, where)
