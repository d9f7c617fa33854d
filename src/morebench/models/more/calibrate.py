"""Probabilities that mean what they say: temperature scaling on cross-fitted predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from morebench.errors import DataError
from morebench.models.more.classifier import ABSENT, fit_head

N_FOLDS = 5
LOG_T = (-3.0, 3.0)  # bounds of the log temperature


def temper(logits_nk: np.ndarray, temperature: float) -> np.ndarray:
    """Return (n, k) probabilities: the softmax of logits over a temperature."""
    from scipy.special import softmax

    return softmax(logits_nk / temperature, axis=1)


def folds(y: np.ndarray, batch: np.ndarray, seed: int) -> np.ndarray:
    """Assign cells to folds that hold out what a new cell would differ in.

    Whole batches, in at most 5 folds of about equal size; cells stratified by class where
    there is one batch only, which tells nothing about a new batch and so less than is asked.

    Parameters
    ----------
    y, batch : (n,) arrays
    seed
        Of the stratified folds.

    Returns
    -------
    (n,) array of int
    """
    names, code = np.unique(batch, return_inverse=True)
    if len(names) > 1:
        size = np.bincount(code)
        load = np.zeros(min(N_FOLDS, len(names)))
        fold_of = np.zeros(len(names), dtype=int)
        for b in np.argsort(-size, kind="stable"):
            fold_of[b] = load.argmin()
            load[fold_of[b]] += size[b]
        return fold_of[code]
    rng = np.random.default_rng(seed)
    fold = np.empty(len(y), dtype=int)
    for c in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == c))
        fold[members] = np.arange(len(members)) % N_FOLDS
    return fold


def stratified_sample(y: np.ndarray, n_most: int, seed: int) -> np.ndarray:
    """Return positions of about ``n_most`` cells at most: of each class the same share.

    Every class keeps one cell at least.
    """
    if len(y) <= n_most:
        return np.arange(len(y))
    rng = np.random.default_rng(seed)
    kept = []
    for c in np.unique(y):
        members = np.flatnonzero(y == c)
        kept.append(rng.choice(members, max(1, len(members) * n_most // len(y)), replace=False))
    return np.sort(np.concatenate(kept))


def cross_fit(
    x_np: np.ndarray, y: np.ndarray, fold: np.ndarray, n_classes: int, strength: float, power: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predict each fold by a head fitted to the others.

    Returns
    -------
    logits : (n, n_classes) array
    usable : (n,) array of bool
        Cells whose fold had a head, and whose class that head was shown: on others, a
        prediction says nothing about calibration.
    """
    logits = np.zeros((len(y), n_classes))
    usable = np.zeros(len(y), dtype=bool)
    for train, test in _parts(fold):
        if len(np.unique(y[train])) < 2:
            continue
        head = fit_head(x_np[train], y[train], n_classes, strength=strength, power=power)
        logits[test] = head.logits(x_np[test])
        usable[test] = head.intercept[y[test]] > ABSENT
    return logits, usable


def _parts(fold: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for f in np.unique(fold):
        yield np.flatnonzero(fold != f), np.flatnonzero(fold == f)


def log_loss(probability_nk: np.ndarray, y: np.ndarray) -> float:
    """Mean negative log probability of the true class, which must have one above 0."""
    own = probability_nk[np.arange(len(y)), y]
    return float(-np.log(np.maximum(own, np.finfo(float).tiny)).mean())


def fit_temperature(logits_nk: np.ndarray, y: np.ndarray) -> float:
    """Temperature with the least log loss (Guo et al. 2017, section 4.2); 1 without cells."""
    from scipy.optimize import minimize_scalar

    if not len(y):
        return 1.0
    found = minimize_scalar(
        lambda t: log_loss(temper(logits_nk, np.exp(t)), y), bounds=LOG_T, method="bounded"
    )
    return float(np.exp(found.x))


def choose_strength(
    x_np: np.ndarray,
    y: np.ndarray,
    fold: np.ndarray,
    n_classes: int,
    strengths: Sequence[float],
    power: float,
) -> tuple[float, float, dict[float, float]]:
    """Choose the head's strength by the cross-fitted log loss at each one's best temperature.

    Parameters
    ----------
    x_np, y, fold
        Reference cells, classes in [0, n_classes), folds.
    strengths
        Candidates, at least one; of equals the smallest wins.

    Returns
    -------
    strength, temperature
    losses : dict
        Log loss of each candidate; empty if no cell could be predicted by another fold.

    Raises
    ------
    DataError
        There is no candidate.
    """
    if not strengths:
        raise DataError("strengths: found none; valid: one value above 0 or more")
    losses, temperatures = {}, {}
    for strength in sorted(strengths):
        logits, ok = cross_fit(x_np, y, fold, n_classes, strength, power)
        if not ok.any():
            return float(np.median(strengths)), 1.0, {}
        t = fit_temperature(logits[ok], y[ok])
        temperatures[strength] = t
        losses[strength] = log_loss(temper(logits[ok], t), y[ok])
    best = min(losses, key=lambda s: losses[s])
    return best, temperatures[best], losses
