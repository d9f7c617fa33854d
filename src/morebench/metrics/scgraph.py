"""scGraph: whether types are as far from each other as they are inside single batches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from morebench.metrics.undefined import UndefinedMetric

#: Of the package of the authors: cells of a type, share cut off at each end, components.
MIN_CELLS = 10
TRIM = 0.05
N_COMPONENTS = 10
MIN_TYPES = 3
# What rounding leaves of zero, beside the largest value.
_ROUNDING = 1e-9


class Structure(NamedTuple):
    """How well the distances of types agree with the consensus, -1..1; 1 is best.

    Attributes
    ----------
    weighted
        Mean over types of the Pearson correlation, weights 1 / consensus distance: what is
        near must stay near. ``Corr-Weighted`` of the authors.
    rank
        Mean over types of the Spearman correlation. ``Rank-PCA`` of the authors.
    tested : (n,) array of bool
        Cells of the types that both rest on.
    """

    weighted: float
    rank: float
    tested: np.ndarray


def centroids(
    x_nd: np.ndarray, groups: list[np.ndarray], *, n_components: int | None = None
) -> np.ndarray:
    """Trimmed means of groups of cells, along the principal axes of all the cells.

    Parameters
    ----------
    x_nd : (n, d) array
    groups
        Indices of the cells of each of t types.
    n_components
        Leading axes to keep; None keeps all.

    Returns
    -------
    (t, min(d, n, n_components)) array
    """
    from scipy.stats import trim_mean

    x = np.asarray(x_nd, dtype=np.float64)
    x = x - x.mean(axis=0)
    # A trimmed mean depends on the axes along which it trims; these axes no rotation changes.
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    x = x @ axes[:n_components].T
    return np.stack([trim_mean(x[cells], TRIM, axis=0) for cells in groups])


def type_distances(centroids_td: np.ndarray) -> np.ndarray:
    """Distances between types, each column divided by its maximum; (t, t).

    A column of zeros stays as it is.
    """
    from scipy.spatial.distance import cdist

    distances = cdist(centroids_td, centroids_td)
    top = distances.max(axis=0)
    return distances / np.where(top > 0, top, 1.0)


def consensus(
    pca_np: np.ndarray, labels: np.ndarray, batch: np.ndarray, types: list[str]
) -> np.ndarray:
    """Distances between types inside batches, averaged over the batches that hold both.

    Parameters
    ----------
    pca_np : (n, p) array
        Uncorrected PCA. Each batch gets a PCA of its own cells in it, 10 components.
    labels, batch : (n,) arrays
    types
        The t types to compare.

    Returns
    -------
    (t, t) array
        Columns have the maximum 1; NaN where no batch holds 10 cells of both types.
    """
    t = len(types)
    total_tt, count_tt = np.zeros((t, t)), np.zeros((t, t))
    for name in np.unique(batch):
        inside = np.flatnonzero(batch == name)
        found = [np.flatnonzero(labels[inside] == kind) for kind in types]
        held = [i for i, cells in enumerate(found) if len(cells) >= MIN_CELLS]
        if len(held) < 2:
            continue
        where = np.ix_(held, held)
        groups = [found[i] for i in held]
        means = centroids(pca_np[inside], groups, n_components=N_COMPONENTS)
        total_tt[where] += type_distances(means)
        count_tt[where] += 1
    with np.errstate(invalid="ignore"):
        mean_tt = total_tt / count_tt
    top = np.nanmax(np.where(np.isnan(mean_tt), 0.0, mean_tt), axis=0)
    return mean_tt / np.where(top > 0, top, 1.0)


def _correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Weighted Pearson correlation; 0 where ``a`` says nothing, NaN where ``b`` does not."""
    weights = weights / weights.sum()
    a, b = a - weights @ a, b - weights @ b
    if weights @ b**2 <= _ROUNDING**2:
        return np.nan
    if weights @ a**2 <= _ROUNDING**2:
        return 0.0
    return float(weights @ (a * b) / np.sqrt((weights @ a**2) * (weights @ b**2)))


