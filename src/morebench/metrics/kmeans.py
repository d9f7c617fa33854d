"""K-means with k-means++ seeding, the same clusters as scib-metrics finds."""

from __future__ import annotations

import numpy as np

from morebench.metrics import threefry

_CHUNK_ELEMENTS = 1 << 23
_MAX_ITERATIONS = 300
_TOLERANCE = 1e-4


def _squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, c), by differences and not by expansion."""
    out = np.empty((len(x), len(centers)), dtype=x.dtype)
    step = max(1, _CHUNK_ELEMENTS // (len(centers) * x.shape[1]))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        gap = x[rows, None, :] - centers[None]
        out[rows] = np.einsum("ncd,ncd->nc", gap, gap)
    return out


def plus_plus(x: np.ndarray, k: int, key: np.ndarray) -> np.ndarray:
    """Choose k cells as first centres by greedy k-means++ (Arthur and Vassilvitskii 2007).

    Each next centre is the best of ``2 + floor(log k)`` cells drawn with probability
    proportional to the squared distance to the nearest centre.

    Returns
    -------
    (k, d) array
    """
    key, subkey = threefry.split(key)
    first = threefry.permutation(subkey, len(x))[0]
    chosen = [first]
    nearest = _squared_distances(x, x[[first]])[:, 0]
    n_trials = min(2 + int(np.log(k)), len(x))
    for _ in range(k - 1):
        total = nearest.sum()
        # All cells on chosen centres (fewer distinct points than clusters): any cell will do.
        p = nearest / total if total > 0 else np.full(len(x), 1 / len(x), dtype=x.dtype)
        key, subkey = threefry.split(key)
        trials = threefry.choice_without_replacement(subkey, p, n_trials)
        candidates = np.minimum(nearest[:, None], _squared_distances(x, x[trials]))
        best = int(np.argmin(candidates.sum(axis=0)))
        nearest = candidates[:, best]
        chosen.append(trials[best])
    return x[chosen]


def kmeans(x_nd: np.ndarray, k: int, *, seed: int = 0) -> np.ndarray:
    """Cluster cells into k groups by Lloyd's iteration; deterministic for a seed.

    Start, iteration, float32 arithmetic and treatment of empty clusters (their centre moves
    to the mean of all cells) follow ``scib_metrics.utils.KMeans`` with one start, whose
    default seed is 0. It iterates at least 300 times; here the iteration ends when no cell
    changes cluster, after which nothing can change.

    Parameters
    ----------
    x_nd : (n, d) array
    k
        Number of clusters, at most n.

    Returns
    -------
    (n,) array of int
        Cluster of each cell, 0..k-1; a cluster may be empty.
    """
    x = np.array(x_nd, dtype=np.float32, order="C")
    tolerance = np.mean(np.var(x, axis=0)) * _TOLERANCE
    x -= x.mean(axis=0)
    centers = plus_plus(x, k, threefry.split(threefry.seed_key(seed), 1)[0])
    labels = np.full(len(x), -1)
    inertia, iteration = np.inf, 0
    while True:
        distances = _squared_distances(x, centers)
        new = np.argmin(distances, axis=1)
        if np.array_equal(new, labels):
            return labels
        labels = new
        iteration += 1
        old, inertia = inertia, float(distances.min(axis=1).sum())
        if iteration > _MAX_ITERATIONS and abs(old - inertia) <= tolerance:
            return labels
        sizes = np.bincount(labels, minlength=k)
        sums = np.zeros((k, x.shape[1]))
        np.add.at(sums, labels, x.astype(np.float64))
        centers = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
