"""Tables, each written whole and read only while its checksum holds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from morebench.errors import ContractError
from morebench.files import atomic_path, verify


def write_parquet(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table with its columns only (no index)."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_parquet(path: str | Path, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a table and check that it has ``columns``, in any order."""
    verify(path)
    frame = pd.read_parquet(path)
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise ContractError(f"{path}: lacks the columns {missing}; it has {list(frame.columns)}")
    return frame


def write_tsv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a tab-separated table; missing values are empty, numbers keep 6 digits."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, sep="\t", index=False, float_format="%.6g", lineterminator="\n")


def read_tsv(path: str | Path) -> pd.DataFrame:
    """Read a written table: empty cells are missing values, words such as ``NA`` stay words."""
    verify(path)
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])
