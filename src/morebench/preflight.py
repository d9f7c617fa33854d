"""Checks of the data that need no counts: made before any job starts."""

from __future__ import annotations

import pandas as pd

from morebench.config import Config
from morebench.data.derive import check_early
from morebench.data.mapping import LEVELS, check_held_out, check_size
from morebench.data.peek import peek
from morebench.errors import DataError
from morebench.io.prepared import spells


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


def check(config: Config) -> None:
    """Check every dataset of a configuration against its files.

    Raises
    ------
    ConfigError, DataError
        The first thing that would make a job fail later.
    """
    for name, dataset in config.datasets.items():
        where = f"datasets.{name}"
        found = peek(name, dataset)
        if found is not None:
            obs, n_features = found
            check_held_out(obs, dataset, where)
            check_early(obs, dataset, where)
            check_columns(obs, where)
            check_size(len(obs), n_features, dataset.features.n_pcs, where)
