"""How new a cell looks: how ill the profiles of all types describe it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

LEAST_SHARE = 1e-6  # of a gene in a type's profile: none is impossible in any type
LEAST_CELLS = 20  # of a batch, to be measured by itself
NO_LIMIT = np.finfo(np.float64).max  # finite, as all that a model holds


@dataclass(frozen=True)
class Profiles:
    """The mean profile of each type, and how well a type's own cells follow it.

    A cell's misfit is the multinomial deviance of its counts from the profile that fits best.
    It grows with the cell's total, so what counts is how far its logarithm lies above that of
    shown cells with such a total. A batch without shown cells differs from those with some in
    more than its types: its cells are measured against one another. Shown cells are measured
    by profiles that they have no part in, as others are.

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
    usual : (3,) array
        Of the novelty of shown cells: median, median absolute deviation, and the quantile
        beyond which a cell is new.

    Notes
    -----
    Deviance of the multinomial: McCullagh and Nelder 1989, Generalized Linear Models, 2nd
    edition, section 5.4; of single cells: Townes et al. 2019, Genome Biology 20, 295. The limit:
    Lei et al. 2018, JASA 113, 1094-1111 (conformal).
    """

    log_kg: np.ndarray
    trend: np.ndarray
    span: np.ndarray
    spread: np.ndarray
    usual: np.ndarray

    @classmethod
    def fit(
        cls, counts_ng: sp.spmatrix, labels: np.ndarray, n_classes: int, quantile: float
    ) -> Profiles:
        """Fit on the cells whose label is shown.

        Parameters
        ----------
        counts_ng : (n, g) sparse matrix
            Raw counts of the model's genes.
        labels : (n,) array of int
            Position of the type, -1 where hidden.
        n_classes
            k.
        quantile
            Share of known cells that are not new, at least; 1 sets no limit.

        Raises
        ------
        ValueError
            No cell has both a label and counts.
        """
        x_ng = sp.csr_matrix(counts_ng, dtype=np.float64)
        total_n = np.asarray(x_ng.sum(axis=1)).ravel()
        rows = np.flatnonzero((labels >= 0) & (total_n > 0))
        if not len(rows):
            raise ValueError("no cell has both a label and counts")
        x_mg, total_m, y = x_ng[rows], total_n[rows], labels[rows]
        share_mg = sp.csr_matrix(sp.diags_array(1 / total_m) @ x_mg)
        member_km = sp.csr_array(
            (np.ones(len(rows)), (y, np.arange(len(rows)))), (n_classes, len(rows))
        )
        size_k = np.bincount(y, minlength=n_classes)
        sum_kg = (member_km @ share_mg).toarray()
        mean_kg = sum_kg / np.maximum(size_k, 1)[:, None] + LEAST_SHARE
        log_kg = np.log(mean_kg / mean_kg.sum(axis=1, keepdims=True)).astype(np.float32)
        of_type_mk = x_mg @ log_kg.astype(np.float64).T
        of_type_mk[np.arange(len(rows)), y] = _without_own(x_mg, share_mg, y, sum_kg, size_k)
        log_total_m = np.log(total_m)
        misfit_m = _log_misfit(x_mg, total_m, of_type_mk)
        degree = min(2, len(np.unique(log_total_m)) - 1)
        trend = np.zeros(3)
        trend[: degree + 1] = np.polynomial.polynomial.polyfit(log_total_m, misfit_m, degree)
        apart_m = misfit_m - np.polynomial.polynomial.polyval(log_total_m, trend)
        spread = max(float(apart_m.std()), np.finfo(np.float32).eps)
        span = np.array([log_total_m.min(), log_total_m.max()])
        shown_m = apart_m / spread
        usual = np.array([*_middle(shown_m), _limit(shown_m, quantile)])
        return cls(log_kg, trend, span, np.array([spread]), usual)

    def novelty(self, counts_ng: sp.spmatrix, strange: np.ndarray) -> np.ndarray:
        """Return (n,): standard deviations by which a cell fits worse than cells of its total.

        0 for a cell without counts, of which nothing can be said.

        Parameters
        ----------
        strange : (n,) array of int
            Batch of a cell, if it is one without shown cells; -1 else. The novelty of such a
            batch (of ``LEAST_CELLS`` or more) is moved and scaled to the median and the median
            absolute deviation of shown cells.
        """
        x_ng = sp.csr_matrix(counts_ng, dtype=np.float64)
        total_n = np.asarray(x_ng.sum(axis=1)).ravel()
        rows = np.flatnonzero(total_n > 0)
        usual_m = np.polynomial.polynomial.polyval(
            np.clip(np.log(total_n[rows]), *self.span), self.trend
        )
        found_n = np.zeros(len(total_n))
        of_type_mk = x_ng[rows] @ self.log_kg.astype(np.float64).T
        misfit_m = _log_misfit(x_ng[rows], total_n[rows], of_type_mk)
        found_n[rows] = (misfit_m - usual_m) / self.spread[0]
        strange = np.where(total_n > 0, strange, -1)
        for batch in np.unique(strange[strange >= 0]):
            own = strange == batch
            if own.sum() >= LEAST_CELLS:
                centre, spread = _middle(found_n[own])
                scale = self.usual[1] / spread if spread else 1.0
                found_n[own] = (found_n[own] - centre) * scale + self.usual[0]
        return found_n

    def is_new(self, novelty_n: np.ndarray) -> np.ndarray:
        """Return (n,) bool: cells beyond the limit."""
        return novelty_n > self.usual[2]


def _middle(x_n: np.ndarray) -> tuple[float, float]:
    """Return the median and the median absolute deviation."""
    centre = float(np.median(x_n))
    return centre, float(np.median(np.abs(x_n - centre)))


def _limit(x_n: np.ndarray, share: float) -> float:
    """Return what one more value like these stays within, with a probability of ``share``.

    The ceil(share (n + 1))-th smallest; where there are too few values to tell, no limit.
    """
    rank = int(np.ceil(share * (len(x_n) + 1)))
    return float(np.sort(x_n)[max(rank, 1) - 1]) if rank <= len(x_n) else NO_LIMIT


def _without_own(
    x_ng: sp.csr_matrix,
    share_ng: sp.csr_matrix,
    y: np.ndarray,
    sum_kg: np.ndarray,
    size_k: np.ndarray,
) -> np.ndarray:
    """Return (n,): sum_g x log q, q being the mean share of the other cells of the cell's type."""
    row = np.repeat(np.arange(len(y)), np.diff(share_ng.indptr))
    others = np.maximum(sum_kg[y[row], share_ng.indices] - share_ng.data, 0)
    q = others / np.maximum(size_k[y[row]] - 1, 1) + LEAST_SHARE
    whole = (size_k[y] > 1) + LEAST_SHARE * x_ng.shape[1]  # what the least shares come to
    terms = sp.csr_matrix((np.log(q), share_ng.indices, share_ng.indptr), x_ng.shape)
    total_n = np.asarray(x_ng.sum(axis=1)).ravel()
    return np.asarray(x_ng.multiply(terms).sum(axis=1)).ravel() - total_n * np.log(whole)


def _log_misfit(x_ng: sp.csr_matrix, total_n: np.ndarray, of_type_nk: np.ndarray) -> np.ndarray:
    """Return (n,): log of the smallest deviance over types, 2 sum_g x log(x / (total q)).

    ``of_type_nk`` is sum_g x log q.
    """
    from scipy.special import xlogy

    own_n = np.asarray(
        sp.csr_matrix((xlogy(x_ng.data, x_ng.data), x_ng.indices, x_ng.indptr), x_ng.shape).sum(1)
    ).ravel() - xlogy(total_n, total_n)
    return np.log(np.maximum(2 * (own_n - of_type_nk.max(axis=1)), LEAST_SHARE))
