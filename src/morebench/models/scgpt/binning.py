"""Values of a cell as ranks in bins, which no monotone transform of the cell changes."""

from __future__ import annotations

import numpy as np


def bin_values(values_k: np.ndarray, n_bins: int, rng: np.random.Generator) -> np.ndarray:
    """Put the non-zero values of one cell into quantile bins.

    The bins' ``n_bins - 1`` edges are equally spaced quantiles of these values; bin 0 is for
    zeros, which are not here. A value that equals several edges (ties: most counts of a cell
    are 1) is spread evenly over the bins between them, as the official code does.

    Parameters
    ----------
    values_k : (k,) array
        Values above 0 of the genes that a cell expresses; k may be 0.
    n_bins
        Bins, with the one for zeros.
    rng
        Of the spreading of ties: one number for each value.

    Returns
    -------
    (k,) array of int64
        1 to ``n_bins - 1``.

    Notes
    -----
    Cui et al. 2024, Methods, "Expression values"; official ``scgpt.preprocess.binning``.
    """
    if len(values_k) == 0:
        return np.zeros(0, dtype=np.int64)
    x_k = values_k.astype(np.float64)
    edges = np.quantile(x_k, np.linspace(0, 1, n_bins - 1))
    highest = np.searchsorted(edges, x_k, side="right")  # edges at or below the value
    lowest = np.searchsorted(edges, x_k, side="left")  # edges below the value
    drawn = rng.random(len(x_k))  # in [0, 1): highest - drawn * (width) is above lowest
    return np.ceil(highest - drawn * (highest - lowest)).astype(np.int64)
