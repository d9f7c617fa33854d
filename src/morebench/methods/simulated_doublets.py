"""Doublets made of pairs of cells, and how many of them are a cell's neighbours."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def draw_pairs(n_cells: int, n_pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Draw pairs of two different cells, uniformly and with replacement of pairs.

    Parameters
    ----------
    n_cells
        Two or more.

    Returns
    -------
    (n_pairs, 2) array of int

    Raises
    ------
    ValueError
        There are fewer than two cells.
    """
    if n_cells < 2:
        raise ValueError(f"n_cells: found {n_cells}; valid: 2 or more")
    first = rng.integers(n_cells, size=n_pairs)
    # The second is one of the n - 1 others: those from the first one on move up by one.
    second = rng.integers(n_cells - 1, size=n_pairs)
    return np.stack([first, second + (second >= first)], axis=1)


def add_pairs(counts_ng: sp.csr_matrix, pairs_s2: np.ndarray) -> sp.csr_matrix:
    """Return (s, g) counts of simulated doublets: the sum of both cells of every pair."""
    return sp.csr_matrix(counts_ng[pairs_s2[:, 0]] + counts_ng[pairs_s2[:, 1]])


def default_neighbors(n_observed: int, n_simulated: int) -> int:
    """Return the number of neighbours: ``round(sqrt(n))`` times what makes the space denser.

    Scrublet's rule (Wolock et al. 2019) with ``sqrt(n)`` for its ``sqrt(n) / 2``, n observed
    cells: it is multiplied by all cells over the observed ones.
    """
    return max(1, round(round(np.sqrt(n_observed)) * (1 + n_simulated / n_observed)))


def neighbor_share(z_nd: np.ndarray, z_sd: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Return each observed cell's share of simulated neighbours, as odds of equal sets.

    With q the share of simulated cells among the k nearest neighbours of a cell (itself
    left out) and r the number of simulated cells an observed one, the score is
    ``q / (q + r (1 - q))``: what q would be if there were as many simulated cells as
    observed ones, so 0.5 where both are mixed by chance. q alone is DoubletFinder's pANN.

    Parameters
    ----------
    z_nd : (n, d) array
        Observed cells.
    z_sd : (s, d) array
        Simulated doublets, in the same space.
    n_neighbors
        k; at most n + s - 1 are there.

    Returns
    -------
    (n,) array of float
        In [0, 1].

    Notes
    -----
    McGinnis, Murrow and Gartner 2019, Cell Systems 8, 329-337.
    """
    from sklearn.neighbors import NearestNeighbors

    n, s = len(z_nd), len(z_sd)
    k = min(n_neighbors, n + s - 1)
    search = NearestNeighbors(n_neighbors=k + 1).fit(np.concatenate([z_nd, z_sd]))
    near = search.kneighbors(z_nd, return_distance=False)
    # A cell need not stand first among cells at distance 0, or at all: then the last goes.
    itself = near == np.arange(n)[:, None]
    itself[~itself.any(axis=1), -1] = True
    share_n = ((near >= n) & ~itself).sum(axis=1) / k
    ratio = s / n
    return share_n / (share_n + ratio * (1 - share_n))
