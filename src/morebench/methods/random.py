"""Random numbers as an embedding: the floor of every metric of biology."""

from __future__ import annotations

import numpy as np

from morebench.contract import MethodInput, MethodOutput


def run(data: MethodInput, *, seed: int, threads: int, n_components: int) -> MethodOutput:
    """Embed every cell by independent standard normal numbers.

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
        ``embedding`` (n, n_components), float32.
    """
    rng = np.random.default_rng(seed)
    return MethodOutput(
        embedding=rng.standard_normal((data.n_cells, n_components), dtype=np.float32)
    )
