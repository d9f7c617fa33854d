"""From a file's own columns to ours: batch, donor, platform, labels, doublet truth."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from morebench.contract import UNKNOWN
from morebench.data.spec import DatasetConfig, Part
from morebench.data.strict import Column, Constant, Value
from morebench.errors import DataError, listed
from morebench.registry import TASKS

LEVELS = ("cell_type", "cell_type_coarse", "cell_type_fine")
MAPPED = ("batch", "donor", "platform", *LEVELS, "is_doublet")


def column(obs: pd.DataFrame, name: str, where: str) -> pd.Series:
    """Return an obs column; a missing one raises DataError that names what there is."""
    if name not in obs.columns:
        near = difflib.get_close_matches(name, list(obs.columns), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"{where}: there is no obs column {name!r}; {hint}it has {listed(obs)}")
    return obs[name]


def check_unique(names: pd.Index, what: str, where: str) -> None:
    """Raise DataError for names that stand twice."""
    doubled = names[names.duplicated()]
    if len(doubled):
        raise DataError(f"{where}: {len(doubled)} duplicated {what}, the first is {doubled[0]!r}")


def _text(series: pd.Series) -> pd.Series:
    """Return values as plain strings, missing ones as None."""
    return series.astype(object).map(str, na_action="ignore").astype(object).where(series.notna())


def _first_known(obs: pd.DataFrame, names: Sequence[str], where: str) -> pd.Series:
    found, *others = (_text(column(obs, name, f"{where}, labels")) for name in names)
    for other in others:
        found = found.where(found.notna(), other)
    return found


def _renamed(values: pd.Series, names: Mapping[str, str], where: str) -> pd.Series:
    _known(names, values, where)
    return values.map(lambda v: names.get(v, v))


def _grouping(obs: pd.DataFrame, source: Column | None, key: str, where: str) -> pd.Series | None:
    if source is None:
        return None
    if isinstance(source, Constant):
        return pd.Series(source.value, index=obs.index, dtype=object)
    values = _text(column(obs, source, f"{where}, {key}"))
    if values.isna().any():
        raise DataError(
            f"{where}, {key}: {int(values.isna().sum())} cells have no value in {source!r}; "
            "every cell needs one (leave cells out with 'exclude:')"
        )
    return values


def keep_mask(obs: pd.DataFrame, exclude: Mapping[str, Sequence[Value]], where: str) -> np.ndarray:
    """Return (n,) bool: cells that no ``exclude`` entry leaves out."""
    keep = np.ones(len(obs), dtype=bool)
    for name, values in exclude.items():
        found = _text(column(obs, name, f"{where}, exclude"))
        _known(values, found, f"{where}, exclude.{name}")
        keep &= ~found.isin([str(v) for v in values]).to_numpy()
    return keep


def _known(values: Iterable[object], found: pd.Series, where: str) -> None:
    present = set(found.dropna())
    unknown = [v for v in values if str(v) not in present]
    if unknown:
        raise DataError(
            f"{where}: no cell has the value {unknown[0]!r}; values: {listed(sorted(present))}"
        )


def map_obs(
    obs: pd.DataFrame, dataset: DatasetConfig, where: str, part: Part | None = None
) -> pd.DataFrame:
    """Return the cells that ``exclude`` leaves, with our columns, by original cell id.

    ``labels.rename``, ``missing`` and ``exclude`` speak of the whole dataset: see ``settle``.

    Parameters
    ----------
    obs : (n, ...) DataFrame
        The file's own columns.
    part
        The entry of ``concat`` that the file belongs to; its mapping comes first.

    Returns
    -------
    DataFrame with the columns ``MAPPED``; those the dataset lacks are all None (NaN for
    ``is_doublet``).

    Raises
    ------
    DataError
        Duplicated cell ids, absent columns, values that no cell has, no cell left.
    """
    check_unique(obs.index, "cell ids", where)
    obs = obs.loc[keep_mask(obs, dataset.exclude if part is None else part.exclude, where)]
    mapped = pd.DataFrame(index=obs.index, columns=list(MAPPED), dtype=object)
    for key in ("batch", "donor", "platform"):
        own = getattr(part, key) if part is not None else None
        values = _grouping(obs, own if own is not None else getattr(dataset, key), key, where)
        mapped[key] = None if values is None else values
    if mapped["batch"].isna().all():
        mapped["batch"] = "batch"
    labels = dataset.labels
    if labels is not None:
        names: dict[str, str | list[str] | None]
        names = {"cell_type": labels.column, "coarse": labels.coarse, "fine": labels.fine}
        if part is not None and part.label_column is not None:
            names = {"cell_type": part.label_column}
        for level, name in names.items():
            if name is None:
                continue
            values = _first_known(obs, [name] if isinstance(name, str) else name, where)
            if level == "cell_type" and part is not None:
                values = _renamed(values, part.label_map, f"{where}, label_map")
            mapped[level if level == "cell_type" else f"cell_type_{level}"] = values
    mapped["is_doublet"] = _doublet_truth(obs, dataset, where)
    if len(mapped) == 0:
        raise DataError(f"{where}: 'exclude' leaves no cell")
    return mapped


def settle(mapped: pd.DataFrame, dataset: DatasetConfig, where: str) -> pd.DataFrame:
    """Rename types, take ``labels.missing`` as no label, leave out cells of ``labels.exclude``.

    What a value must be found for, it must be found for in one file of the dataset at least.

    Parameters
    ----------
    mapped : (n, ...) DataFrame
        ``map_obs`` of the whole dataset; of all its files, where it has several.

    Raises
    ------
    DataError
        Values that no cell has, no cell left.
    """
    labels, doublets = dataset.labels, dataset.doublets
    if doublets is not None and not (mapped["is_doublet"] == 1).any():
        raise DataError(
            f"{where}, doublets.positive: no cell has one of the values {doublets.positive} in "
            f"{doublets.column!r}"
        )
    if labels is None:
        return mapped
    mapped = mapped.copy()
    mapped["cell_type"] = _renamed(mapped["cell_type"], labels.rename, f"{where}, labels.rename")
    for key in ("missing", "exclude"):
        _known(getattr(labels, key), mapped["cell_type"], f"{where}, labels.{key}")
    no_label = mapped["cell_type"].isin(labels.missing)
    mapped.loc[no_label, list(LEVELS)] = None
    mapped = mapped.loc[~mapped["cell_type"].isin(labels.exclude)]
    if (mapped["cell_type"] == UNKNOWN).any():
        raise DataError(
            f"{where}, labels: a type is called {UNKNOWN!r}, which is how methods call cells that "
            "they cannot name; name it in 'missing', or rename it with 'rename'"
        )
    if len(mapped) == 0:
        raise DataError(f"{where}, labels.exclude: no cell is left")
    return mapped


def _doublet_truth(obs: pd.DataFrame, dataset: DatasetConfig, where: str) -> pd.Series:
    truth = pd.Series(np.nan, index=obs.index, dtype=float)
    if dataset.doublets is None:
        return truth
    values = _text(column(obs, dataset.doublets.column, f"{where}, doublets"))
    if not dataset.concat:  # one of several files may have none: see settle
        _known(dataset.doublets.positive, values, f"{where}, doublets.positive")
    known = values.notna() & ~values.isin([str(v) for v in dataset.doublets.missing])
    truth[known] = values[known].isin([str(v) for v in dataset.doublets.positive]).astype(float)
    return truth


def check_held_out(mapped: pd.DataFrame, dataset: DatasetConfig, where: str) -> None:
    """Check tasks and splits against the cells that are there.

    Raises
    ------
    DataError
        A constant batch where an enabled task needs two; a held-out batch or type that
        does not exist, or that leaves one type to learn from.
    """
    batches = sorted(mapped["batch"].unique())
    for task in dataset.tasks:
        if "two_batches" in TASKS[task].needs and len(batches) < 2:
            raise DataError(
                f"{where}: the task {task!r} needs two batches or more, found only {batches}; "
                "map another column to 'batch', or leave the task out"
            )
    types = sorted(mapped["cell_type"].dropna().unique())
    for key, items, present in (
        ("lobo", dataset.splits.lobo, batches),
        ("unseen", dataset.splits.unseen, batches),
        ("newtype", dataset.splits.newtype, types),
    ):
        for item in items:
            if item not in present:
                raise DataError(
                    f"{where}, splits.{key}: {item!r} does not exist; valid: {listed(present)}"
                )
            one, other = (batches, "batch") if key != "newtype" else (types, "type")
            if len(one) < 2:
                raise DataError(
                    f"{where}, splits.{key}: nothing is left when {item!r}, the only {other}, is "
                    "held out"
                )
    usable = mapped["cell_type"].notna() & (mapped["is_doublet"] != 1)
    if dataset.labels is not None and not usable.any():
        raise DataError(f"{where}, labels: no cell has a usable label")
    for key in ("lobo", "unseen", "newtype"):
        for item in getattr(dataset.splits, key):
            held = mapped["cell_type" if key == "newtype" else "batch"] == item
            left = sorted(mapped.loc[usable & ~held, "cell_type"].unique())
            if len(left) == 1:
                raise DataError(
                    f"{where}, splits.{key}: without {item!r} one cell type is left ({left[0]}), "
                    "so there is nothing to tell apart; valid: an item that leaves two types or "
                    "more"
                )
            if key == "newtype":
                continue
            for what, cells in (("of", held), ("outside", ~held)):
                if not (usable & cells).any():
                    raise DataError(
                        f"{where}, splits.{key}: no cell {what} the batch {item!r} has a usable "
                        "label"
                    )


def check_size(n_cells: int, n_genes: int, n_pcs: int, where: str) -> None:
    """Raise DataError where there are fewer cells or genes than dimensions."""
    if min(n_cells, n_genes) <= n_pcs:
        raise DataError(
            f"{where}: {n_cells} cells x {n_genes} genes cannot give features.n_pcs = {n_pcs} "
            f"dimensions; set n_pcs to {max(min(n_cells, n_genes) - 1, 0)} or less"
        )
