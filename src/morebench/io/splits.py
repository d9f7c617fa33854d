"""Split tables: which cells fitting sees, which labels are shown, which cells are scored."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd

from morebench.errors import ContractError
from morebench.files import read_json, write_json
from morebench.io.prepared import check_ids
from morebench.io.tables import read_parquet, write_parquet

SPLIT_COLUMNS = ("cell_id", "fit_visible", "label", "scored")


def split_hash(split: pd.DataFrame) -> str:
    """Return the SHA-256 of a split's content, independent of how parquet stores it."""
    rows = split.loc[:, list(SPLIT_COLUMNS)].astype(object)
    rows = rows.where(rows.notna(), None)  # JSON tells a label that is empty from none
    text = json.dumps(rows.to_numpy().tolist())
    return hashlib.sha256(text.encode()).hexdigest()


def _check(split: pd.DataFrame, where: str) -> None:
    check_ids(split["cell_id"].to_numpy(), where)
    for column in ("fit_visible", "scored"):
        if split[column].dtype != bool:
            raise ContractError(f"{where}: {column} is {split[column].dtype}, expected bool")
    both = split["label"].notna() & split["scored"]
    if both.any():
        raise ContractError(f"{where}: {int(both.sum())} cells are scored although shown")


def write_split(path: str | Path, split: pd.DataFrame, facts: dict[str, Any]) -> None:
    """Check and write a split, with its hash and facts in a sidecar (``.json``)."""
    if tuple(split.columns) != SPLIT_COLUMNS:
        raise ContractError(f"{path}: columns {list(split.columns)}, expected {SPLIT_COLUMNS}")
    _check(split, str(path))
    write_parquet(path, split)
    write_json(Path(path).with_suffix(".json"), {**facts, "sha256": split_hash(split)})


def read_split(path: str | Path) -> pd.DataFrame:
    """Read a split; raise ContractError if it is not the one its sidecar describes."""
    split = read_parquet(path, SPLIT_COLUMNS)
    _check(split, str(path))
    recorded = read_json(Path(path).with_suffix(".json")).get("sha256")
    found = split_hash(split)
    if recorded != found:
        raise ContractError(
            f"{path}: its hash is {found}, its sidecar says {recorded}: the split was edited or "
            "damaged. Delete both files and run again."
        )
    return split
