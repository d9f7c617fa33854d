"""Cells that are unlike the reference: far from its cells, or ill described by its types."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from morebench.models.more.neighbors import nearest, unit

N_NEIGHBOURS = 5
LEAST_SHARE = 1e-6  # of a gene in a type's profile: none is impossible in any type


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


@dataclass(frozen=True)
class Profiles:
    """The mean profile of each type, and how well a type's own cells follow it.

    A cell's misfit is the multinomial deviance of its counts from the profile that fits best.
    It grows with the cell's total, so what counts is how far its logarithm lies above that of
    shown cells with such a total.

    Attributes
    ----------
    log_kg : (k, g) float32
        Logarithm of the mean share of each gene in the shown cells of a type.
    trend : (3,) array
        Of the log misfit of shown cells on the log total: constant, linear, quadratic.
    span : (2,) array
        Smallest and largest log total of shown cells: beyond them the trend is constant.
    spread : (1,) array
        Standard deviation of shown cells around the trend.

    Notes
    -----
    Deviance of the multinomial: McCullagh and Nelder 1989, Generalized Linear Models, 2nd
    edition, section 5.4; of single cells: Townes et al. 2019, Genome Biology 20, 295.
    """

    log_kg: np.ndarray
    trend: np.ndarray
    span: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, counts_ng: sp.spmatrix, labels: np.ndarray, n_classes: int) -> Profiles:
        """Fit on the cells whose label is shown.

        Parameters
        ----------
        counts_ng : (n, g) sparse matrix
            Raw counts of the model's genes.
        labels : (n,) array of int
            Position of the type, -1 where hidden.
        n_classes
            k.
        """
        x_ng = sp.csr_matrix(counts_ng, dtype=np.float64)
        total_n = np.asarray(x_ng.sum(axis=1)).ravel()
        rows = np.flatnonzero((labels >= 0) & (total_n > 0))
        shares_mg = sp.diags_array(1 / total_n[rows]) @ x_ng[rows]
        member_km = sp.csr_array(
            (np.ones(len(rows)), (labels[rows], np.arange(len(rows)))), (n_classes, len(rows))
        )
        size_k = np.maximum(np.bincount(labels[rows], minlength=n_classes), 1)
        mean_kg = (member_km @ shares_mg).toarray() / size_k[:, None] + LEAST_SHARE
        log_kg = np.log(mean_kg / mean_kg.sum(axis=1, keepdims=True)).astype(np.float32)
        log_total_m = np.log(total_n[rows])
        misfit_m = _log_misfit(x_ng[rows], total_n[rows], log_kg)
        degree = min(2, len(np.unique(log_total_m)) - 1)
        trend = np.zeros(3)
        trend[: degree + 1] = np.polynomial.polynomial.polyfit(log_total_m, misfit_m, degree)
        apart_m = misfit_m - np.polynomial.polynomial.polyval(log_total_m, trend)
        spread = max(float(apart_m.std()), np.finfo(np.float32).eps)
        span = np.array([log_total_m.min(), log_total_m.max()])
        return cls(log_kg, trend, span, np.array([spread]))

    def novelty(self, counts_ng: sp.spmatrix) -> np.ndarray:
        """Return (n,): standard deviations by which a cell fits worse than cells of its total.

        0 for a cell without counts, of which nothing can be said.
        """
        x_ng = sp.csr_matrix(counts_ng, dtype=np.float64)
        total_n = np.asarray(x_ng.sum(axis=1)).ravel()
        rows = np.flatnonzero(total_n > 0)
        usual_m = np.polynomial.polynomial.polyval(
            np.clip(np.log(total_n[rows]), *self.span), self.trend
        )
        found_n = np.zeros(len(total_n))
        misfit_m = _log_misfit(x_ng[rows], total_n[rows], self.log_kg)
        found_n[rows] = (misfit_m - usual_m) / self.spread[0]
        return found_n


def _log_misfit(x_ng: sp.csr_matrix, total_n: np.ndarray, log_kg: np.ndarray) -> np.ndarray:
    """Return (n,): log of the smallest deviance, 2 sum_g x log(x / (total q)), over types."""
    from scipy.special import xlogy

    own_n = np.asarray(
        sp.csr_matrix((xlogy(x_ng.data, x_ng.data), x_ng.indices, x_ng.indptr), x_ng.shape).sum(1)
    ).ravel() - xlogy(total_n, total_n)
    of_type_nk = x_ng @ log_kg.astype(np.float64).T
    return np.log(np.maximum(2 * (own_n - of_type_nk.max(axis=1)), LEAST_SHARE))
