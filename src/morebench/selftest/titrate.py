"""Three effects of known strength on an embedding: batches, over-correction, noise.

Each takes a level from 0 to 1 and returns the embedding itself at level 0. The random numbers
depend on the seed only, so that the levels of a seed differ in strength and in nothing else.

Symbols: n cells, d dimensions, t types, b batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from morebench.errors import DataError

#: At level 1 the noise has this many times the standard deviation of the whole embedding.
NOISE = 2.0


def _means(x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each group, and each cell's group."""
    names, code = np.unique(groups, return_inverse=True)
    return np.stack([x[code == g].mean(axis=0) for g in range(len(names))]), code


def clean(pca_np: np.ndarray, labels: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Take the batches' means out of every type: an embedding free of (linear) batch effects.

    Each cell keeps its difference from the mean of its type and batch, around the mean of
    its type, which is that of its batches' means: a batch's size does not move it.

    Parameters
    ----------
    pca_np : (n, p) array
        Uncorrected PCA.
    labels, batch : (n,) arrays of str

    Returns
    -------
    (n, p) array of float64
    """
    x = np.asarray(pca_np, dtype=np.float64)
    out = np.empty_like(x)
    for kind in np.unique(labels):
        cells = labels == kind
        means_bp, code = _means(x[cells], batch[cells])
        out[cells] = x[cells] - means_bp[code] + means_bp.mean(axis=0)
    return out


def _root_mean_square_distance(points_td: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    return float(np.sqrt(np.square(pdist(points_td)).mean()))


def batch_strength(
    x_nd: np.ndarray, labels: np.ndarray, batch: np.ndarray, level: float, seed: int
) -> np.ndarray:
    """Shift every batch by a random vector; at level 1 batches are as far apart as types.

    The vectors are normal, scaled so that the root mean square distance of two batches is
    ``level`` times that of the means of two types.

    Raises
    ------
    DataError
        With one batch or one type.
    """
    names = np.unique(batch)
    kinds_td, _ = _means(x_nd, labels)
    if len(names) < 2 or len(kinds_td) < 2:
        raise DataError(
            f"batch strength: found {len(names)} batches and {len(kinds_td)} cell types; "
            "valid: 2 or more of each"
        )
    shifts_bd = np.random.default_rng(seed).standard_normal((len(names), x_nd.shape[1]))
    unit = _root_mean_square_distance(kinds_td) / _root_mean_square_distance(shifts_bd)
    shifts_bd = level * unit * (shifts_bd - shifts_bd.mean(axis=0))
    return x_nd + shifts_bd[np.searchsorted(names, batch)]


def overcorrection(
    x_nd: np.ndarray, labels: np.ndarray, batch: np.ndarray, level: float, seed: int
) -> np.ndarray:
    """Move every type towards the centre of all cells; at level 1 all types have one mean.

    Cells keep their differences from the mean of their type, so types are merged while
    batches stay as mixed as they were: what a method does that removes more than batches.
    """
    means_td, code = _means(x_nd, labels)
    return x_nd + level * (x_nd.mean(axis=0) - means_td)[code]


def noise(
    x_nd: np.ndarray, labels: np.ndarray, batch: np.ndarray, level: float, seed: int
) -> np.ndarray:
    """Add the same normal noise in all directions.

    Its standard deviation (root of the sum over dimensions) is ``2 * level`` times that of
    the embedding, so its variance at level 1 is four times the embedding's.
    """
    d = x_nd.shape[1]
    sd = NOISE * np.sqrt(x_nd.var(axis=0).sum() / d)
    return x_nd + level * sd * np.random.default_rng(seed).standard_normal(x_nd.shape)


Titration = Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], np.ndarray]

TITRATIONS: Mapping[str, Titration] = {
    "batch_strength": batch_strength,
    "overcorrection": overcorrection,
    "noise": noise,
}
