"""Splits: the same for every method, made once, without looking at any method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from morebench.data.derive_labels import degrade_labels
from morebench.data.spec import Derive, Partial
from morebench.errors import DataError, listed
from morebench.registry import split_kind

KNOWN_HIDDEN = 0.2  # share of known cells that an open-set split hides, to be told from new ones


def usable(truth: pd.DataFrame) -> np.ndarray:
    """Return (n,) bool: cells with a label that are no doublets by truth."""
    return (truth["cell_type"].notna() & (truth["is_doublet"] != 1)).to_numpy()


def stratified_share(
    batch: np.ndarray, cell_type: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Choose a share of cells within each (batch, type).

    Fractions of a cell are rounded at random, so that small strata are not always shown
    or always hidden. A type of two cells or more keeps one on either side.

    Parameters
    ----------
    batch, cell_type : (n,) arrays of str

    Returns
    -------
    (n,) array of bool
    """
    chosen = np.zeros(len(batch), dtype=bool)
    strata = pd.DataFrame({"b": batch, "t": cell_type}).groupby(["b", "t"], sort=True).indices
    for key in sorted(strata, key=str):
        members = rng.permutation(strata[key])
        share = fraction * len(members)
        count = int(share) + int(rng.random() < share - int(share))
        chosen[members[:count]] = True
    for name in np.unique(cell_type):
        members = np.flatnonzero(cell_type == name)
        if len(members) > 1 and chosen[members].all() | ~chosen[members].any():
            one = rng.choice(members)
            chosen[one] = ~chosen[one]
    return chosen


def make_split(
    split: str,
    held_out: str | None,
    truth: pd.DataFrame,
    batch: np.ndarray,
    partial: Partial | None,
    derive: Derive | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Make one split of a dataset.

    Parameters
    ----------
    split
        Split id; its kind is what stands before the first dash.
    held_out
        Name of the held-out batch or type.
    truth : (n, ...) DataFrame
        ``io.prepared.TRUTH_COLUMNS``.
    batch : (n,) array of str
    partial
        Share and seed of the labels that ``partial`` shows; its seed also chooses the
        known cells that a ``newtype`` split hides (20 %, else there would be nothing to
        tell the new type from). Fitting sees these no more than the new type, so what
        fitting has seen does not tell them apart.
    derive
        What a derived dataset changes of the shown labels. Scored cells, and the truth that
        they are scored against, stay as they are.

    Returns
    -------
    table : (n, 4) DataFrame
        ``cell_id``, ``fit_visible``, ``label``, ``scored``.
    facts
        Kind, held-out item, and counts of fitted, shown and scored cells; of a derived
        dataset also how many labels were changed.
    """
    kind = split_kind(split)
    good = usable(truth)
    types = truth["cell_type"].to_numpy(dtype=object)
    n = len(truth)
    fit = np.ones(n, dtype=bool)
    if kind == "all":
        shown, scored = np.zeros(n, dtype=bool), good
    elif kind in ("partial", "newtype"):
        share = partial or Partial()
        rng = np.random.default_rng(share.seed)
        known = good if kind == "partial" else good & (types != held_out)
        fraction = share.fraction if kind == "partial" else 1 - KNOWN_HIDDEN
        shown = np.zeros(n, dtype=bool)
        shown[known] = stratified_share(batch[known], types[known].astype(str), fraction, rng)
        scored = good & ~shown
        if kind == "newtype":
            new = types == held_out
            fit = ~new & ~scored
            if not new.any():
                valid = listed(sorted(set(types[good])))
                raise DataError(f"split {split!r}: no cell is of type {held_out!r}; valid: {valid}")
    elif kind in ("lobo", "unseen"):
        held = batch == held_out
        if not held.any():
            valid = listed(sorted(set(batch)))
            raise DataError(f"split {split!r}: no cell is of batch {held_out!r}; valid: {valid}")
        shown, scored = good & ~held, good & held
        if kind == "unseen":
            fit = ~held
    else:
        raise DataError(f"split {split!r}: unknown kind {kind!r}")
    # A dataset without labels has its `all` split too: methods and figures need its input.
    if not scored.any() and (kind != "all" or truth["cell_type"].notna().any()):
        raise DataError(f"split {split!r}: no cell with a usable label would be scored")
    label = types.copy()
    label[~shown] = None
    changed: dict[str, int] = {}
    if derive is not None:
        label, changed = degrade_labels(label, derive, f"split {split!r}")
        shown = shown & np.array([value is not None for value in label])
    if kind != "all" and not shown.any():
        raise DataError(f"split {split!r}: no label would be shown")
    table = pd.DataFrame(
        {
            "cell_id": truth["cell_id"].to_numpy(),
            "fit_visible": fit,
            "label": label,
            "scored": scored,
        }
    )
    facts = {
        "split": split,
        "kind": kind,
        "held_out": held_out,
        "seed": (partial or Partial()).seed if kind in ("partial", "newtype") else None,
        "n_fitted": int(fit.sum()),
        "n_shown": int(shown.sum()),
        "n_scored": int(scored.sum()),
        "types_shown": sorted(set(label[shown])),
        **changed,
    }
    return table, facts