def structure(
    x_nd: np.ndarray, pca_np: np.ndarray, labels: np.ndarray, batch: np.ndarray
) -> Structure:
    """Compare the distances of types in an embedding with their consensus over batches.

    scGraph of Islander: Wang, Leskovec and Regev, "Metric Mirages in Cell Embeddings"
    (bioRxiv 2024.04.02.587824; package scgraph-eval 0.1.2). Inside one batch no batch effect
    moves a type, so the types' distances there are what an embedding should keep; an
    embedding that packs types into islands of its own loses them. Centroids are means
    trimmed by 5 % at both ends.

    Where we differ from the package: each batch's PCA is one of the split's uncorrected
    components, not of counts; a type needs 10 cells in a batch, not in all; trimming is along
    principal axes, so that a rotation changes nothing; the distance of a type to itself, zero
    in both, is no point of the rank correlation (of the weighted one it is none there
    either); a type whose distances in the embedding are all equal counts as 0 instead of
    being left out.

    Parameters
    ----------
    x_nd : (n, d) array
        Embedding.
    pca_np : (n, p) array
        Uncorrected PCA of the same cells.
    labels, batch : (n,) arrays

    Raises
    ------
    UndefinedMetric
        With fewer than three types that have 10 cells in a batch beside two others that do,
        or where the consensus, or the embedding, has all types equally far or on one point.
    """
    names = [str(kind) for kind in np.unique(labels)]
    wanted_tt = consensus(pca_np, labels, batch, names)
    known_tt = np.isfinite(wanted_tt) & ~np.eye(len(names), dtype=bool)
    usable = known_tt.sum(axis=0) >= MIN_TYPES - 1
    if usable.sum() < MIN_TYPES:
        raise UndefinedMetric(
            f"{int(usable.sum())} cell types have {MIN_CELLS} cells in a batch that holds as many "
            f"of two others; valid: {MIN_TYPES} or more"
        )
    # Types without a partner are no part of the geometry.
    kept = np.flatnonzero(known_tt.any(axis=0))
    groups = [np.flatnonzero(labels == names[i]) for i in kept]
    means = centroids(x_nd, groups)
    spread = float(np.abs(np.asarray(x_nd, dtype=np.float64)).max())
    if np.ptp(means, axis=0).max() <= _ROUNDING * max(spread, np.finfo(float).tiny):
        raise UndefinedMetric("the centres of all cell types lie on one point")
    found_tt = type_distances(means)
    weighted, rank = [], []
    for column, i in enumerate(kept):
        if not usable[i]:
            continue
        other = known_tt[kept, i]
        a, b = found_tt[other, column], wanted_tt[kept[other], i]
        # Types on one spot in every batch have no distance to weigh by: the smallest known.
        floor = b[b > _ROUNDING].min(initial=1.0)
        weighted.append(_correlation(a, b, 1 / np.maximum(b, floor)))
        rank.append(_correlation(_ranks(a), _ranks(b), np.ones(len(a))))
    if np.isnan(weighted).all():
        raise UndefinedMetric("inside batches, every cell type is equally far from all others")
    tested = np.isin(labels, [names[i] for i in np.flatnonzero(usable)])
    return Structure(float(np.nanmean(weighted)), float(np.nanmean(rank)), tested)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, the mean rank for values that are equal up to rounding."""
    from scipy.stats import rankdata

    return rankdata(np.round(values, 12))


def scgraph(
    x_nd: np.ndarray, pca_np: np.ndarray, labels: np.ndarray, batch: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return ``weighted`` of :func:`structure` and the cells that it rests on.

    Raises
    ------
    UndefinedMetric
        As :func:`structure`.
    """
    found = structure(x_nd, pca_np, labels, batch)
    return found.weighted, found.tested
