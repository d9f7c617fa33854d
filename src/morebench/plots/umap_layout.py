"""UMAP coordinates of embeddings; apart from the drawing, which is edited more often."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from morebench.errors import ContractError, DataError

_COLUMNS = ("method", "index", "x", "y")


def compute_umap(embeddings: Mapping[str, np.ndarray], seed: int) -> pd.DataFrame:
    """Lay out each embedding in two dimensions.

    UMAP (McInnes et al. 2018) with 15 neighbours and min_dist 0.3, on one thread, so that
    the same embedding and seed give the same coordinates.

    Parameters
    ----------
    embeddings
        Method to its (n, d) array.
    seed
        Seed of the layout.

    Returns
    -------
    DataFrame
        ``method``, ``index`` (position of the cell), ``x``, ``y``: n rows a method.

    Raises
    ------
    ContractError
        If an embedding is not a finite (n, d) array.
    DataError
        If there are fewer than 4 cells.
    """
    checked = {method: _checked(method, values) for method, values in embeddings.items()}
    if not checked:
        return pd.DataFrame(columns=_COLUMNS)
    import umap

    frames = []
    for method, points in checked.items():
        layout = umap.UMAP(
            n_neighbors=min(15, len(points) - 1),
            min_dist=0.3,
            # The spectral start needs a few more cells than dimensions.
            init="spectral" if len(points) > 15 else "random",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(points)
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "index": np.arange(len(points)),
                    "x": layout[:, 0],
                    "y": layout[:, 1],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _checked(method: str, embedding: np.ndarray) -> np.ndarray:
    points = np.asarray(embedding, dtype=np.float32)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ContractError(
            f"embedding of {method}: expected finite numbers in two dimensions, found "
            f"shape {points.shape} with {int((~np.isfinite(points)).sum())} not finite"
        )
    if len(points) < 4:
        raise DataError(f"embedding of {method}: {len(points)} cells, UMAP needs at least 4")
    return points
