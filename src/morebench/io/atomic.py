"""Atomic writes: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from morebench.errors import ContractError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The temporary name keeps the suffixes, since some writers choose a format by them.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".tmp-", suffix=f"-{target.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory that replaces ``path`` when the block succeeds."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".tmp-{target.name}-"))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write JSON with sorted keys, so that equal content is an equal file."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object; a file that is not one raises ContractError."""
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ContractError(f"{path}: not JSON ({error}); delete it and run again") from error
    if not isinstance(content, dict):
        raise ContractError(f"{path}: holds {type(content).__name__}, expected an object")
    return content


def write_parquet(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table with its columns only (no index)."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_parquet(path: str | Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table and check that it has ``columns``, in any order."""
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
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])
