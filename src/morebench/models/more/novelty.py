"""Cells that are unlike the reference: further from it than its own batches from one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from morebench.models.more.neighbors import nearest, unit

N_NEIGHBOURS = 5


def distances(x_np: np.ndarray, reference_mp: np.ndarray) -> np.ndarray:
    """Return (n,): mean cosine distance (0 to 2) of each cell to its 5 nearest of a reference."""
    near_nk = nearest(x_np, reference_mp, N_NEIGHBOURS)
    towards_nkp = unit(reference_mp)[near_nk]
    return 1 - np.einsum("np,nkp->nk", unit(x_np), towards_nkp).mean(axis=1)


@dataclass(frozen=True)
class Reference:
    """Labelled cells in two spaces, and how far from them a cell of a known type may be.

    A cell is new only if it is far in both spaces: a batch effect moves whole batches in
    the expression branch, and training pulls single cells away in the embedding.

    Attributes
    ----------
    x_mp : (m, p) float32
        What the head sees.
    z_md : (m, d) float32
        Embedding.
    y : (m,) array of int
    limits : (2,) array
        Of the distance in x and in z.
    """

    x_mp: np.ndarray
    z_md: np.ndarray
    y: np.ndarray
    limits: np.ndarray

    @classmethod
    def fit(
        cls, x_mp: np.ndarray, z_md: np.ndarray, y: np.ndarray, fold: np.ndarray, quantile: float
    ) -> Reference:
        """Set the limits to a quantile of the cells' distances to the other folds' cells.

        Parameters
        ----------
        fold : (m,) array of int
            As ``calibrate.folds`` makes them: batches, where there are several.
        quantile
            1 sets no limit.
        """
        spaces = (np.asarray(x_mp, dtype=np.float32), np.asarray(z_md, dtype=np.float32))
        limits = np.full(2, np.inf)
        if quantile < 1:
            for i, space in enumerate(spaces):
                own = np.empty(len(space))
                for f in np.unique(fold):
                    own[fold == f] = distances(space[fold == f], space[fold != f])
                limits[i] = np.quantile(own, quantile)
        return cls(*spaces, y, limits)

    def is_new(self, x_np: np.ndarray, z_nd: np.ndarray) -> np.ndarray:
        """Return (n,) bool: cells beyond the limits in both spaces."""
        if np.isinf(self.limits).any():
            return np.zeros(len(x_np), dtype=bool)
        far = distances(x_np, self.x_mp) > self.limits[0]
        rows = np.flatnonzero(far)
        if len(rows):
            far[rows] = distances(np.asarray(z_nd)[rows], self.z_md) > self.limits[1]
        return far
