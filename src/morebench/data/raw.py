"""A raw dataset, and the checks of the files that one is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import scipy.sparse as sp

from morebench.data.mapping import check_unique
from morebench.errors import DataError, MorebenchError, listed
from morebench.io.backed import BackedCounts, Counts
from morebench.io.counts import as_counts
from morebench.io.prepared import VAR_COLUMNS

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass
class Modality:
    """Counts of one modality.

    Attributes
    ----------
    counts_mg : (m, g) csr matrix of float32
        Or as many in a file, of a dataset with ``shards``.
    cells : (m,) index of original cell ids
    var : (g, ...) DataFrame, indexed by feature names
    """

    counts_mg: Counts
    cells: pd.Index
    var: pd.DataFrame


@dataclass
class Raw:
    """A dataset as its source gives it.

    Attributes
    ----------
    obs : (n, ...) DataFrame
        ``mapping.MAPPED`` columns, indexed by original cell ids.
    modalities
        Modalities by name; each holds a subset of the cells, in the order of ``obs``.
    """

    obs: pd.DataFrame
    modalities: dict[str, Modality]


def check_layer(layer: str | None, has_x: bool, layers: Iterable[str], where: str) -> None:
    """Raise DataError unless the raw counts stand where the configuration says."""
    if layer is None and not has_x:
        raise DataError(
            f"{where}: there is no X; name the layer that holds the raw counts with 'layer:'; "
            f"it has {listed(layers)}"
        )
    if layer is not None and layer not in layers:
        raise DataError(f"{where}: there is no layer {layer!r}; it has {listed(layers)}")


def check_names(cells: pd.Index, genes: pd.Index, where: str) -> None:
    """Raise DataError unless there are cells and genes, each under a name of its own."""
    check_unique(cells, "cell ids", where)
    check_unique(genes, "gene names", where)
    if len(cells) == 0 or len(genes) == 0:
        raise DataError(f"{where}: is empty ({len(cells)} cells x {len(genes)} genes)")


def checked(counts: Any, cells: pd.Index, var: pd.DataFrame, where: str) -> Modality:
    """Return a modality whose names are checked, and whose counts are; in a file, when read."""
    check_names(cells, var.index, where)
    if not isinstance(counts, BackedCounts):
        counts = as_counts(counts, where)
    return Modality(counts, cells, var[[c for c in VAR_COLUMNS if c in var]].astype(str))


def modality_of(part: AnnData, layer: str | None, where: str) -> Modality:
    """Return the checked counts of an AnnData."""
    check_layer(layer, part.X is not None, list(part.layers), where)
    counts = part.X if layer is None else part.layers[layer]
    return checked(counts, part.obs_names, part.var, where)


@contextmanager
def readable(path: Path, where: str) -> Iterator[None]:
    """Turn what the readers raise on a file that is none of theirs into one clear line."""
    try:
        yield
    except MorebenchError:
        raise
    except Exception as error:
        kind = path.suffix.removeprefix(".")
        text = " ".join(str(error).split())
        raise DataError(f"{where}: {path} cannot be read as {kind}: {text}") from error


def join_obs(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the obs tables of one dataset's modalities: each cell once, its first value known."""
    cells = tables[0].index
    for table in tables[1:]:
        cells = cells.append(table.index[~table.index.isin(cells)])
    joined = pd.DataFrame(index=cells)
    for table in tables:
        for name in table.columns:
            values = table[name].astype(object).reindex(cells)
            known = joined[name] if name in joined else values
            joined[name] = known.where(known.notna(), values)
    return joined


def shared_genes(genes: Sequence[pd.Index], where: str) -> pd.Index:
    """Return the feature names that all files have, in the order of the first one."""
    shared = genes[0]
    for other in genes[1:]:
        shared = shared[shared.isin(other)]
    if len(shared) == 0:
        raise DataError(f"{where}: the files have no gene name in common")
    return shared


def stacked(parts: Sequence[Modality], where: str) -> Modality:
    """Return the cells of all parts, on the features that all have.

    Raises
    ------
    DataError
        If there are none, or a cell stands in two parts.
    """
    if len(parts) == 1:
        return parts[0]
    genes = shared_genes([p.var.index for p in parts], where)
    cells = parts[0].cells.append([p.cells for p in parts[1:]])
    doubled = cells[cells.duplicated()]
    if len(doubled):
        raise DataError(
            f"{where}: {len(doubled)} cells stand in two files, the first is {doubled[0]!r}; name "
            "the files' samples with 'sample:'"
        )
    rows = [p.counts_mg[:, p.var.index.get_indexer(genes)] for p in parts]
    return Modality(sp.vstack(rows).tocsr(), cells, parts[0].var.loc[genes])
