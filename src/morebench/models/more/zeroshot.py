"""The untrained path: branches side by side, batches joined by mutual pairs."""

from __future__ import annotations

import numpy as np

from morebench.models.more.neighbors import nearest, unit
from morebench.models.more.structure import mutual_pairs

ROUNDS = 3
SMOOTHING = 20  # pairs that a cell's correction is averaged over


def align(x_nd: np.ndarray, batch: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """Move batches together along their mutual nearest neighbours, without training.

    In each round every cell moves by the mean of half the vectors from the nearest paired
    cells of its batch to their partners (after Haghverdi et al. 2018; there one batch
    moves to another in turn, here all move at once, so that their order does not matter).

    Parameters
    ----------
    x_nd : (n, d) array
    k
        Neighbours of a mutual pair.

    Returns
    -------
    (n, d) float32
    """
    x_nd = unit(x_nd - x_nd.mean(0))
    for _ in range(ROUNDS):
        pairs = mutual_pairs(x_nd, batch, k, seed=seed)
        if not len(pairs):
            break
        start = np.concatenate([pairs[:, 0], pairs[:, 1]])
        vector_md = (x_nd[np.concatenate([pairs[:, 1], pairs[:, 0]])] - x_nd[start]) / 2
        moved_nd = x_nd.copy()
        for name in np.unique(batch[start]):
            own, paired = np.flatnonzero(batch == name), np.flatnonzero(batch[start] == name)
            found = nearest(x_nd[own], x_nd[start[paired]], SMOOTHING)
            moved_nd[own] += vector_md[paired[found]].mean(1)
        x_nd = moved_nd
    return x_nd.astype(np.float32)
