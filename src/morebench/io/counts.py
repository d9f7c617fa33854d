"""Count matrices: what may stand in one, and in which form it is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from morebench.errors import DataError


def as_counts(matrix: Any, where: str) -> sp.csr_matrix:
    """Return raw counts as a csr matrix of float32, checked value by value.

    Parameters
    ----------
    matrix : (n, g) array or sparse matrix
    where
        File and key, for the error message.

    Raises
    ------
    DataError
        If a value is NaN, infinite, negative or not an integer, or an index is outside the matrix.
    """
    kind = np.dtype(getattr(matrix, "dtype", object))
    if kind.kind not in "biuf":
        raise DataError(f"{where}: values of type {kind}, expected integer counts")
    if sp.issparse(matrix) and matrix.format in ("csr", "csc"):
        try:  # scipy's compiled code trusts the indices and would write anywhere
            matrix.check_format(full_check=True)
        except ValueError as error:
            raise DataError(f"{where}: no valid sparse matrix: {error}") from error
    counts = sp.csr_matrix(matrix)
    counts.sum_duplicates()
    values = np.asarray(counts.data)
    for what, bad in (
        ("NaN or infinite", ~np.isfinite(values)),
        ("negative", values < 0),
        ("non-integer", values != np.round(values)),
    ):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            row = int(np.searchsorted(counts.indptr, first, side="right") - 1)
            raise DataError(
                f"{where}: {int(bad.sum())} {what} values, the first is {values[first]} in row "
                f"{row}, column {counts.indices[first]}; raw counts are integers >= 0 "
                "(name the layer that holds them with 'layer:')"
            )
    counts = counts.astype(np.float32, copy=False)
    if not counts.data.all():  # a copy only where there is something to take out
        counts = counts.copy()
        counts.eliminate_zeros()
    counts.sort_indices()
    return counts
