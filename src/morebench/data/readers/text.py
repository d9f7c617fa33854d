"""Delimited text, plain or gzip: its header, its separator, all of it as text."""

from __future__ import annotations

import csv
import io
from itertools import islice
from pathlib import Path

import pandas as pd

from morebench.data.archives import open_binary
from morebench.errors import DataError


def separator_of(path: Path, given: str | None) -> str:
    """Return the separator: the given one, else a comma in .csv files and a tab in others."""
    if given is not None:
        return given
    return "," if path.name.removesuffix(".gz").lower().endswith(".csv") else "\t"


def header_of(path: Path, separator: str, where: str) -> list[str]:
    """Return the names of all columns; R leaves out that of the first, which is then ``""``.

    Raises
    ------
    DataError
        If there are no rows, or header and first row do not fit.
    """
    with open_binary(path) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        rows = list(islice(csv.reader(lines, delimiter=separator), 2))
        lines.detach()
    if len(rows) < 2:
        raise DataError(f"{where}: has {len(rows)} lines; valid: a header and rows")
    header, first = rows
    if len(first) == len(header) + 1:
        header = ["", *header]
    if len(first) != len(header):
        raise DataError(
            f"{where}: the header has {len(header)} fields, the first row {len(first)}; valid: as "
            f"many, or one less in the header; the separator is {separator!r} (set 'separator:')"
        )
    if len(header) < 2:
        raise DataError(
            f"{where}: has one column; is {separator!r} its separator? (set 'separator:')"
        )
    return header


def read_text(path: Path, separator: str, names: list[str] | None, where: str) -> pd.DataFrame:
    """Read a whole table as text, without (``names`` is None) or with a header of these names.

    Columns of a table without a header are numbered. Quotes are taken off; nothing is missing.
    """
    with open_binary(path) as stream:
        try:
            table = pd.read_csv(
                stream, sep=separator, header=None, dtype=str, skiprows=int(names is not None),
                na_filter=False,
            )  # fmt: skip
        except pd.errors.EmptyDataError:
            raise DataError(f"{where}: is empty") from None
    return table if names is None else table.set_axis(names, axis=1)
