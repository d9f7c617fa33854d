"""Structure branch and the pairs of the sparse alignment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from morebench.models.more.neighbors import nearest

N_NEIGHBORS = 15
MAX_REFERENCE = 5_000  # cells of a batch that neighbours are sought among
MAX_ANCHORS = 3_000  # cells of a batch that take part in mutual pairs


def propagate(
    p_np: np.ndarray, batch: np.ndarray, steps: Sequence[int], *, seed: int
) -> np.ndarray:
    """Average the expression branch over each batch's cell graph, at several resolutions.

    Neighbours are sought within the cell's own batch, so that the graph carries no batch
    effect; in a large batch, among a seeded sample of it.

    Parameters
    ----------
    p_np : (n, p) array
    steps
        Numbers of averaging steps, one block of columns each.

    Returns
    -------
    (n, p * len(steps)) float32
    """
    graph = within_batches(p_np, batch, seed=seed)
    blocks, x_np = [], p_np
    for step in range(1, max(steps) + 1):
        x_np = np.asarray(graph @ x_np)
        if step in steps:
            blocks.append(x_np)
    return np.concatenate(blocks, axis=1).astype(np.float32)


def within_batches(p_np: np.ndarray, batch: np.ndarray, *, seed: int) -> sp.csr_matrix:
    """Return the (n, n) row-stochastic graph of each cell and its batch's nearest cells."""
    rng = np.random.default_rng(seed)
    rows, columns = [], []
    for name in np.unique(batch):
        own = np.flatnonzero(batch == name)
        some = own
        if len(own) > MAX_REFERENCE:
            some = np.sort(rng.choice(own, MAX_REFERENCE, replace=False))
        found = some[nearest(p_np[own], p_np[some], N_NEIGHBORS + 1)]
        rows.append(np.repeat(own, found.shape[1]))
        columns.append(found.ravel())
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = sp.csr_matrix((np.ones(len(i), dtype=np.float32), (i, j)), (len(batch),) * 2)
    return sp.csr_matrix(sp.diags(1 / np.asarray(graph.sum(1)).ravel()) @ graph)


def mutual_pairs(x_nd: np.ndarray, batch: np.ndarray, k: int, *, seed: int) -> np.ndarray:
    """Return mutual nearest neighbours across batches.

    Cells i and j of two batches are a pair if each is among the other's k nearest cells of
    its batch (Haghverdi et al. 2018, Nature Biotechnology 36, 421-427), by cosine.

    Returns
    -------
    (m, 2) int64
        Empty where there is one batch.
    """
    rng = np.random.default_rng(seed)
    members = []
    for name in np.unique(batch):
        own = np.flatnonzero(batch == name)
        if len(own) > MAX_ANCHORS:
            own = np.sort(rng.choice(own, MAX_ANCHORS, replace=False))
        members.append(own)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for left in range(len(members)):
        for right in range(left + 1, len(members)):
            a, b = members[left], members[right]
            there = _indicator(nearest(x_nd[a], x_nd[b], k), len(b))
            back = _indicator(nearest(x_nd[b], x_nd[a], k), len(a))
            both = there.multiply(back.T).tocoo()
            pairs.append(np.stack([a[both.row], b[both.col]], axis=1))
    return np.concatenate(pairs)


def _indicator(found_nk: np.ndarray, m: int) -> sp.csr_matrix:
    n, k = found_nk.shape
    place = (np.repeat(np.arange(n), k), found_nk.ravel())
    return sp.csr_matrix((np.ones(n * k, dtype=np.float32), place), (n, m))
