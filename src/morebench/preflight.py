"""Checks of the data that need no counts: made before any job starts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from morebench.config import Config
from morebench.data.derive import check_early
from morebench.data.download import cache_folder, check_offline
from morebench.data.geo import with_names
from morebench.data.manifest import check_locked
from morebench.data.mapping import LEVELS, check_held_out, check_size
from morebench.data.peek import peek
from morebench.data.remote import remotes_of
from morebench.errors import DataError
from morebench.io.prepared import spells
from morebench.paths import Paths


def check_columns(obs: pd.DataFrame, where: str) -> None:
    """Raise DataError for a column that every method sees and that spells the truth."""
    for column in ("batch", "donor", "platform"):
        if obs[column].isna().any():
            continue  # a column that some cells lack is not passed on
        for level in (*LEVELS, "is_doublet"):
            if spells(obs[column], obs[level]):
                raise DataError(
                    f"{where}, {column}: its values spell the truth ({level}), so that every "
                    "method could read it there; map another column, or none"
                )


def check_downloads(config: Config) -> None:
    """Raise DataError for files that the lock has otherwise; offline, for those not there."""
    told = config.downloads
    paths = Paths(Path(config.results))
    for name, dataset in config.datasets.items():
        manifest = Path(paths.downloaded(name))
        if dataset.remote and manifest.exists():
            check_locked(manifest, Path(told.lock))
    if not told.offline:
        return
    wanted, reasons = {}, []
    for name, dataset in config.datasets.items():
        if dataset.remote and not paths.prepared(name).exists():
            where = f"datasets.{name}"
            try:
                known = with_names(dataset, told, where)
            except DataError as error:  # said with all else that is missing
                reasons.append(str(error))
                continue
            for remote in remotes_of(known, told, where):
                wanted[remote.name] = remote
    try:
        check_offline(list(wanted.values()), cache_folder(told.cache))
    except DataError as error:
        reasons.append(str(error))
    if reasons:
        raise DataError("; ".join(dict.fromkeys(reasons)))


def check(config: Config) -> None:
    """Check every dataset of a configuration against its files.

    Files from the web need not be there, unless the run is offline.

    Raises
    ------
    ConfigError, DataError
        The first thing that would make a job fail later.
    """
    check_downloads(config)
    for name, dataset in config.datasets.items():
        where = f"datasets.{name}"
        found = peek(name, dataset)
        if found is not None:
            obs, n_features = found
            check_held_out(obs, dataset, where)
            check_early(obs, dataset, where)
            check_columns(obs, where)
            check_size(len(obs), n_features, dataset.features.n_pcs, where)
