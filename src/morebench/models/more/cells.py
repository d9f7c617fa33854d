"""What MoRE is given: counts of one or more modalities, which cells have which, batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from morebench.errors import DataError, listed


@dataclass(frozen=True)
class Modality:
    """Counts of one modality, a row for every cell of the dataset.

    Attributes
    ----------
    counts_ng : (n, g) csr matrix of float32
        Raw counts; rows of cells without the modality are empty.
    names : (g,) array of str
    present : (n,) array of bool
    """

    counts_ng: sp.csr_matrix
    names: np.ndarray
    present: np.ndarray


@dataclass(frozen=True)
class Cells:
    """The cells of a dataset.

    Attributes
    ----------
    modalities
        By name (``rna``, ``adt``, ``atac``), in a fixed order.
    batch : (n,) array of str
    """

    modalities: Mapping[str, Modality]
    batch: np.ndarray

    def __len__(self) -> int:
        return len(self.batch)

    def take(self, rows: np.ndarray) -> Cells:
        """Return some of the cells."""
        parts = {
            name: Modality(m.counts_ng[rows], m.names, m.present[rows])
            for name, m in self.modalities.items()
        }
        return Cells(parts, self.batch[rows])


def one_modality(
    counts_ng: Any, names: Any, batch: Any, name: str = "rna", where: str = "data"
) -> Cells:
    """Make cells of a count matrix."""
    counts = _counts(counts_ng, where)
    present = np.ones(counts.shape[0], dtype=bool)
    return checked(
        Cells(
            {name: Modality(counts, np.asarray(names, dtype=str), present)},
            np.asarray(batch, dtype=str),
        ),
        where,
    )


def from_data(data: Any, batch_key: str | None, layer: str | None = None) -> Cells:
    """Read an AnnData or a MuData, told apart by ``.mod``; neither package is imported.

    Parameters
    ----------
    data
        Raw counts stand in ``X`` (or in ``layer``).
    batch_key
        Column of ``obs``; None: one batch.
    layer
        Layer of raw counts, of every modality.

    Raises
    ------
    DataError
        No such column or layer; negative or missing values; fractional counts.
    """
    n = data.n_obs
    if batch_key is None:
        batch = np.full(n, "all")
    else:
        batch = column(data, batch_key)
    parts = {}
    modalities = dict(data.mod) if hasattr(data, "mod") else {"rna": data}
    for name, part in modalities.items():
        if layer is not None and layer not in part.layers:
            raise DataError(
                f"layer: found {layer!r}; valid in {name}: {listed(part.layers) or 'none'}"
            )
        counts = _counts(part.X if layer is None else part.layers[layer], f"{name}.X")
        if part is data:
            rows = np.arange(n)
        else:
            places = {cell: i for i, cell in enumerate(data.obs_names)}
            rows = np.array([places[cell] for cell in part.obs_names], dtype=int)
        spread = sp.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), (n, len(rows)))
        present = np.zeros(n, dtype=bool)
        present[rows] = True
        names = np.asarray(part.var_names, dtype=str)
        parts[name] = Modality((spread @ counts).tocsr().astype(np.float32), names, present)
    return checked(Cells(parts, batch), "data")


def column(data: Any, key: str) -> np.ndarray:
    """Return (n,) array of str: a column of ``obs`` without missing values."""
    if key not in data.obs.columns:
        raise DataError(f"obs has no column {key!r}; valid: {listed(data.obs.columns, 30)}")
    values = data.obs[key]
    if values.isna().any():
        raise DataError(f"obs[{key!r}]: {int(values.isna().sum())} cells have no value")
    return values.astype(str).to_numpy()


def checked(cells: Cells, where: str) -> Cells:
    """Raise DataError unless every cell has a modality, and names are told apart."""
    if not len(cells):
        raise DataError(f"{where}: no cells")
    somewhere = np.zeros(len(cells), dtype=bool)
    for name, modality in cells.modalities.items():
        if modality.counts_ng.shape != (len(cells), len(modality.names)):
            raise DataError(
                f"{where}: {name} has shape {modality.counts_ng.shape}; valid: "
                f"({len(cells)}, {len(modality.names)})"
            )
        values, found = np.unique(modality.names, return_counts=True)
        if (found > 1).any():
            raise DataError(f"{where}: {name} names {str(values[found > 1][0])!r} twice")
        somewhere |= modality.present
    if not somewhere.all():
        raise DataError(f"{where}: {int((~somewhere).sum())} cells have no modality at all")
    return cells


def _counts(values: Any, where: str) -> sp.csr_matrix:
    counts = sp.csr_matrix(values).astype(np.float32)
    if not np.isfinite(counts.data).all() or (counts.data < 0).any():
        raise DataError(f"{where}: holds negative or missing values; valid: raw counts")
    if (counts.data != np.round(counts.data)).any():
        raise DataError(
            f"{where}: holds fractions, such as {counts.data[counts.data % 1 > 0][0]:.4g}; valid: "
            "raw counts (name the layer that holds them)"
        )
    return counts
