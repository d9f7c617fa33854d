"""PCA of scaled log values: fitted on some cells, applied to all, block by block.

Symbols: n cells, f fitted cells, g genes, p components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp

MAX_SCALED = 10.0
#: Cells that are dense at a time: 20,000 x 2,000 genes of float64 are 320 MB.
BLOCK = 20_000


class ScaledPCA:
    """Centre, divide by the fitted cells' standard deviation (n - 1), clip, project.

    Clipping to +-10 is that of scanpy's ``pp.scale``. Fitted by scikit-learn on up to
    ``BLOCK`` cells, beyond that by the same covariance, summed over blocks in float64.

    Attributes
    ----------
    variance_ratio : (p,) array
    """

    def __init__(self, log_fg: sp.csr_matrix, n_pcs: int) -> None:
        if log_fg.shape[0] <= BLOCK:
            self._fit_dense(log_fg, n_pcs)
        else:
            self._fit_blocks(log_fg, n_pcs)

    def _fit_dense(self, log_fg: sp.csr_matrix, n_pcs: int) -> None:
        from sklearn.decomposition import PCA

        x_fg = log_fg.toarray().astype(np.float64)
        self._mean_g = x_fg.mean(0)
        self._std_g = _without_zeros(x_fg.std(0, ddof=1))
        scaled = self._scaled(x_fg)
        solver = "covariance_eigh" if scaled.shape[0] > scaled.shape[1] else "full"
        model = PCA(n_pcs, svd_solver=solver).fit(scaled)
        self._project: Callable[[np.ndarray], np.ndarray] = model.transform
        self.variance_ratio: np.ndarray = model.explained_variance_ratio_

    def _fit_blocks(self, log_fg: sp.csr_matrix, n_pcs: int) -> None:
        from scipy.linalg import eigh

        n, g = log_fg.shape
        sum_g, squares_g = np.zeros(g), np.zeros(g)
        for x_bg in _blocks(log_fg):
            sum_g += x_bg.sum(0)
            squares_g += np.square(x_bg).sum(0)
        self._mean_g = sum_g / n
        variance_g = np.maximum(squares_g - n * self._mean_g**2, 0) / (n - 1)
        self._std_g = _without_zeros(np.sqrt(variance_g))
        total_g, product_gg = np.zeros(g), np.zeros((g, g))
        for x_bg in _blocks(log_fg):
            scaled_bg = self._scaled(x_bg)
            total_g += scaled_bg.sum(0)
            product_gg += scaled_bg.T @ scaled_bg
        centre_g = total_g / n
        covariance_gg = (product_gg - n * np.outer(centre_g, centre_g)) / (n - 1)
        value, vector = eigh(covariance_gg, subset_by_index=[g - n_pcs, g - 1])
        components_gp = vector[:, ::-1]
        # scikit-learn's choice of signs: the largest loading of a component is positive
        largest_p = np.abs(components_gp).argmax(0)
        components_gp = components_gp * np.sign(components_gp[largest_p, np.arange(n_pcs)])
        self._project = lambda scaled_ng: (scaled_ng - centre_g) @ components_gp
        self.variance_ratio = value[::-1] / np.trace(covariance_gg)

    def _scaled(self, x_ng: np.ndarray) -> np.ndarray:
        return np.clip((x_ng - self._mean_g) / self._std_g, -MAX_SCALED, MAX_SCALED)

    def transform(self, log_ng: sp.csr_matrix) -> np.ndarray:
        """Return (n, p) float32: the components of any cells of the same genes."""
        found = [self._project(self._scaled(x_bg)) for x_bg in _blocks(log_ng)]
        return np.concatenate(found).astype(np.float32)


def _blocks(log_ng: sp.csr_matrix) -> Iterator[np.ndarray]:
    for start in range(0, log_ng.shape[0], BLOCK):
        yield log_ng[start : start + BLOCK].toarray().astype(np.float64)


def _without_zeros(std_g: np.ndarray) -> np.ndarray:
    return np.where(std_g == 0, 1.0, std_g)
