"""Harmony, by harmonypy 2 or harmonypy 0.0.10: the process's environment decides.

Both versions are called directly. Only numpy, pandas, scipy and harmonypy are imported,
since the environment of harmonypy 0.0.10 holds little else.
"""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ContractError, Unavailable
from morebench.methods.pca import first_components
from morebench.methods.transductive import need_every_cell, need_two_batches

_CELLS_PER_CLUSTER = 30.0  # both versions: min(round(N / 30), 100) clusters
_MAX_CLUSTERS = 100


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    n_components: int,
    theta: float | None,
    lamb: float | None,
    sigma: float,
    nclust: int | None,
    max_iter_harmony: int,
) -> MethodOutput:
    """Correct the split's principal components for batch with Harmony.

    Parameters
    ----------
    data
        The split's input; every cell must be fit-visible.
    seed
        ``random_state`` of harmonypy.
    threads
        Threads of harmonypy 2 (which does not change its result).
    n_components
        Principal components that Harmony corrects.
    theta
        Diversity penalty; None leaves the package's default (2 in harmonypy 2, 1 in 0.0.10).
    lamb
        Ridge penalty; None leaves the package's default (estimated in harmonypy 2, 1 in 0.0.10).
    sigma
        Width of the soft clusters.
    nclust
        Clusters; None leaves the package's default, ``min(n / 30, 100)``.
    max_iter_harmony
        Rounds of clustering and correction.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_components), float32.

    Raises
    ------
    Unsupported
        A cell is not fit-visible, or there is one batch only.
    Unavailable
        The installed harmonypy is neither 0.0.x nor 2.x.
    ContractError
        harmonypy returns another shape or another orientation than its version promises.

    Notes
    -----
    Korsunsky et al. 2019, Nature Methods 16, 1289-1296.
    """
    import harmonypy

    need_every_cell(data, "Harmony")
    need_two_batches(data, "Harmony")
    release = version("harmonypy")
    major = _major(release)
    z_np = first_components(data, n_components).astype(np.float64)
    options, notes = _options(data.n_cells, theta, lamb, sigma, nclust)
    if major >= 2:
        options["ncores"] = threads
    logging.getLogger("harmonypy").setLevel(logging.WARNING)
    result = harmonypy.run_harmony(
        # PCs x cells is what both versions try first, so it is right for n == p as well
        np.ascontiguousarray(z_np.T),
        pd.DataFrame({"batch": data.batch}),
        "batch",
        max_iter_harmony=max_iter_harmony,
        verbose=False,
        random_state=seed,
        **options,
    )
    corrected = cells_by_components(result.Z_corr, result.Z_orig, z_np, release)
    return MethodOutput(
        embedding=corrected.astype(np.float32), notes={"harmonypy": release, **notes}
    )


def cells_by_components(
    z_corr: np.ndarray, z_orig: np.ndarray, z_np: np.ndarray, release: str
) -> np.ndarray:
    """Bring harmonypy's result into the shape cells x components.

    harmonypy 2 returns cells x components, 0.0.x returns components x cells. The
    uncorrected matrix comes back in the same orientation, which proves it for n == p too.

    Parameters
    ----------
    z_corr, z_orig
        ``Z_corr`` and ``Z_orig`` of the result.
    z_np : (n, p) array
        What was corrected.
    release
        Version of harmonypy.

    Returns
    -------
    (n, p) array

    Raises
    ------
    ContractError
        Shape or orientation are not those of the version.
    """
    z_corr, z_orig = np.asarray(z_corr), np.asarray(z_orig)
    if _major(release) < 2:
        z_corr, z_orig = z_corr.T, z_orig.T
    if z_corr.shape != z_np.shape or z_orig.shape != z_np.shape:
        raise ContractError(
            f"harmonypy {release} returned shape {z_corr.shape} after orientation; "
            f"valid is cells x components = {z_np.shape}"
        )
    if not np.allclose(z_orig, z_np, rtol=1e-4, atol=1e-4 * float(np.abs(z_np).max())):
        raise ContractError(
            f"harmonypy {release} returned its input in another orientation than "
            "this version is known for (0.0.x: components x cells, 2.x: cells x components)"
        )
    return z_corr


def _major(release: str) -> int:
    if not release.startswith(("0.0.", "2.")):
        raise Unavailable(
            f"harmonypy: found version {release}; valid is 0.0.x or 2.x, "
            "whose orientation of the result is known"
        )
    return int(release.split(".", 1)[0])


def _options(
    n_cells: int, theta: float | None, lamb: float | None, sigma: float, nclust: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    options: dict[str, Any] = {"sigma": sigma, "theta": theta, "lamb": lamb, "nclust": nclust}
    options = {key: value for key, value in options.items() if value is not None}
    notes: dict[str, Any] = {}
    default = min(round(n_cells / _CELLS_PER_CLUSTER), _MAX_CLUSTERS)
    clusters = nclust if nclust is not None else default
    if clusters <= 1:
        # Both versions ask for no cluster at all below 15 cells, and 0.0.x reads a plain
        # number as sigma only where there are two clusters or more.
        options["nclust"] = 1
        options["sigma"] = np.array([sigma], dtype=np.float64)
        if clusters < 1:
            notes["nclust"] = f"1 instead of the package's default of {clusters}: {n_cells} cells"
    return options, notes
