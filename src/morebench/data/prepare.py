"""Prepare a dataset once: QC, opaque ids, the whitelist, and the truth set apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.data import qc
from morebench.data.derive import derive_cells
from morebench.data.local import record_sources
from morebench.data.mapping import LEVELS, check_held_out
from morebench.data.raw import Raw
from morebench.data.sources import load, main_modality
from morebench.data.spec import QC, DatasetConfig
from morebench.errors import DataError
from morebench.io.backed import BackedCounts, found_in, without_counts
from morebench.io.prepared import TRUTH_COLUMNS, opaque_ids

if TYPE_CHECKING:
    from mudata import MuData


ORDER_SEED = 20240


@dataclass
class Prepared:
    """What ``prepare`` writes.

    Attributes
    ----------
    data
        Raw counts by modality; obs by whitelist; opaque ids.
    counts
        By modality, the counts that stay in a file: ``data`` has zeros in their place.
    truth : (n, 7) DataFrame
        ``io.prepared.TRUTH_COLUMNS``.
    cells : (n before QC, ...) DataFrame
        QC metrics, batch and ``kept``, for the QC figure; of a derived dataset the cells that
        the base's QC leaves, with the counts that they have left.
    genes : (20, 6) DataFrame
        The most expressed genes (``qc.top_genes``).
    facts
        The local files that the dataset was read from, each with its hash; sizes, QC thresholds
        and what they removed.
    """

    data: MuData
    counts: dict[str, BackedCounts]
    truth: pd.DataFrame
    cells: pd.DataFrame
    genes: pd.DataFrame
    facts: dict[str, Any]


def _subset(raw: Raw, keep: np.ndarray) -> Raw:
    if keep.all():
        return raw  # counts of a million cells are not copied for nothing
    obs = raw.obs.loc[keep]
    parts = {}
    for name, part in raw.modalities.items():
        rows = part.cells.isin(obs.index)
        parts[name] = type(part)(part.counts_mg[rows], part.cells[rows], part.var)
    return Raw(obs, parts)


def _metrics(raw: Raw, main: str, settings: QC) -> pd.DataFrame:
    """Return QC metrics of the main modality by cell; NaN for cells without it."""
    part = raw.modalities[main]
    metrics = qc.qc_metrics(part.counts_mg, part.var.index, settings)
    metrics.index = part.cells
    return metrics.reindex(raw.obs.index)


def prepare(name: str, dataset: DatasetConfig, files: Sequence[Path] = ()) -> Prepared:
    """Load, check and filter a dataset, and part it from its truth.

    A derived dataset is made of the cells that its base's QC leaves. ``files`` are those of a
    dataset from the web, as downloaded.

    Raises
    ------
    DataError
        If the source breaks a promise of the configuration, a file is not the one whose hash is
        given, or QC leaves too little.
    """
    where = f"datasets.{name}"
    sources = record_sources(dataset, where)  # first: a damaged file is told as such
    raw = load(name, dataset, files)
    if dataset.shards is not None and len(raw.modalities) > 1:
        raise DataError(
            f"{where}.shards: it has the modalities {', '.join(raw.modalities)}; valid: one, whose "
            "features the split's input holds; leave the key out, or name one file"
        )
    main = main_modality(list(raw.modalities))
    metrics = _metrics(raw, main, dataset.qc)
    keep, thresholds = qc.cut_offs(metrics, dataset.qc)
    cells = metrics.assign(batch=raw.obs["batch"], kept=keep).reset_index(drop=True)
    if not keep.any():
        raise DataError(f"{where}.qc: no cell passes; cut-offs: {thresholds}")
    n_before = len(raw.obs)
    raw = _subset(raw, keep)
    derived: dict[str, Any] = {}
    if dataset.derive is not None:
        raw, keep, facts = derive_cells(raw, dataset.derive, f"{where}.derive")
        # Methods see these metrics: those of the base would tell what was taken away.
        metrics = _metrics(raw, main, dataset.qc)
        cells = metrics.assign(batch=raw.obs["batch"], kept=keep).reset_index(drop=True)
        raw, derived = _subset(raw, keep), {"derived": facts}
    check_held_out(raw.obs, dataset, f"{where} after QC")

    kept_genes = {}
    for key, modality in raw.modalities.items():
        found = found_in(modality.counts_mg) >= dataset.qc.min_cells
        if not found.all():
            modality.counts_mg = modality.counts_mg[:, found]
            modality.var = modality.var.loc[found]
        kept_genes[key] = [int(found.sum()), int(len(found))]
    part = raw.modalities[main]
    if part.counts_mg.shape[1] == 0:
        raise DataError(f"{where}.qc: no gene is found in min_cells = {dataset.qc.min_cells} cells")

    # Many files are sorted by type: the order of cells is shuffled, since it would tell.
    # MuData orders cells by the first modality that has them; the ids follow that order.
    shuffled = raw.obs.index[np.random.default_rng(ORDER_SEED).permutation(len(raw.obs))]
    first = np.full(len(shuffled), -1)
    for place, key in enumerate(_main_first(raw, main)):
        first[(first < 0) & shuffled.isin(raw.modalities[key].cells)] = place
    order = shuffled[np.argsort(first, kind="stable")]
    obs = raw.obs.loc[order]
    ids = pd.Series(opaque_ids(len(order)), index=order)
    data, in_file = _mudata(raw, obs, ids, metrics.loc[order], main)
    truth = pd.DataFrame({"cell_id": ids.to_numpy(), "original_id": order.astype(str)})
    for level in LEVELS:
        truth[level] = obs[level].to_numpy(dtype=object)
    truth["is_doublet"] = obs["is_doublet"].to_numpy(dtype=float)
    truth["label_source"] = dataset.labels.source if dataset.labels else None
    facts = {
        "sources": sources,
        "cells": len(order),
        "cells_before_qc": n_before,
        "features": {k: v[0] for k, v in kept_genes.items()},
        "features_before_qc": {k: v[1] for k, v in kept_genes.items()},
        "main_modality": main,
        "batches": int(obs["batch"].nunique()),
        "types": int(obs["cell_type"].nunique()),
        "unlabelled": int(obs["cell_type"].isna().sum()),
        "doublets_by_truth": int((obs["is_doublet"] == 1).sum()),
        "label_source": dataset.labels.source if dataset.labels else "",
        "thresholds": thresholds,
        **derived,
    }
    genes = qc.top_genes(part.counts_mg, part.var.index)
    return Prepared(data, in_file, truth[list(TRUTH_COLUMNS)], cells, genes, facts)


def _main_first(raw: Raw, main: str) -> list[str]:
    return [main, *(k for k in raw.modalities if k != main)]


def _mudata(
    raw: Raw, obs: pd.DataFrame, ids: pd.Series, metrics: pd.DataFrame, main: str
) -> tuple[MuData, dict[str, BackedCounts]]:
    import anndata
    import mudata

    parts, in_file = {}, {}
    for key in _main_first(raw, main):
        part = raw.modalities[key]
        cells = obs.index[obs.index.isin(part.cells)]
        counts = part.counts_mg[part.cells.get_indexer(cells)]
        if isinstance(counts, BackedCounts):
            in_file[key], counts = counts, without_counts(counts.shape)
        parts[key] = anndata.AnnData(
            counts,
            obs=pd.DataFrame(index=pd.Index(ids.loc[cells].to_numpy())),
            var=part.var,
        )
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData(parts)
    if list(data.obs_names) != list(ids):
        raise DataError("cells changed their order when the modalities were joined")
    for column in ("batch", "donor", "platform"):
        if obs[column].notna().all():
            data.obs[column] = pd.Categorical(obs[column])
    for column in qc.METRICS:
        if metrics[column].notna().any():
            data.obs[column] = metrics[column].to_numpy()
    for key, part in raw.modalities.items():
        data.obs[f"has_{key}"] = obs.index.isin(part.cells)
    return data, in_file
