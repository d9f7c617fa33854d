"""A seeded sample of cells that keeps the shares of their groups."""

from __future__ import annotations

import numpy as np


def sample_rows(group: np.ndarray, size: int | None, seed: int, *, least: int = 0) -> np.ndarray:
    """Draw cells without replacement, from each group as many as its share.

    Parameters
    ----------
    group : (n,) array of str
        Batches, or batches and types together.
    size
        Cells to draw; None, or n and more, draws all of them.
    seed
        Of the draw.
    least
        Cells that a group gives at least, or all that it has; they may exceed ``size``.

    Returns
    -------
    (m,) array of int
        Places in ``group``, ascending. Every group has ``size`` times its share, rounded to
        whole cells that sum to ``size`` (largest remainder), so a group below 1 / size of the
        cells may have none unless ``least`` says so.

    Raises
    ------
    ValueError
        ``size`` is below 1.
    """
    n = len(group)
    if size is None or size >= n:
        return np.arange(n)
    if size < 1:
        raise ValueError(f"size = {size}; valid: 1 or more, or None for all cells")
    _, code, counts = np.unique(group, return_inverse=True, return_counts=True)
    exact = counts * (size / n)
    share = np.floor(exact).astype(int)
    rest = np.argsort(share - exact, kind="stable")[: size - share.sum()]
    share[rest] += 1
    share = np.maximum(share, np.minimum(least, counts))
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    order = order[np.argsort(code[order], kind="stable")]  # groups together, shuffled inside
    start = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.arange(n) - np.repeat(start, counts)
    return np.sort(order[rank < np.repeat(share, counts)])
