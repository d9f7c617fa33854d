"""Scanorama: batches joined like a panorama, along mutual nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import DataError
from morebench.methods.annoy_trees import one_thread
from morebench.methods.transductive import need_every_cell, need_two_batches
from morebench.models.more.tokens import log_normalise


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    dimred: int,
    knn: int,
    sigma: float,
    alpha: float,
    approx: bool,
    batch_size: int,
    hvg: int | None,
) -> MethodOutput:
    """Integrate the batches with ``scanorama.integrate``.

    Scanorama is given the log-normalised values of the split's genes, batch by batch in
    sorted order. It scales every cell to length 1 and reduces all cells together, by itself.

    Parameters
    ----------
    data
        The split's input; every cell must be fit-visible.
    seed
        Of the randomised SVD.
    threads
        Of linear algebra. Annoy builds its trees on one, so that its result does not
        depend on the number of cores.
    dimred
        Width of the embedding, at most: no more than there are cells or genes.
    knn
        Neighbours of a cell among which mutual ones are sought.
    sigma
        Width of the Gaussian kernel that smooths the corrections.
    alpha
        Share of matched cells below which two batches are not joined.
    approx
        Neighbours by annoy (Manhattan distance); exact ones otherwise.
    batch_size
        Matched cells whose corrections are computed at once.
    hvg
        Genes that Scanorama chooses among the split's; None keeps them all.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, dimred), cells in the order of the input; ``notes`` with its width
        and how neighbours were found.

    Raises
    ------
    Unsupported
        A cell is not fit-visible, or there is one batch only.
    DataError
        The exact search has fewer cells to look among than ``knn``.

    Notes
    -----
    Hie, Bryson and Berger 2019, Nature Biotechnology 37, 685-691.
    """
    names, code_n = _checked_batches(data, approx, knn)
    import scanorama.scanorama as package
    from threadpoolctl import threadpool_limits

    x_ng = log_normalise(data.counts_ng)
    rows = [np.flatnonzero(code_n == i) for i in range(len(names))]
    genes = data.genes.astype(str)
    with one_thread(package), threadpool_limits(limits=threads):
        parts, _ = package.integrate(
            [x_ng[r] for r in rows],
            [genes for _ in rows],
            batch_size=batch_size,
            verbose=0,
            dimred=dimred,
            approx=approx,
            sigma=sigma,
            alpha=alpha,
            knn=knn,
            hvg=hvg,
            seed=seed,
        )
    embedding = np.empty((data.n_cells, parts[0].shape[1]), dtype=np.float32)
    for r, part in zip(rows, parts, strict=True):
        # where Scanorama refuses to correct a batch, a matrix of numpy's old class comes back
        embedding[r] = np.asarray(part)
    notes: dict[str, Any] = {
        "dimensions": embedding.shape[1],
        "neighbours": "approximate: annoy, one thread" if approx else "exact",
    }
    return MethodOutput(embedding=embedding, notes=notes)


def _checked_batches(data: MethodInput, approx: bool, knn: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the names of the batches, and the batch of each cell as a number."""
    need_every_cell(data, "Scanorama")
    need_two_batches(data, "Scanorama")
    names, code_n, sizes = np.unique(data.batch, return_inverse=True, return_counts=True)
    # every batch is searched among all before it and among all after it
    fewest = min(sizes[0], sizes[-1])
    if not approx and fewest < knn:
        raise DataError(
            f"knn: found {knn}, but the first or the last batch has {fewest} cells, fewer than "
            f"the exact search is to find; valid: at most {fewest}, or approx: true"
        )
    return names, code_n
