"""Controls of doublets, given every doublet: the ceiling, chance, and a network taught the test.

Where others see labels, these are shown ``DOUBLET`` or ``SINGLET`` for every cell whose truth
is known. As with ``controls``, they are shown beside rankings and never ranked.
"""

from __future__ import annotations

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import DataError, listed
from morebench.io.prepared import DOUBLET, SINGLET
from morebench.methods.controls import codes, shuffled_within_batches, taught_network


def doublet_oracle(data: MethodInput, *, seed: int, threads: int) -> MethodOutput:
    """Score doublets 1 and all other cells 0.

    Parameters
    ----------
    data
        The split's input, with the truth of doublets for its labels.
    seed, threads
        Not used.

    Returns
    -------
    MethodOutput
        ``doublet_score`` (n,); cells without a truth get 0.
    """
    return MethodOutput(doublet_score=_truth(data, "doublet_oracle")[0])


def doublets_shuffled(data: MethodInput, *, seed: int, threads: int) -> MethodOutput:
    """Score every cell by the truth of another cell of its batch.

    Batches keep their rates of doublets: what it scores above chance is what these tell.

    Parameters
    ----------
    data
        As for ``doublet_oracle``.
    seed
        Of the permutation.
    threads
        Not used.

    Returns
    -------
    MethodOutput
        ``doublet_score`` (n,), 0 or 1. Cells without a truth keep 0 and take no part.
    """
    score_n, known = _truth(data, "doublets_shuffled")
    rng = np.random.default_rng(seed)
    return MethodOutput(doublet_score=shuffled_within_batches(data.batch, score_n, known, rng))


def doublet_gamer(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    n_components: int,
    n_hidden: int,
    n_latent: int,
    max_iter: int,
) -> MethodOutput:
    """Score cells by a network that was taught every doublet it is scored on.

    Parameters
    ----------
    data
        As for ``doublet_oracle``.
    seed, threads, n_components, n_hidden, n_latent, max_iter
        As for ``controls.metric_gamer``.

    Returns
    -------
    MethodOutput
        ``doublet_score`` (n,), its probability of a doublet; ``parameters_trained``;
        ``notes`` with its accuracy on the cells that it was taught.

    Raises
    ------
    DataError
        All cells with a truth are doublets, or none is.
    """
    _truth(data, "doublet_gamer")
    model, x_np, facts = taught_network(
        data, "doublet_gamer", seed=seed, n_components=n_components, n_hidden=n_hidden,
        n_latent=n_latent, max_iter=max_iter,
    )  # fmt: skip
    place = sorted((DOUBLET, SINGLET)).index(DOUBLET)
    return MethodOutput(doublet_score=model.predict_proba(x_np)[:, place], **facts)


def _truth(data: MethodInput, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (n,) 1 for doublets, else 0; and (n,) whether the truth is known."""
    names, code_n = codes(data, method)
    if set(names) - {DOUBLET, SINGLET}:
        raise DataError(f"labels: found {listed(names)}; {method} needs {DOUBLET} and {SINGLET}")
    known = code_n >= 0
    return (known & (names[code_n] == DOUBLET)).astype(float), known
