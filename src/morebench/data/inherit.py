"""Derived datasets in a configuration: what they take from their base, what is their own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from morebench.data.spec import DatasetConfig, splits_of
from morebench.errors import ConfigError, listed

#: Keys that a derived dataset may give itself; all others are its base's.
OWN = ("title", "features", "splits", "tasks", "methods", "derive")
#: Keys that it does not take from its base.
NOT_TAKEN = ("title", "derive")


def inherit(datasets: Any, source: str) -> Any:
    """Fill every derived dataset with what its base says.

    Parameters
    ----------
    datasets
        The configuration's ``datasets``, not checked yet. What has not the shape of a
        derived dataset is returned as it is, for the models to judge.
    source
        The file, for errors.

    Raises
    ------
    ConfigError
        ``derive.from`` is no dataset of the configuration, or is derived itself.
    """
    if not isinstance(datasets, Mapping):
        return datasets
    found = dict(datasets)
    for name, entry in datasets.items():
        base = _base_of(entry)
        if base is None:
            continue
        at = f"{source}: datasets.{name}.derive.from"
        if base not in datasets:
            others = sorted(str(d) for d in datasets if d != name)
            near = difflib.get_close_matches(base, others, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"{at}: {base!r} is not a configured dataset; {hint}valid: {listed(others, 40)}"
            )
        given = datasets[base]
        if isinstance(given, Mapping) and given.get("derive") is not None:
            raise ConfigError(
                f"{at}: {base!r} is derived itself; valid: a dataset with a source of its own"
            )
        if isinstance(given, Mapping):
            taken = {k: v for k, v in given.items() if k not in NOT_TAKEN}
            found[name] = {**taken, **entry}
    return found


def _base_of(entry: Any) -> str | None:
    derive = entry.get("derive") if isinstance(entry, Mapping) else None
    base = derive.get("from") if isinstance(derive, Mapping) else None
    return base if isinstance(base, str) else None


def check_derived(dataset: DatasetConfig, datasets: Mapping[str, DatasetConfig], at: str) -> None:
    """Check a derived dataset against its base and its own splits; any other one passes.

    Raises
    ------
    ConfigError
        A key that is not its own to change; a change that needs labels, or shown labels,
        where there are none.
    """
    change = dataset.derive
    if change is None:
        return
    base = datasets[change.base]
    for key in DatasetConfig.model_fields:
        if key not in OWN and getattr(dataset, key) != getattr(base, key):
            raise ConfigError(
                f"{at}.{key}: a derived dataset has that of its base {change.base!r}; leave it "
                f"out (its own are: {', '.join(OWN)})"
            )
    for key in ("titrate", "label_noise", "label_missing"):
        if getattr(change, key) and dataset.labels is None:
            raise ConfigError(f"{at}.derive.{key}: needs 'labels' of the base {change.base!r}")
    for key in ("label_noise", "label_missing"):
        if getattr(change, key) and set(splits_of(dataset)) == {"all"}:
            raise ConfigError(f"{at}.derive.{key}: 'splits' lists none that shows labels")
