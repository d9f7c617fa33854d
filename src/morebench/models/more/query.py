"""Query cells in the features of a fitted model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from morebench.errors import DataError, listed
from morebench.models.more.cells import Cells, Modality, checked

LEAST_OVERLAP = 0.5


def matched(cells: Cells, names: Mapping[str, np.ndarray]) -> Cells:
    """Return the cells with the model's features, in its order; missing ones are 0.

    Raises
    ------
    DataError
        No modality is the model's, or less than half of its features are there.
    """
    parts = {}
    for name, wanted in names.items():
        if name not in cells.modalities:
            continue
        modality = cells.modalities[name]
        if np.array_equal(modality.names, wanted):
            parts[name] = modality
            continue
        place = {feature: i for i, feature in enumerate(modality.names)}
        there = np.array([feature in place for feature in wanted])
        if there.mean() < LEAST_OVERLAP:
            missing = [feature for feature, found in zip(wanted, there, strict=True) if not found]
            raise DataError(
                f"{name}: {len(missing)} of the model's {len(wanted)} features are missing "
                f"({listed(missing, 5)}); valid: at least {LEAST_OVERLAP:.0%} of them present. "
                f"The data's are called {listed(modality.names, 5)}"
            )
        to = np.flatnonzero(there)
        source = np.array([place[wanted[i]] for i in to])
        spread = sp.csr_matrix((np.ones(len(to)), (source, to)), (len(modality.names), len(wanted)))
        counts = sp.csr_matrix(modality.counts_ng @ spread, dtype=np.float32)
        counts.sort_indices()  # sums do not depend on the order that features came in
        parts[name] = Modality(counts, np.asarray(wanted), modality.present)
    if not parts:
        raise DataError(
            f"modalities: found {listed(cells.modalities)}; valid: at least one of {listed(names)}"
        )
    return checked(Cells(parts, cells.batch), "query")
