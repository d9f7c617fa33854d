"""What methods need that embed only the cells they are fitted on, batch against batch."""

from __future__ import annotations

import numpy as np

from morebench.contract import MethodInput
from morebench.errors import Unsupported, listed


def need_every_cell(data: MethodInput, method: str) -> None:
    """Raise Unsupported where the split hides cells from fitting."""
    n_hidden = int((~data.fit_visible).sum())
    if n_hidden:
        raise Unsupported(
            f"{method} is transductive: it cannot embed cells it was not fitted on, and the "
            f"split hides {n_hidden} of {data.n_cells} cells from fitting"
        )


def need_two_batches(data: MethodInput, method: str, least: int = 1) -> np.ndarray:
    """Return the names of the batches.

    Parameters
    ----------
    least
        Cells that every batch must have.

    Raises
    ------
    Unsupported
        There is one batch only, or one has fewer cells.
    """
    names, sizes = np.unique(data.batch, return_counts=True)
    if len(names) < 2:
        raise Unsupported(f"{method} needs two batches; found {listed(names)}")
    if (sizes < least).any():
        raise Unsupported(
            f"{method} needs {least} cells in every batch; found fewer in "
            f"{listed(names[sizes < least])}"
        )
    return names
