"""A convex classifier of cells: multinomial logistic regression with an L2 penalty."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from morebench.errors import DataError, listed

MAX_ITER = 2000
TOLERANCE = 1e-6  # of the largest entry of the mean loss's gradient
ABSENT = -1e3  # logit of a class that a head was never shown: its probability is 0
MIN_DEVIATION = 1e-9


@dataclass(frozen=True)
class HeadInputs:
    """What the head sees: expression, its leading components whitened, maybe the embedding.

    Each of these blocks is scaled by one factor, to a total variance of 1. That keeps the
    proportions of its axes, so that a batch effect on a weak component is not blown up, as
    scaling every component by the reference cells' own deviation would.

    Attributes
    ----------
    deviation : (w,) array
        Of the leading components, over all cells of the fit.
    mean, scale : (q,) arrays
        Of every column, all blocks side by side; scale has one value a block.
    """

    deviation: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, expression_np: np.ndarray, z_nd: np.ndarray | None, whitened: int) -> HeadInputs:
        """Fit to all cells of the fit; no label is needed.

        Parameters
        ----------
        expression_np : (n, p) array
        z_nd : (n, d) array, optional
            Embedding; None leaves it out.
        whitened
            Leading components of a second block, with variance 1 each; may be 0.
        """
        leading = np.asarray(expression_np, dtype=np.float64)[:, :whitened]
        deviation = leading.std(axis=0)
        deviation[deviation < MIN_DEVIATION] = 1.0
        means, scales = [], []
        for block in _blocks(expression_np, z_nd, deviation):
            centre = block.mean(axis=0)
            total = float(((block - centre) ** 2).sum(axis=1).mean())
            means.append(centre)
            scales.append(np.full(len(centre), total**-0.5 if total > 0 else 1.0))
        return cls(deviation, np.concatenate(means), np.concatenate(scales))

    def transform(self, expression_np: np.ndarray, z_nd: np.ndarray | None) -> np.ndarray:
        """Return the blocks side by side, centred and scaled, (n, q) float64.

        Raises
        ------
        DataError
            Other columns than in the fit, or values that are not finite.
        """
        x_nq = np.hstack(_blocks(expression_np, z_nd, self.deviation))
        if x_nq.shape[1] != len(self.mean):
            raise DataError(
                f"features: found {x_nq.shape[1]} columns; valid: {len(self.mean)}, as fitted"
            )
        return (x_nq - self.mean) * self.scale


def _blocks(
    expression_np: np.ndarray, z_nd: np.ndarray | None, deviation: np.ndarray
) -> list[np.ndarray]:
    # float64: the solver's stopping rule is below the resolution of float32
    given = {"expression": expression_np} | ({} if z_nd is None else {"embedding": z_nd})
    arrays = {k: np.asarray(v, dtype=np.float64) for k, v in given.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or len(array) != len(arrays["expression"]):
            raise DataError(f"{name}: found shape {array.shape}; valid: a row for every cell")
        if not np.isfinite(array).all():
            raise DataError(f"{name}: has values that are not finite")
    p_np = arrays["expression"]
    blocks = [p_np, p_np[:, : len(deviation)] / deviation] if len(deviation) else [p_np]
    return [*blocks, *(a for name, a in arrays.items() if name == "embedding")]


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
    model = LogisticRegression(C=strength, max_iter=MAX_ITER, tol=TOLERANCE)
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


def check_labels(labels: np.ndarray, classes: np.ndarray, n: int) -> None:
    """Raise DataError unless there are n codes of classes, -1 or more, and all classes occur."""
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise DataError(f"labels: found {labels.dtype} {labels.shape}; valid: int ({n},)")
    if labels.min(initial=-1) < -1 or labels.max(initial=-1) >= len(classes):
        raise DataError(
            f"labels: found {labels.min()} to {labels.max()}; valid: -1 to {len(classes) - 1}"
        )
    empty = np.setdiff1d(np.arange(len(classes)), labels)
    if len(classes) < 2 or len(empty):
        raise DataError(
            f"classes: found {len(classes)}, without a labelled cell: {listed(classes[empty])}; "
            "valid: 2 classes or more, each on a cell at least"
        )
