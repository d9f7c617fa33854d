"""Axes of the embedding: those that tell groups of cells apart count, batches and noise do not.

Within-class covariance normalisation (Hatch et al. 2006, Interspeech, eq. 6) with prototypes in
place of classes: the embedding is written in the directions along which the total variance is
largest as a multiple of the variance inside prototypes. What is left between batches inside a
prototype is counted several times over as variance inside, so that such directions shrink.
"""

from __future__ import annotations

import numpy as np

from morebench.models.more.eigen import signed

FLOOR = 0.3  # share of the mean variance that is mixed into the variance inside prototypes
LEAST_CELLS = 5  # of a batch in a prototype, for its mean to say something


def fit_axes(
    z_nd: np.ndarray, batch_n: np.ndarray, group_n: np.ndarray, *, power: float, batches: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (d,) and the map (d, d) that turn z into (z - mean) @ map.

    Parameters
    ----------
    z_nd : (n, d) array
        Embedding of the fitted cells.
    batch_n, group_n : (n,) int
        Codes of batches and of prototypes.
    power
        An axis whose variance is l times that inside prototypes is multiplied by l ** power
        once it is whitened: 0 leaves all alike.
    batches
        How many times over the variance between batches inside prototypes counts.
    """
    from scipy.linalg import eigh

    z_nd = np.asarray(z_nd, dtype=np.float64)
    mean_d = z_nd.mean(0)
    total_dd = np.cov(z_nd.T, bias=True)
    inside_dd = np.zeros_like(total_dd)
    between_dd = np.zeros_like(total_dd)
    for group in np.unique(group_n):
        own = group_n == group
        rest_nd = z_nd[own] - z_nd[own].mean(0)
        inside_dd += rest_nd.T @ rest_nd / len(z_nd)
        for batch in np.unique(batch_n[own]):
            some_nd = rest_nd[batch_n[own] == batch]
            k = len(some_nd)
            if k < LEAST_CELLS:
                continue
            shift_d = some_nd.mean(0)
            # less what a mean of k cells differs by chance
            between_dd += (k * np.outer(shift_d, shift_d) - np.cov(some_nd.T)) / len(z_nd)
    value, vector = np.linalg.eigh(between_dd)
    between_dd = (vector * np.maximum(value, 0)) @ vector.T
    d = len(mean_d)
    level = np.trace(inside_dd) / d + 1e-9 * np.trace(total_dd) / d + 1e-12
    inside_dd = (1 - FLOOR) * inside_dd + FLOOR * level * np.eye(d) + batches * between_dd
    ratio_d, axis_dd = eigh(total_dd, inside_dd)
    axis_dd = signed(axis_dd[:, ::-1]) * np.maximum(ratio_d[::-1], 0) ** power
    variance = np.trace(axis_dd.T @ total_dd @ axis_dd)
    if variance > 0:  # as much variance in all as before
        axis_dd = axis_dd * np.sqrt(np.trace(total_dd) / variance)
    return mean_d, axis_dd
