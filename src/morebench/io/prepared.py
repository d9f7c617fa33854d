"""The prepared dataset and its truth: two files that never meet in a method's process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from morebench.errors import ContractError
from morebench.files import atomic_path, verify
from morebench.io.backed import BackedCounts, backed, in_memory, put_counts, read_but_counts
from morebench.io.counts import as_counts
from morebench.io.hdf5 import check_hdf5
from morebench.io.tables import read_parquet, write_parquet

if TYPE_CHECKING:
    from mudata import MuData

OBS_COLUMNS = ("batch", "donor", "platform", "n_genes", "total_counts", "pct_mt", "pct_ribo")
VAR_COLUMNS = ("gene_id", "gene", "nearest_gene")
# What a control is shown of cells whose truth about doublets is known.
DOUBLET, SINGLET = "doublet", "singlet"
TRUTH_COLUMNS = (
    "cell_id",
    "original_id",
    "cell_type",
    "cell_type_coarse",
    "cell_type_fine",
    "is_doublet",
    "label_source",
)
LEAKS = ("cell_type", "cell_type_coarse", "cell_type_fine", "is_doublet")
_ID = re.compile(r"c\d{6,}")


def opaque_ids(n: int) -> np.ndarray:
    """Return n cell ids that say nothing: real ids sometimes spell the label."""
    return np.array([f"c{i:06d}" for i in range(1, n + 1)], dtype=object)


def check_ids(ids: pd.Index | np.ndarray, where: str) -> None:
    """Raise ContractError unless the ids are opaque and unique."""
    odd = [i for i in ids if not _ID.fullmatch(str(i))]
    if odd:
        raise ContractError(f"{where}: cell id {odd[0]!r} is not opaque (expected c000001, ...)")
    if len(set(ids)) != len(ids):
        raise ContractError(f"{where}: cell ids are not unique")


def spells(column: pd.Series, label: pd.Series) -> bool:
    """Tell whether a column tells every cell's label, so that showing it shows the truth.

    True when each value of the column goes with one label only (a renaming of the labels, or
    a finer grouping inside them), or when its values are the labels themselves.
    """
    known = label.notna().to_numpy()
    if label[known].nunique() < 2:
        return False
    values, labels = column[known].astype(str), label[known].astype(str)
    # Names that agree are the labels; numbers may agree by chance (0 % and 0 = no doublet).
    if label.dtype == object and (values == labels).mean() > 0.5:
        return True
    pure = bool((labels.groupby(values.to_numpy()).nunique() == 1).all())
    # Values that each go with one label (replicates of a sorted gate, say) give it away,
    # unless they are so many that each names a cell or two.
    renamed = values.nunique() == labels.nunique()
    return pure and (renamed or values.nunique() <= len(values) / 2)


def check_prepared(data: MuData, truth: pd.DataFrame | None, where: str) -> None:
    """Check the contract of a prepared dataset; with the truth at hand, that none leaks.

    Raises
    ------
    ContractError
        If anything stands in the file beyond the whitelist, or a column spells the labels.
    """
    check_ids(data.obs_names, where)
    for name, part in data.mod.items():
        check_ids(part.obs_names, f"{where}[{name}]")
    allowed = {*OBS_COLUMNS, *(f"has_{m}" for m in data.mod)}
    extra = sorted(set(data.obs.columns) - allowed)
    if extra or "batch" not in data.obs:
        raise ContractError(
            f"{where}: obs has the columns {list(data.obs.columns)}; allowed: {sorted(allowed)}, "
            "batch required"
        )
    beyond = {
        **{k: set(getattr(data, k)) - set(data.mod) for k in ("obsm", "varm")},
        **{k: set(getattr(data, k)) for k in ("uns", "obsp", "varp")},
        "var": {c for c in data.var.columns if str(c).split(":")[-1] not in VAR_COLUMNS},
    }
    if any(beyond.values()):
        raise ContractError(
            f"{where}: not empty: {', '.join(f'{k} {sorted(v)}' for k, v in beyond.items() if v)}"
        )
    for name, part in data.mod.items():
        at = f"{where}[{name}]"
        kinds = ("obs", "layers", "obsm", "obsp", "varm", "varp", "uns")
        full = [k for k in kinds if len(list(getattr(part, k)))]
        if full or part.raw is not None:
            raise ContractError(f"{at}: {', '.join(full or ['raw'])} is not empty")
        if set(part.var.columns) - set(VAR_COLUMNS):
            raise ContractError(f"{at}: var has {list(part.var.columns)}; allowed: {VAR_COLUMNS}")
        as_counts(part.X, at)
    if truth is not None:
        if list(truth["cell_id"]) != list(data.obs_names):
            raise ContractError(f"{where}: its cells are not those of the truth, in that order")
        for column in data.obs.columns:
            if column.startswith("has_"):
                continue  # which cells were measured is data, whatever it goes with
            for level in LEAKS:
                if spells(data.obs[column], truth[level].set_axis(data.obs_names)):
                    raise ContractError(
                        f"{where}: obs column {column!r} spells the truth ({level}); a method "
                        "would read the labels from it. Map another column, or none."
                    )


def write_prepared(
    path: str | Path,
    data: MuData,
    truth: pd.DataFrame,
    counts: Mapping[str, BackedCounts] | None = None,
) -> None:
    """Check and write a prepared dataset (h5mu).

    Parameters
    ----------
    counts
        By modality, counts in a file, that take the place of the data's.
    """
    import mudata

    check_prepared(data, truth, str(path))
    with atomic_path(path) as temporary, mudata.set_options(pull_on_update=False):
        data.write(temporary)
        for name, values in (counts or {}).items():
            put_counts(temporary, f"mod/{name}/X", values)


def open_prepared(path: str | Path) -> tuple[MuData, dict[str, BackedCounts]]:
    """Read a prepared dataset but for its counts, which are read when they are needed.

    Returns
    -------
    data
        All that the file holds, its contract checked, with zeros in the place of counts.
    counts
        By modality.
    """
    import h5py
    import mudata
    from anndata.io import read_elem

    path = Path(path)
    verify(path)
    check_hdf5(path, "prepared")
    with h5py.File(path) as file:
        names = list(file["mod"].attrs.get("mod-order", list(file["mod"])))
        counts = {name: backed(path, f"mod/{name}/X", str(path)) for name in names}
        with mudata.set_options(pull_on_update=False):
            data = mudata.MuData({name: read_but_counts(file["mod"][name]) for name in names})
        for place in ("obs", "var"):
            setattr(data, place, read_elem(file[place]))
        for place in ("obsm", "obsp", "varm", "varp", "uns"):
            for name, value in read_elem(file[place]).items() if place in file else ():
                if name not in data.mod:  # which features and cells a modality has
                    getattr(data, place)[name] = value
    check_prepared(data, None, str(path))
    return data, counts


def read_prepared(path: str | Path) -> MuData:
    """Read a prepared dataset, its counts too, and check its contract."""
    data, counts = open_prepared(path)
    for name, values in counts.items():
        data.mod[name].X = in_memory(values)
    return data


def write_truth(path: str | Path, truth: pd.DataFrame) -> None:
    """Write the truth table after checking its columns and ids."""
    if tuple(truth.columns) != TRUTH_COLUMNS:
        raise ContractError(f"{path}: columns {list(truth.columns)}, expected {TRUTH_COLUMNS}")
    check_ids(truth["cell_id"].to_numpy(), str(path))
    write_parquet(path, truth)


def read_truth(path: str | Path) -> pd.DataFrame:
    """Read the truth table, one row a cell in the dataset's order."""
    return read_parquet(path, TRUTH_COLUMNS)


def read_shown_truth(path: str | Path, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) ids and labels of all cells, as a control that is given the truth sees them.

    Parameters
    ----------
    column
        ``cell_type``, or ``is_doublet``: then the labels are ``DOUBLET`` and ``SINGLET``.

    Returns
    -------
    tuple of two (n,) arrays of object
        None for cells whose truth is not known.
    """
    table = read_truth(path)
    values_n = table[column].to_numpy(object)
    if column == "is_doublet":
        values_n = np.where(values_n == 1, DOUBLET, SINGLET).astype(object)
    values_n[table[column].isna().to_numpy()] = None
    return table["cell_id"].to_numpy(object), values_n
