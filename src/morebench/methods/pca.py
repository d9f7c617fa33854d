"""Uncorrected PCA: what every batch correction has to beat."""

from __future__ import annotations

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import DataError


def first_components(data: MethodInput, n_components: int) -> np.ndarray:
    """Return the leading principal components of the split's input.

    Parameters
    ----------
    data
        The split's input; its PCA was fitted on fit-visible cells only.
    n_components
        How many components to keep.

    Returns
    -------
    (n, n_components) array of float32

    Raises
    ------
    DataError
        Fewer components are there than asked for.
    """
    available = data.pca_np.shape[1]
    if not 1 <= n_components <= available:
        raise DataError(
            f"n_components: found {n_components}, but the split's PCA has {available} "
            f"components; valid is 1 to {available} (or prepare the split with more components)"
        )
    return np.ascontiguousarray(data.pca_np[:, :n_components], dtype=np.float32)


def run(data: MethodInput, *, seed: int, threads: int, n_components: int) -> MethodOutput:
    """Embed every cell by the first principal components, uncorrected.

    Parameters
    ----------
    data
        The split's input.
    seed, threads
        Not used: the PCA was computed once for the split.
    n_components
        Width of the embedding.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_components).

    Raises
    ------
    DataError
        Fewer components are there than asked for.
    """
    return MethodOutput(embedding=first_components(data, n_components))
