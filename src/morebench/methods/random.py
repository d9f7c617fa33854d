"""Random numbers as an embedding and as a doublet score: the floor of their metrics."""

from __future__ import annotations

import numpy as np

from morebench.contract import MethodInput, MethodOutput


def run(data: MethodInput, *, seed: int, threads: int, n_components: int) -> MethodOutput:
    """Embed and score every cell by independent random numbers.

    Parameters
    ----------
    data
        The split's input; only its number of cells is used.
    seed
        Seed of the numbers.
    threads
        Not used.
    n_components
        Width of the embedding.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_components), standard normal, float32; ``doublet_score`` (n,),
        uniform on [0, 1).
    """
    rng = np.random.default_rng(seed)
    return MethodOutput(
        embedding=rng.standard_normal((data.n_cells, n_components), dtype=np.float32),
        doublet_score=rng.random(data.n_cells),
    )
