"""Tables about the cells, joined to them by their ids."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from morebench.data.mapping import check_unique, column
from morebench.data.members import one_matching
from morebench.data.raw import readable
from morebench.data.readers.text import header_of, read_text, separator_of
from morebench.data.spec import resolve
from morebench.data.spec_source import Annotation
from morebench.errors import DataError

LOG = logging.getLogger(__name__)


def extracted(ids: pd.Index, pattern: str, what: str, where: str) -> pd.Index:
    """Return what a pattern's group finds in every id; DataError where it finds nothing."""
    found = ids.to_series().str.extract(re.compile(pattern), expand=False)
    if found.isna().any():
        raise DataError(
            f"{where}: the pattern {pattern!r} finds no {what} in {int(found.isna().sum())} of "
            f"{len(ids)} names, such as {ids[found.isna().to_numpy()][0]!r}"
        )
    return pd.Index(found.to_numpy())


def _table(entry: Annotation, files: Sequence[Path], where: str) -> pd.DataFrame:
    if entry.path is not None:
        path = resolve(entry.path, where)
        if not path.is_file():
            raise DataError(f"{where}: there is no file {path} (from {entry.path!r})")
    else:
        path = one_matching(files, str(entry.file), where)
    with readable(path, where):
        separator = separator_of(path, entry.separator)
        names = header_of(path, separator, where)
        return read_text(path, separator, names, where)


def annotate(
    obs: pd.DataFrame, own: pd.Series, entry: Annotation, files: Sequence[Path], where: str
) -> pd.DataFrame:
    """Join a table's columns to the cells; those that it does not name have none there.

    Parameters
    ----------
    obs : (n, ...) DataFrame
        By cell id; ``sample`` where the dataset has several.
    own : (n,) Series
        Each cell's id as its file has it, by cell id.
    files
        The files of the source.

    Raises
    ------
    DataError
        If the table names no cell of the dataset, one twice, or has a column that is there
        already.
    """
    table = _table(entry, files, where)
    ids = table.iloc[:, 0] if entry.id is None else column(table, entry.id, where)
    keys = pd.Index(ids.to_numpy())
    for old, new in entry.replace.items():
        keys = keys.str.replace(old, new, regex=False)
    if entry.id_pattern is not None:
        keys = extracted(keys, entry.id_pattern, "cell id", where)
    wanted = own
    if entry.sample is not None:
        samples = column(table, entry.sample, where)
        keys = pd.Index(samples.astype(str).to_numpy() + ":" + keys.to_numpy(dtype=object))
        wanted = column(obs, "sample", where).astype(str) + ":" + own
    elif own.duplicated().any():
        raise DataError(
            f"{where}: the cell id {own[own.duplicated()].iloc[0]!r} is there in several samples; "
            "name the table's column that tells them apart with 'sample:'"
        )
    check_unique(keys, "cell ids", where)
    known = wanted.isin(keys).to_numpy()
    if not known.any():
        raise DataError(
            f"{where}: names no cell of the dataset: its ids are like {keys[0]!r}, those of the "
            f"cells like {wanted.iloc[0]!r} (see 'id:', 'id_pattern:', 'replace:', 'sample:')"
        )
    LOG.info("%s: names %d of %d cells", where, known.sum(), len(known))
    # An empty field and R's NA are no value.
    values = table.set_axis(keys).drop(columns=[ids.name]).replace({"": None, "NA": None})
    values = values.drop(columns=[c for c in (entry.sample,) if c in values])
    clash = [c for c in values.columns if c in obs]
    if clash:
        raise DataError(f"{where}: the cells have a column {clash[0]!r} already")
    joined = obs.join(values.reindex(wanted).set_axis(obs.index))
    return joined.loc[known] if entry.only else joined
