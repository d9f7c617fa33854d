"""Tables of counts: genes x cells or cells x genes, read in pieces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.data.archives import open_binary
from morebench.data.readers.text import header_of, separator_of
from morebench.data.spec_source import Read
from morebench.errors import DataError, listed

if TYPE_CHECKING:
    from anndata import AnnData

# Values of a piece: as float64 they take 32 MB, whatever the file's size.
PIECE = 4_000_000


def read_table(path: Path, entry: Read, where: str) -> AnnData:
    """Read a delimited table, plain or gzip.

    The first column has the ids of the rows. ``entry.columns`` hold no counts: with cells as
    rows they become ``obs``, with genes as rows they are left out.

    Raises
    ------
    DataError
        If a column is not there, or a value is no number.
    """
    import anndata

    separator = separator_of(path, entry.separator)
    names = header_of(path, separator, where)
    absent = [c for c in entry.columns if c not in names[1:]]
    if absent:
        raise DataError(f"{where}: there is no column {absent[0]!r}; it has {listed(names[1:])}")
    aside = [i for i, name in enumerate(names) if i == 0 or name in entry.columns]
    counted = [i for i in range(len(names)) if i not in set(aside)]
    if not counted:
        raise DataError(f"{where}: no column holds counts; it has {listed(names)}")
    pieces, sides = [], []
    with open_binary(path) as stream:
        chunks = pd.read_csv(
            stream,
            sep=separator,
            header=None,
            skiprows=1,
            names=range(len(names)),
            index_col=False,
            dtype=dict.fromkeys(aside, str),
            chunksize=max(1, PIECE // len(names)),
        )
        for chunk in chunks:
            try:
                values = chunk[counted].to_numpy(dtype=np.float64)
            except ValueError as error:
                raise DataError(f"{where}: a value is no number ({error})") from error
            pieces.append(sp.csr_matrix(values))
            sides.append(chunk[aside])
    side = pd.concat(sides, ignore_index=True).set_index(0)
    side.index = side.index.to_numpy().astype(str).astype(object)
    side.columns = [names[i] for i in aside[1:]]
    matrix = sp.vstack(pieces).tocsr()
    other = pd.DataFrame(index=pd.Index([names[i] for i in counted]))
    if entry.rows == "cells":
        return anndata.AnnData(matrix, obs=side, var=other)
    return anndata.AnnData(matrix.T.tocsr(), obs=other, var=pd.DataFrame(index=side.index))
