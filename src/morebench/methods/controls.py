"""Controls that are given every label: the ceiling, chance, and a network that learned the test.

They show what a metric gives for labels alone, whatever becomes of expression. They are shown
beside rankings and never ranked.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ContractError, DataError, listed
from morebench.methods.pca import first_components

if TYPE_CHECKING:
    from sklearn.neural_network import MLPClassifier


def label_oracle(data: MethodInput, *, seed: int, threads: int, jitter: float) -> MethodOutput:
    """Embed every cell at its true type: biology kept and batches mixed as well as can be.

    Cells without a label get a place of their own kind.

    Parameters
    ----------
    data
        The split's input, with every label of the truth.
    seed
        Of the noise.
    threads
        Not used.
    jitter
        Standard deviation of the noise, in units where types are the square root of 2 apart:
        without it neighbours within a type would be decided by the order of cells.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, types + 1): the last column is that of cells without a label.
    """
    _, code_n = codes(data, "label_oracle")
    return MethodOutput(embedding=_at_types(code_n, jitter, np.random.default_rng(seed)))


def labels_shuffled(data: MethodInput, *, seed: int, threads: int, jitter: float) -> MethodOutput:
    """Embed every cell at the type of another cell of its batch: no biology is left.

    Batches keep their compositions, so that they mix as they do in ``label_oracle``.

    Parameters
    ----------
    data, seed, threads, jitter
        As in ``label_oracle``; the seed is also that of the permutation.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, types + 1): the last column is that of cells without a label.
    """
    _, code_n = codes(data, "labels_shuffled")
    rng = np.random.default_rng(seed)
    shuffled_n = shuffled_within_batches(data.batch, code_n, np.full(data.n_cells, True), rng)
    return MethodOutput(embedding=_at_types(shuffled_n, jitter, rng))


def metric_gamer(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    n_components: int,
    n_hidden: int,
    n_latent: int,
    max_iter: int,
) -> MethodOutput:
    """Embed cells by the last hidden layer of a network that was taught every label.

    The labels it is scored on are those it has seen, so what it gains over the methods is
    what each metric pays for labels alone.

    Parameters
    ----------
    data
        The split's input, with every label of the truth.
    seed
        Of the network's start and of its steps.
    threads
        Not used.
    n_components
        Principal components that it reads, scaled to variance 1.
    n_hidden, n_latent
        Widths of the two hidden layers; the second is the embedding.
    max_iter
        Passes over the cells, at most.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_latent); ``parameters_trained``; ``notes`` with its accuracy on
        the cells that it was taught.
    """
    model, x_np, facts = taught_network(
        data, "metric_gamer", seed=seed, n_components=n_components, n_hidden=n_hidden,
        n_latent=n_latent, max_iter=max_iter,
    )  # fmt: skip
    z_nd = x_np
    for weight, bias in zip(model.coefs_[:2], model.intercepts_[:2], strict=True):
        z_nd = np.maximum(z_nd @ weight + bias, 0)
    return MethodOutput(embedding=z_nd.astype(np.float32), **facts)


def taught_network(
    data: MethodInput,
    method: str,
    *,
    seed: int,
    n_components: int,
    n_hidden: int,
    n_latent: int,
    max_iter: int,
) -> tuple[MLPClassifier, np.ndarray, dict[str, Any]]:
    """Return a network taught all labels, (n, p) what it reads, and what an output says of it.

    Its classes are positions among the sorted names of the labels.

    Raises
    ------
    DataError
        There are fewer than two kinds of labels.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    names, code_n = codes(data, method)
    if len(names) < 2:
        raise DataError(f"labels: found 1 type ({listed(names)}); {method} needs 2 or more")
    x_np = StandardScaler().fit_transform(first_components(data, n_components).astype(np.float64))
    taught = code_n >= 0
    model = MLPClassifier((n_hidden, n_latent), max_iter=max_iter, random_state=seed)
    with warnings.catch_warnings():
        # it need not converge to have learned the labels; how well it did is in the notes
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_np[taught], code_n[taught])
    facts = {
        "parameters_trained": sum(p.size for p in [*model.coefs_, *model.intercepts_]),
        "notes": {"accuracy_on_taught": float(model.score(x_np[taught], code_n[taught]))},
    }
    return model, x_np, facts


def shuffled_within_batches(
    batch_n: np.ndarray, values_n: np.ndarray, chosen_n: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return (n,) values, those of each batch's chosen cells dealt out anew among them."""
    shuffled_n = values_n.copy()
    for name in np.unique(batch_n):
        rows = np.flatnonzero((batch_n == name) & chosen_n)
        shuffled_n[rows] = values_n[rng.permutation(rows)]
    return shuffled_n


def codes(data: MethodInput, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the types, and (n,) their positions, -1 for cells without a label."""
    if data.labels is None:
        raise ContractError(f"labels: found None; {method} needs the truth")
    known = np.array([label is not None for label in data.labels], dtype=bool)
    if not known.any():
        raise DataError(f"labels: no cell has one; {method} needs the truth of some")
    names = np.unique(data.labels[known].astype(str))
    code_n = np.full(data.n_cells, -1)
    code_n[known] = np.searchsorted(names, data.labels[known].astype(str))
    return names, code_n


def _at_types(code_n: np.ndarray, jitter: float, rng: np.random.Generator) -> np.ndarray:
    """Return (n, types + 1): a corner of the simplex for each type, -1 the last, and noise."""
    place_nk = np.eye(int(code_n.max()) + 2)[code_n]
    return (place_nk + jitter * rng.standard_normal(place_nk.shape)).astype(np.float32)
