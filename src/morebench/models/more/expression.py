"""Expression branch: normalised counts and their truncated SVD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from morebench.errors import DataError
from morebench.models.more.eigen import leading

TARGET_SUM = 1e4
CHUNK = 2_048  # cells that are dense at a time
MAX_COVARIANCE = 3_000  # features up to which components come from their covariance
MAX_FITTED = 20_000  # cells the components are fitted on; more change them little
ROUNDS = 2  # of noise and weights by turns; more change them little


@dataclass(frozen=True)
class Expression:
    """Components of one modality, fitted on some cells, applied to any.

    Attributes
    ----------
    kind
        The modality, which decides the normalisation.
    mean_g : (g,) array
    weight_g : (g,) array
        Factor of each feature before the components: less for those with much noise.
    components_gp : (g, p) array
        Orthonormal columns.
    shrinkage_p : (p,) array
        Factor of each component: the share of its variance that is not noise.
    power_p : (p,) array
        Factor that flattens the spectrum (``keep_power``).
    scale
        Makes the mean squared norm of the fitted cells p.
    frequency_g : (g,) array
        Share of fitted cells that have the feature (ATAC's inverse document frequency).
    """

    kind: str
    mean_g: np.ndarray
    weight_g: np.ndarray
    components_gp: np.ndarray
    shrinkage_p: np.ndarray
    power_p: np.ndarray
    scale: float
    frequency_g: np.ndarray

    @property
    def width(self) -> int:
        """Number of components, p."""
        return self.components_gp.shape[1]

    def transform(self, counts_ng: sp.csr_matrix) -> np.ndarray:
        """Return (n, p) float32: the branch of any cells of the same features."""
        x_ng = normalise(counts_ng, self.kind, self.frequency_g)
        loading_gp = self.weight_g[:, None] * self.components_gp
        p_np = np.asarray(x_ng @ loading_gp) - self.mean_g @ loading_gp
        return (p_np * self.shrinkage_p * self.power_p * self.scale).astype(np.float32)

    def inverse(self, p_np: np.ndarray) -> np.ndarray:
        """Return (n, g): normalised values that a branch stands for, shrinkage kept."""
        back_p = np.divide(1, self.power_p, out=np.zeros(self.width), where=self.power_p > 0)
        return p_np * (back_p / self.scale) @ self.components_gp.T / self.weight_g + self.mean_g


def normalise(counts_ng: sp.csr_matrix, kind: str, frequency_g: np.ndarray) -> sp.csr_matrix:
    """Normalise counts cell by cell; empty cells stay empty.

    RNA: log(1 + 10,000 x share). Proteins (``adt``): log(1 + count) less its mean over all
    proteins of the cell (centred log ratio). Peaks (``atac``): log(1 + 10,000 x share x
    inverse frequency).
    """
    x_ng = sp.csr_matrix(counts_ng, dtype=np.float64)
    if kind == "adt":
        logs = x_ng.log1p().toarray()
        centre = logs.mean(1, keepdims=True) * (logs.any(1, keepdims=True))
        return sp.csr_matrix(logs - centre)
    if kind == "atac":
        x_ng = x_ng.sign()
    total_n = np.asarray(x_ng.sum(1)).ravel()
    factor_n = np.divide(TARGET_SUM, total_n, out=np.zeros_like(total_n), where=total_n > 0)
    x_ng = sp.diags(factor_n) @ x_ng
    if kind == "atac":
        x_ng = x_ng @ sp.diags(1 / np.maximum(frequency_g, 1e-4))
    return x_ng.tocsr().log1p()


def fit_expression(
    counts_ng: sp.csr_matrix,
    kind: str,
    n_components: int,
    *,
    shrink: bool,
    seed: int,
    spectrum: float = 1.0,
    noise_weight: float = 0.0,
) -> Expression:
    """Fit the branch on cells that may be fitted on.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix
        Raw counts of cells that have the modality.
    shrink
        Multiply component j of variance v_j by sqrt(1 - v_noise / v_j), where v_noise is
        the variance of the first component left out: variance that noise explains leaves.
    spectrum
        Power of the components' standard deviations that is kept (``keep_power``).
    noise_weight
        Multiply gene g, of noise s_g, by (1 + noise_weight s_g) ** -1/2. The noise is the
        variance of its log values that the p components leave (the uniqueness of factor
        analysis, found as there by turns with the components). A gene with many counts
        that are lost in some cells is as variable as a marker; it would make components
        of its own. Of RNA only: elsewhere it was not measured.
    seed
        Of the sample, and of the start vector of the Lanczos iteration.
    """
    n, g = counts_ng.shape
    rng = np.random.default_rng(seed)
    if n > MAX_FITTED:
        counts_ng = counts_ng[np.sort(rng.choice(n, MAX_FITTED, replace=False))]
        n = MAX_FITTED
    frequency_g = np.asarray((counts_ng > 0).mean(0)).ravel()
    x_ng = normalise(counts_ng, kind, frequency_g)
    if not np.any(x_ng.max(0).toarray() > x_ng.min(0).toarray()):
        raise DataError(f"{kind}: no feature varies over the {n} cells that are fitted on")
    p = max(1, min(n_components, n - 2, g - 2))
    noise_weight = noise_weight if kind == "rna" else 0.0
    mean_g, weight_g, variance, components_gp = _weighted(x_ng, p, seed, noise_weight)
    kept = np.sqrt(np.maximum(1 - variance[p] / np.maximum(variance[:p], 1e-12), 0))
    shrinkage_p = kept if shrink else np.ones(p)
    if not shrinkage_p.any():
        shrinkage_p = np.ones(p)
    power_p = keep_power(np.sqrt(variance[:p]) * shrinkage_p, spectrum)
    norm = float((variance[:p] * (shrinkage_p * power_p) ** 2).sum())
    return Expression(
        kind,
        mean_g,
        weight_g,
        components_gp[:, :p],
        shrinkage_p,
        power_p,
        float(np.sqrt(p / norm)) if norm > 0 else 1.0,
        frequency_g,
    )


def _weighted(
    x_ng: sp.csr_matrix, p: int, seed: int, noise_weight: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean (g,), weights (g,), and p + 1 variances and components (g, p + 1)."""
    mean_g, total_g, principal = _solver(x_ng, p + 1, seed)
    weight_g = np.ones(len(mean_g))
    variance, components_gp = principal(weight_g)
    for _ in range(ROUNDS if noise_weight else 0):
        above = np.maximum(variance[:p] - variance[p], 0)
        noise_g = total_g - (components_gp[:, :p] ** 2 @ above) / weight_g**2
        weight_g = (1 + noise_weight * np.maximum(noise_g, 0)) ** -0.5
        variance, components_gp = principal(weight_g)
    return mean_g, weight_g, variance, components_gp


def _solver(
    x_ng: sp.csr_matrix, p: int, seed: int
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """Return the mean (g,), variance (g,), and a function: weights -> PCA of weighted features.

    It gives variances (p,) and components (g, p), exact. Few features: by their covariance, in
    a fraction of the time. Many: by scikit-learn's Lanczos iteration on the sparse matrix.
    """
    n, g = x_ng.shape
    mean_g = np.asarray(x_ng.mean(0)).ravel()
    if g > MAX_COVARIANCE:
        from sklearn.decomposition import PCA

        def by_lanczos(weight_g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            model = PCA(p, svd_solver="arpack", random_state=seed)
            model.fit(x_ng @ sp.diags(weight_g))
            return model.explained_variance_, model.components_.T

        squares_g = np.asarray(x_ng.multiply(x_ng).sum(0)).ravel()
        return mean_g, (squares_g - n * mean_g**2) / (n - 1), by_lanczos
    square_gg = torch.zeros(g, g, dtype=torch.float64)
    for start in range(0, n, CHUNK):
        part_ng = torch.as_tensor(x_ng[start : start + CHUNK].toarray() - mean_g)
        square_gg.addmm_(part_ng.T, part_ng)
    covariance_gg = (square_gg / (n - 1)).numpy()

    def by_covariance(weight_g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return leading(covariance_gg * np.outer(weight_g, weight_g), p)

    return mean_g, np.diag(covariance_gg), by_covariance


def keep_power(deviation_p: np.ndarray, power: float) -> np.ndarray:
    """Return factors that turn standard deviations s into multiples of s ** power.

    The largest stays as it is. Below 1, weak components count for more: rare types often
    stand on them; a component without variance stays without.
    """
    share_p = deviation_p / max(float(deviation_p.max()), 1e-12)
    return np.where(share_p > 1e-9, np.maximum(share_p, 1e-9) ** (power - 1), 0.0)
