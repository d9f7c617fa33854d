"""The spaces that a classifier of the split's input may read: components, or genes."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from morebench.contract import MethodInput
from morebench.errors import ConfigError, listed
from morebench.methods.pca import first_components
from morebench.models.more.tokens import log_normalise

SPACES = ("pca", "hvg")


def read_space(data: MethodInput, space: str, n_components: int) -> np.ndarray | sp.csr_matrix:
    """Return the values of every cell in a space.

    Parameters
    ----------
    data
        The split's input.
    space
        ``pca``: the leading principal components. ``hvg``: log1p of counts scaled to 10,000
        a cell over the split's genes; a cell without a count stays empty.
    n_components
        Leading principal components; not used by ``hvg``.

    Returns
    -------
    (n, d) array, or csr matrix for ``hvg``, of float64
        float64: what stops a solver is below the resolution of float32.

    Raises
    ------
    ConfigError
        There is no such space.
    DataError
        Fewer components are there than asked for, or the counts are no counts.
    """
    if space not in SPACES:
        raise ConfigError(f"space: found {space!r}; valid: {listed(SPACES)}")
    if space == "hvg":
        return log_normalise(data.counts_ng)
    return first_components(data, n_components).astype(np.float64)
