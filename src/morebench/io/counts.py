"""Count matrices: what may stand in one, and in which form it is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from morebench.errors import DataError


def check_pointers(indptr: np.ndarray, n_values: int, where: str) -> None:
    """Refuse pointers of a compressed sparse matrix that lead outside its values.

    scipy's own check takes differences, which overflow, and passes any pointers that end at 0.

    Parameters
    ----------
    indptr : (n + 1,) array of int
    n_values
        How many values, and indices, the matrix has.
    where
        File and key, for the error message.

    Raises
    ------
    DataError
        They do not begin at 0, fall, or end beyond the values.
    """
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        at = int(falls[0])
        found = f"falls from {indptr[at]} to {indptr[at + 1]} at {at + 1}"
    elif not len(indptr) or indptr[0] != 0 or indptr[-1] > n_values:
        found = f"goes from {indptr[0]} to {indptr[-1]}" if len(indptr) else "is empty"
    else:
        return
    raise DataError(
        f"{where}: no valid sparse matrix: indptr {found}; valid: from 0 to at most its "
        f"{n_values} values, never falling"
    )


def check_sparse(matrix: Any, where: str) -> None:
    """Refuse a sparse matrix whose indices or pointers lead outside it; others pass.

    scipy's compiled code trusts both and would read or write anywhere. So what came from a file
    comes here first, before it is sliced, converted or multiplied.

    Parameters
    ----------
    matrix
        Of any kind; csr and csc matrices are looked at.
    where
        File and key, for the error message.

    Raises
    ------
    DataError
        It is no valid csr or csc matrix.
    """
    if not sp.issparse(matrix) or matrix.format not in ("csr", "csc"):
        return
    check_pointers(matrix.indptr, len(matrix.indices), where)
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        some = len(matrix.indices) > 0
        told = f"; found {matrix.indices.min()} to {matrix.indices.max()}" if some else ""
        raise DataError(f"{where}: no valid sparse matrix: {error}{told}") from error


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
    check_sparse(matrix, where)
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
