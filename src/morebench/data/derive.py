"""Derived datasets: counts lost, cells of a type left out (labels: ``derive_labels``).

Every change has a random stream of its own, so that changes do not depend on each other,
and larger changes of the same seed hold the smaller ones: a count that is lost at dropout
0.3 is lost at 0.6 too. The points of a curve differ by the change, not by its luck.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data.raw import Modality, Raw
from morebench.data.spec import QC, DatasetConfig, Derive, Titrate
from morebench.errors import DataError, listed
from morebench.io.backed import in_memory

_DEPTH, _DROPOUT, _TITRATE = range(3)


def _stream(change: Derive, what: int, place: int = 0) -> np.random.Generator:
    return np.random.default_rng([change.seed, what, place])


def lose_counts(counts_mg: sp.csr_matrix, change: Derive, place: int = 0) -> sp.csr_matrix:
    """Thin counts, then set some of them to 0.

    ``depth`` keeps every molecule with that chance (binomial thinning); ``dropout`` sets
    every count above 0 to 0 with that chance.

    Parameters
    ----------
    counts_mg : (m, g) csr matrix
        Integer counts; not changed.
    place
        Tells the modalities of a dataset apart.

    Returns
    -------
    (m, g) csr matrix of the same dtype
        Integers, nowhere above those given.
    """
    found = sp.csr_matrix(counts_mg, copy=True)
    found.sum_duplicates()  # one entry a count, in an order that is the same every time
    if change.depth < 1:
        rng = _stream(change, _DEPTH, place)
        kept = rng.binomial(found.data.astype(np.int64), change.depth)
        found.data = kept.astype(counts_mg.dtype)
    if change.dropout > 0:
        lost = _stream(change, _DROPOUT, place).random(len(found.data)) < change.dropout
        found.data[lost] = 0
    found.eliminate_zeros()
    return found


def check_titration(cell_type: pd.Series, titrate: Titrate, where: str) -> None:
    """Raise DataError for a type that no cell has, or a share that it does not reach."""
    types = sorted(cell_type.dropna().unique())
    if titrate.type not in types:
        raise DataError(
            f"{where}.titrate.type: no cell is of type {titrate.type!r}; valid: {listed(types, 40)}"
        )
    present = float((cell_type == titrate.type).mean())
    if titrate.share > present:
        raise DataError(
            f"{where}.titrate.share: found {titrate.share}, above the share {present:.6g} that "
            f"{titrate.type!r} makes up; cells are left out, none are made; valid: up to "
            f"{present:.6g}"
        )


def check_early(obs: pd.DataFrame, dataset: DatasetConfig, where: str) -> None:
    """Check a titration before any job starts; where QC may leave cells out, it comes later."""
    if dataset.derive is None or dataset.derive.titrate is None:
        return
    titrate = dataset.derive.titrate
    if dataset.qc != QC():  # the share is that of the cells that QC leaves
        titrate = titrate.model_copy(update={"share": 0.0})
    check_titration(obs["cell_type"], titrate, f"{where}.derive")


def titration(cell_type: pd.Series, change: Derive, where: str) -> np.ndarray:
    """Choose the cells that are left when one type is made rarer.

    Parameters
    ----------
    cell_type : (n,) series
        Truth; None where there is none.

    Returns
    -------
    (n,) array of bool
        All cells but those of the type that are left out at random. With m other cells and
        the share s, ``m s / (1 - s)`` of them stay, rounded.

    Raises
    ------
    DataError
        As ``check_titration``; the share is less than one cell.
    """
    titrate = change.titrate
    keep = np.ones(len(cell_type), dtype=bool)
    if titrate is None:
        return keep
    check_titration(cell_type, titrate, where)
    of_type = (cell_type == titrate.type).to_numpy()
    n_others = int((~of_type).sum())
    n_kept = round(n_others * titrate.share / (1 - titrate.share))
    if n_kept < 1:
        raise DataError(
            f"{where}.titrate.share: found {titrate.share}, less than one cell beside {n_others} "
            f"others; valid: from {1 / (n_others + 1):.2g} on"
        )
    members = _stream(change, _TITRATE).permutation(np.flatnonzero(of_type))
    keep[members[n_kept:]] = False
    return keep


def derive_cells(raw: Raw, change: Derive, where: str) -> tuple[Raw, np.ndarray, dict[str, Any]]:
    """Make the cells of a derived dataset of its base's, after the base's QC.

    Returns
    -------
    raw
        All cells, with the counts that are left.
    keep : (n,) array of bool
        Cells that stay. A cell that has lost every count of a modality goes; then cells of
        the titrated type go.
    facts
        What was changed: counts before and after, emptied cells, cells of the type.

    Raises
    ------
    DataError
        No cell stays; as ``titration``.
    """
    parts: dict[str, Modality] = {}
    emptied = np.zeros(len(raw.obs), dtype=bool)
    facts: dict[str, Any] = {"from": change.base, "seed": change.seed, "counts": {}}
    for place, name in enumerate(sorted(raw.modalities)):
        part = raw.modalities[name]
        whole_mg = in_memory(part.counts_mg)
        counts_mg = lose_counts(whole_mg, change, place)
        parts[name] = Modality(counts_mg, part.cells, part.var)
        before, after = (np.asarray(c.sum(1)).ravel() for c in (whole_mg, counts_mg))
        emptied |= raw.obs.index.isin(part.cells[(before > 0) & (after == 0)])
        facts["counts"][name] = [int(before.sum()), int(after.sum())]
    if emptied.all():
        raise DataError(f"{where}: every cell has lost all its counts; set a smaller change")
    keep = ~emptied
    keep[keep] = titration(raw.obs.loc[keep, "cell_type"], change, where)
    facts["cells_emptied"] = int(emptied.sum())
    if change.titrate is not None:
        of_type = (raw.obs["cell_type"] == change.titrate.type).to_numpy()
        facts["cells_of_type"] = [int(of_type.sum()), int((of_type & keep).sum())]
    return Raw(raw.obs, {name: parts[name] for name in raw.modalities}), keep, facts
