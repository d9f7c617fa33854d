"""A convex classifier of cells: multinomial logistic regression with an L2 penalty."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from morebench.errors import DataError

MAX_ITER = 2000


@dataclass(frozen=True)
class Scaler:
    """Centre and scale of feature blocks: each block gets a total variance of 1.

    One factor a block keeps the proportions of its axes, so that a batch effect on a weak
    component is not blown up, as scaling every component by the reference's own would.

    Attributes
    ----------
    mean : (p,) array
        Of every column, all blocks side by side.
    scale : (p,) array
        Same value for all columns of a block.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, blocks: Sequence[np.ndarray]) -> Scaler:
        """Fit to blocks (n, p_i); a block without variance keeps the factor 1."""
        means, scales = [], []
        for block_np in _checked(blocks):
            centre = block_np.mean(axis=0)
            total = float(((block_np - centre) ** 2).sum(axis=1).mean())
            means.append(centre)
            scales.append(np.full(len(centre), total**-0.5 if total > 0 else 1.0))
        return cls(np.concatenate(means), np.concatenate(scales))

    def transform(self, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """Return the blocks side by side, centred and scaled, (n, p) float64.

        Raises
        ------
        DataError
            If the blocks have another number of columns together than those fitted on.
        """
        x_np = np.hstack(_checked(blocks))
        if x_np.shape[1] != len(self.mean):
            raise DataError(
                f"features: found {x_np.shape[1]} columns; valid: {len(self.mean)}, as fitted"
            )
        return (x_np - self.mean) * self.scale


def _checked(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    # float64: the solver's stopping rule is below the resolution of float32
    arrays = [np.asarray(block, dtype=np.float64) for block in blocks]
    shapes = [a.shape for a in arrays]
    if not arrays or any(a.ndim != 2 for a in arrays) or len({len(a) for a in arrays}) != 1:
        raise DataError(f"features: found shapes {shapes}; valid: matrices of the same cells")
    for i, a in enumerate(arrays):
        if not np.isfinite(a).all():
            raise DataError(f"features: block {i} has values that are not finite")
    return arrays


@dataclass(frozen=True)
class LinearHead:
    """A fitted multinomial logistic regression.

    Attributes
    ----------
    coef : (k, p) array
    intercept : (k,) array
    converged : bool
        Whether the solver met its tolerance within ``MAX_ITER`` iterations.
    """

    coef: np.ndarray
    intercept: np.ndarray
    converged: bool

    def logits(self, x_np: np.ndarray) -> np.ndarray:
        """Return (n, k) logits; their softmax are the probabilities."""
        return x_np @ self.coef.T + self.intercept


def class_weights(y: np.ndarray, n_classes: int, power: float) -> np.ndarray:
    """Weights of cells, proportional to (cells of the class) ** -power, with mean 1.

    Parameters
    ----------
    y : (n,) array of int
    n_classes
    power
        0: none. 0.5: a compromise between all cells alike and all classes alike, which is
        best for macro-F1 where classes overlap. 1: every class weighs the same.

    Returns
    -------
    (n,) array
    """
    counts = np.bincount(y, minlength=n_classes)
    weights = np.maximum(counts, 1.0)[y] ** -power
    return weights * len(y) / weights.sum()


def fit_head(
    x_np: np.ndarray, y: np.ndarray, n_classes: int, *, strength: float, power: float
) -> LinearHead:
    """Fit the head by L-BFGS, to convergence; deterministic.

    Parameters
    ----------
    x_np : (n, p) array
    y : (n,) array of int in [0, n_classes)
        A class without cells gets the logit ``ABSENT`` everywhere.
    n_classes
    strength
        Inverse of the L2 penalty (C): the summed loss counts ``strength`` times.
    power
        See `class_weights`.

    Raises
    ------
    DataError
        Fewer than two classes have cells.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(y)
    if len(present) < 2:
        raise DataError(f"labels: found {len(present)} class on {len(y)} cells; valid: 2 or more")
    model = LogisticRegression(C=strength, max_iter=MAX_ITER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it stands in ``converged``
        model.fit(x_np, y, sample_weight=class_weights(y, n_classes, power))
    coef = np.zeros((n_classes, x_np.shape[1]))
    intercept = np.full(n_classes, ABSENT)
    if len(present) == 2:  # one sigmoid: half of its logit on either side
        coef[present] = np.vstack([-model.coef_, model.coef_]) / 2
        intercept[present] = np.array([-1.0, 1.0]) * model.intercept_ / 2
    else:
        coef[present], intercept[present] = model.coef_, model.intercept_
    return LinearHead(coef, intercept, bool(np.max(model.n_iter_) < MAX_ITER))


ABSENT = -1e3  # logit of a class that a head was never shown: its probability is 0
