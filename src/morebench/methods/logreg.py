"""Logistic regression on principal components or genes: what every annotator has to beat."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ContractError, DataError, listed
from morebench.methods.spaces import read_space


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    space: str,
    n_components: int,
    C: float,
    max_iter: int,
    class_weight: str | None,
) -> MethodOutput:
    """Fit a multinomial logistic regression on the cells whose label is shown; label every cell.

    Components are scaled to mean 0 and variance 1 of the cells that the regression is
    fitted on, genes to variance 1 only: their zeros stay zeros, and the matrix sparse.

    Parameters
    ----------
    data
        The split's input, with ``labels``.
    seed, threads
        Not used: the solver (L-BFGS) draws nothing and has no threads of its own.
    space
        ``pca`` or ``hvg``, see ``spaces.py``.
    n_components
        Leading principal components to use; ``hvg`` has none.
    C
        Inverse strength of the L2 penalty.
    max_iter
        Iterations of the solver, at most.
    class_weight
        None, or ``balanced`` for weights inverse to the number of cells of a class.

    Returns
    -------
    MethodOutput
        ``probabilities`` (n, classes shown), columns sorted; ``labels`` (n,), the most
        probable class; ``parameters_trained``; ``notes`` with the cells fitted on and the
        iterations taken.

    Raises
    ------
    ContractError
        No labels were given at all.
    DataError
        Fewer than two classes are shown, or fewer components are there than asked for.
    ConfigError
        There is no such space.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, shown = shown_labels(data, data.fit_visible, "logreg")
    x_nd = read_space(data, space, n_components)
    regression = LogisticRegression(C=C, max_iter=max_iter, class_weight=class_weight)
    model = make_pipeline(StandardScaler(with_mean=space != "hvg"), regression)
    with warnings.catch_warnings():
        # whether it converged stands in the notes
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_nd[rows], shown)
    values = model.predict_proba(x_nd)
    return MethodOutput(
        labels=regression.classes_[values.argmax(axis=1)].astype(str),
        probabilities=pd.DataFrame(values, index=data.cell_ids, columns=regression.classes_),
        parameters_trained=regression.coef_.size + regression.intercept_.size,
        notes={"n_fitted": len(rows), **iterations(regression, max_iter)},
    )


def shown_labels(data: MethodInput, fit: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells that a classifier may be fitted on, and their labels.

    Parameters
    ----------
    data
        The split's input.
    fit : (n,) array of bool
        Cells that may be fitted on, whether or not their label is shown.
    method
        The method's name, for error messages.

    Returns
    -------
    rows : (m,) array of int
        Positions of the cells in ``fit`` whose label is shown.
    shown : (m,) array of str

    Raises
    ------
    ContractError
        No labels were given at all.
    DataError
        Fewer than two classes are shown.
    """
    if data.labels is None:
        raise ContractError(f"labels: found None; {method} needs the labels that the split shows")
    has_label = np.array([label is not None for label in data.labels], dtype=bool)
    rows = np.flatnonzero(fit & has_label)
    shown = np.array([str(label) for label in data.labels[rows]], dtype=str)
    classes = sorted(set(shown))
    if len(classes) < 2:
        raise DataError(
            f"labels: the split shows {len(classes)} classes ({listed(classes)}) on "
            f"{len(rows)} cells that may be fitted on; {method} needs at least 2"
        )
    return rows, shown


def iterations(classifier: Any, max_iter: int) -> dict[str, Any]:
    """Return, for the notes, the most iterations that a fit took and whether it converged."""
    taken = int(np.max(classifier.n_iter_))
    return {"iterations": taken, "converged": taken < max_iter}


class OneVsRest:
    """Logistic regression with one binary fit a class, as far as CellTypist uses it.

    scikit-learn 1.8 removed its own.

    Parameters
    ----------
    multi_class
        ``ovr``, nothing else.
    n_jobs
        Classes that are fitted at a time, in threads.
    max_iter, **options
        As in ``sklearn.linear_model.LogisticRegression``.
    """

    def __init__(self, *, multi_class: str, n_jobs: int | None, max_iter: int, **options: Any):
        assert multi_class == "ovr", multi_class
        self.n_jobs, self.max_iter, self.options = n_jobs, max_iter, options

    def fit(self, x_mg: Any, labels: np.ndarray) -> OneVsRest:
        """Fit (m, g) values to (m,) labels; two classes share one fit."""
        from joblib import Parallel, delayed
        from sklearn.linear_model import LogisticRegression

        self.classes_ = np.unique(labels)
        apart = self.classes_ if len(self.classes_) > 2 else self.classes_[1:]
        models = [LogisticRegression(max_iter=self.max_iter, **self.options) for _ in apart]
        fits = Parallel(n_jobs=self.n_jobs, prefer="threads")(
            delayed(m.fit)(x_mg, labels == c) for m, c in zip(models, apart, strict=True)
        )
        self.coef_ = np.vstack([fit.coef_ for fit in fits])
        self.intercept_ = np.concatenate([fit.intercept_ for fit in fits])
        self.n_iter_ = np.concatenate([fit.n_iter_ for fit in fits])
        return self

    def decision_function(self, x_ng: Any) -> np.ndarray:
        """Return (n, k) scores; (n,) scores of the second class where there are two."""
        scores = np.asarray(x_ng @ self.coef_.T) + self.intercept_
        return scores.ravel() if scores.shape[1] == 1 else scores
