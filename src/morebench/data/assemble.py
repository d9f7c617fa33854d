"""From files of many formats to one dataset: samples put together, features named, cells told."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data.annotate import annotate, extracted
from morebench.data.mapping import check_unique, column
from morebench.data.members import matching, members_of, one_matching, patterns_of
from morebench.data.raw import Modality, checked, join_obs, readable, stacked
from morebench.data.readers import read_file
from morebench.data.readers.h5ad import h5ad_in_file
from morebench.data.readers.stored import is_gzip
from morebench.data.readers.text import header_of, read_text, separator_of
from morebench.data.spec import DatasetConfig
from morebench.data.spec_source import GeneNames, Read
from morebench.data.strict import Constant
from morebench.errors import DataError, listed
from morebench.io.backed import Counts

LOG = logging.getLogger(__name__)

# What files say of their features: our modality.
TYPES = {
    "Gene Expression": "rna",
    "GEX": "rna",
    "Antibody Capture": "adt",
    "ADT": "adt",
    "Peaks": "atac",
    "ATAC": "atac",
}
CELLXGENE = Read(files="*.h5ad", format="h5ad", var_names="feature_name")
# How far a value may be from a whole number once the correction for saturation is undone.
TOLERANCE = 0.01


def uncorrected(values: np.ndarray, umis: int, where: str) -> np.ndarray:
    """Return UMI counts from molecule numbers that were corrected for saturated UMIs.

    The correction of CEL-seq, t = -K ln(1 - n / K) with K possible UMIs, is inverted
    (Gruen, Kester & van Oudenaarden 2014, Nature Methods 11:637).

    Raises
    ------
    DataError
        If the result is no whole number: the values are others, or K is.
    """
    counts = umis * (1 - np.exp(-values / umis))
    off = np.abs(counts - np.round(counts))
    if len(off) and off.max() > TOLERANCE:
        worst = int(off.argmax())
        raise DataError(
            f"{where}: {values[worst]} is no count that was corrected for {umis} UMIs (it would "
            f"be {counts[worst]:.4f}); see 'umis:'"
        )
    return np.round(counts)


def _counts(matrix: Any, entry: Read, where: str) -> sp.csr_matrix:
    counts = sp.csr_matrix(matrix)
    if entry.umis is not None:
        values = uncorrected(counts.data.astype(np.float64), entry.umis, where)
    elif entry.round:
        values = np.round(counts.data)
    else:
        return counts
    return sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def _renamed(names: pd.Index, told: GeneNames, files: Sequence[Path], where: str) -> pd.Index:
    """Return the names of features by their ids; one that the table lacks keeps its id."""
    path = one_matching(files, told.file, f"{where}, names")
    separator = separator_of(path, told.separator)
    at = f"{where}, {path.name}"
    table = read_text(path, separator, header_of(path, separator, at), at)
    ids = pd.Index(column(table, told.id, at))
    check_unique(ids, "ids", at)
    found = column(table, told.name, at).set_axis(ids).reindex(names)
    if found.isna().all():
        raise DataError(f"{at}: names none of the features, which are like {names[0]!r}")
    return pd.Index(found.where(found.notna() & (found != ""), names).to_numpy())


def merged(counts: Counts, var: pd.DataFrame) -> tuple[Counts, pd.DataFrame]:
    """Sum the features of one name, which keep the place and the ``gene_id`` of the first."""
    if var.index.is_unique:
        return counts, var
    code, names = pd.factorize(var.index)
    LOG.info("%d features share their name with another one: summed", len(var) - len(names))
    ones = np.ones(len(code), dtype=np.float32)
    onto = sp.csr_matrix((ones, (np.arange(len(code)), code)), shape=(len(code), len(names)))
    return counts @ onto, var.loc[~var.index.duplicated()]


def _named(var: pd.DataFrame, entry: Read, files: Sequence[Path], where: str) -> pd.DataFrame:
    """Return ``var`` under the names of the features."""
    var = var.copy()
    names = pd.Index(var.index.astype(str).to_numpy())
    if "gene_id" in var:  # a feature without a name has that of its id
        names = pd.Index(np.where(names == "", var["gene_id"].astype(str), names))
    if entry.names is not None:
        var["gene_id"] = names.to_numpy()
        names = _renamed(names, entry.names, files, where)
    if entry.gene is not None:
        names = extracted(names, entry.gene, "gene", where)
    return var.set_axis(names, axis=0)


def _split(part: Modality, entry: Read, files: Sequence[Path], where: str) -> dict[str, Modality]:
    """Return checked counts by modality."""
    var = _named(part.var, entry, files, where)
    kinds = pd.Series(entry.modality, index=range(len(var)), dtype=object)
    if "feature_types" in var:
        types = pd.Series(var["feature_types"].astype(str).to_numpy())
        kinds = types.map(TYPES)
        other = sorted(set(types[kinds.isna()]))
        if kinds.isna().all():
            raise DataError(
                f"{where}: features are of the types {listed(other)}; valid: {listed(TYPES)}"
            )
        if other:
            LOG.info("%s: features of the types %s are left out", where, listed(other))
    found = {}
    for name in dict.fromkeys(kinds.dropna()):
        chosen = (kinds == name).to_numpy()
        counts, its = merged(part.counts_mg[:, chosen], var.loc[chosen])
        at = f"{where}[{name}]" if "feature_types" in var else where
        found[name] = checked(counts, part.cells, its, at)
    return found


def _read(
    path: Path, entry: Read, files: Sequence[Path], dataset: DatasetConfig, where: str, stays: bool
) -> tuple[pd.DataFrame, Modality]:
    """Return the cells and features of one file, and its counts or where they stay."""
    raw = dataset.cellxgene is not None
    if stays:
        with readable(path, where):
            obs, var, counts = h5ad_in_file(
                path, where, layer=dataset.layer, raw=raw, var_names=entry.var_names
            )
        return obs, Modality(counts, obs.index.astype(str), var)
    data = read_file(path, entry, files, where, layer=dataset.layer, raw=raw)
    return data.obs, Modality(_counts(data.X, entry, where), data.obs_names, data.var)


def _can_stay(chosen: Sequence[tuple[int, Path]], entries: Sequence[Read]) -> bool:
    """Tell whether the counts are those of one h5ad, as they stand in it."""
    if len(chosen) != 1:
        return False
    number, path = chosen[0]
    entry = entries[number]
    as_they_stand = entry.umis is None and not entry.round
    return entry.format == "h5ad" and as_they_stand and not is_gzip(path)


def sample_of(path: Path, entry: Read, several: bool, where: str) -> str | None:
    """Return the name of a file's sample; None where there is but one without a name.

    By default it is the file's name, or its folder's where the file is a bare ``matrix.mtx``.
    """
    if isinstance(entry.sample, Constant):
        return entry.sample.value
    if entry.sample is not None:
        return str(extracted(pd.Index([path.name]), entry.sample, "sample", where)[0])
    if not several:
        return None
    stem = re.sub(r"[._-]?(matrix\.)?(mtx|h5|h5ad|csv|tsv|txt)(\.gz)?$", "", path.name)
    return stem or path.parent.name


def _chosen(members: Sequence[Path], entries: Sequence[Read], where: str) -> list[tuple[int, Path]]:
    """Return each file of counts after the number of the entry that reads it."""
    chosen = []
    for number, entry in enumerate(entries):
        found = matching(members, entry.files)
        if not found:
            raise DataError(
                f"{where}.read[{number}]: no file fits {entry.files!r}; there are "
                f"{listed(sorted(m.name for m in members))}"
            )
        chosen += [(number, path) for path in found]
    return chosen


def read_files(
    files: Sequence[Path], dataset: DatasetConfig, where: str
) -> tuple[pd.DataFrame, dict[str, Modality]]:
    """Read a dataset's files as its ``read``, ``from_id`` and ``annotation`` say.

    Cells of named samples are called ``sample:id``, and have the column ``sample``. Features
    that share a name are summed. Samples are put together on the features that all have. Counts
    of a dataset with ``shards`` that is one plain h5ad stay in it.

    Parameters
    ----------
    files
        The files, archives among them.
    where
        The dataset, for errors.

    Returns
    -------
    obs : (n, ...) DataFrame
        The files' own columns and those joined, by cell id.
    modalities
        Checked counts by modality.

    Raises
    ------
    DataError
        If a file is missing or is not what the configuration says.
    """
    entries = dataset.read or [CELLXGENE]
    parts: dict[str, list[Modality]] = {}
    tables, ids = [], []
    with tempfile.TemporaryDirectory() as folder:
        members = members_of(files, patterns_of(entries, dataset), Path(folder))
        chosen = _chosen(members, entries, where)
        # What an archive holds is here for as long as it is read.
        stays = dataset.stays_in_file and members == list(files) and _can_stay(chosen, entries)
        for number, path in chosen:
            entry, at_file = entries[number], f"{where}.read[{number}], {path.name}"
            obs, part = _read(path, entry, members, dataset, at_file, stays)
            own = pd.Series(part.cells.astype(str), index=part.cells)
            several = [n for n, _ in chosen].count(number) > 1
            sample = sample_of(path, entry, several, at_file)
            obs = obs.copy()
            for name, pattern in dataset.from_id.items():
                obs[name] = extracted(part.cells, pattern, name, f"{at_file}, from_id")
            if sample is not None:
                if "sample" in obs:
                    raise DataError(f"{at_file}: its cells have a column 'sample' already")
                obs["sample"] = sample
                obs.index = own.index = f"{sample}:" + own.to_numpy(object)
                part.cells = obs.index
            for name, modality in _split(part, entry, members, at_file).items():
                parts.setdefault(name, []).append(modality)
            tables.append(obs)
            ids.append(own)
        obs = join_obs(tables)
        own = pd.concat(ids)
        own = own[~own.index.duplicated()].loc[obs.index]
        for number, table in enumerate(dataset.annotation):
            obs = annotate(obs, own, table, members, f"{where}.annotation[{number}]")
            own = own.loc[obs.index]
    return obs, {name: stacked(found, f"{where}[{name}]") for name, found in parts.items()}
