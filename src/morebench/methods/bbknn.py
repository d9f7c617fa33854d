"""BBKNN: a neighbour graph in which every batch gives a cell as many neighbours."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ConfigError, listed
from morebench.methods.annoy_trees import one_thread
from morebench.methods.pca import first_components
from morebench.methods.transductive import need_every_cell, need_two_batches

# The package's others, cKDTree and pynndescent, take every core whatever they are told.
COMPUTATIONS = ("annoy", "faiss", "KDTree")


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    neighbors_within_batch: int,
    n_pcs: int,
    trim: int | None,
    computation: str,
    annoy_n_trees: int,
    metric: str,
    set_op_mix_ratio: float,
    local_connectivity: int,
) -> MethodOutput:
    """Join every cell with its nearest cells of each batch, in the split's PCA.

    Parameters
    ----------
    data
        The split's input; every cell must be fit-visible.
    seed
        Not used: BBKNN draws nothing, and annoy's seed is fixed.
    threads
        Of the exact search. Annoy builds its trees on one, so that its result does not
        depend on the number of cores.
    neighbors_within_batch
        Neighbours of a cell in each batch.
    n_pcs
        Leading components of the split's PCA, at most.
    trim
        Strongest edges that a cell keeps; None leaves the package's default, 10 times the
        neighbours of a cell; 0 keeps all.
    computation
        ``annoy`` (approximate), ``faiss`` or ``KDTree`` (exact).
    annoy_n_trees
        Trees of annoy.
    metric
        Distance; of faiss ``euclidean`` only.
    set_op_mix_ratio, local_connectivity
        Of UMAP's connectivities.

    Returns
    -------
    MethodOutput
        ``graph``: (n, n) csr matrix of float32, connectivities: symmetric, in (0, 1], empty
        diagonal; ``notes`` with the neighbours of a cell, the components used and the trim.

    Raises
    ------
    Unsupported
        A cell is not fit-visible, there is one batch only, or a batch has fewer cells than
        a cell is to have neighbours in it.
    ConfigError
        ``computation`` is none of ``COMPUTATIONS``.

    Notes
    -----
    Polanski et al. 2020, Bioinformatics 36, 964-965.
    """
    if computation not in COMPUTATIONS:
        raise ConfigError(f"computation: found {computation!r}; valid: {listed(COMPUTATIONS)}")
    need_every_cell(data, "BBKNN")
    need_two_batches(data, "BBKNN", neighbors_within_batch)
    import bbknn.matrix as package
    from threadpoolctl import threadpool_limits

    # the package takes fewer components where there are fewer, too
    x_np = first_components(data, min(n_pcs, data.pca_np.shape[1]))
    with one_thread(package), threadpool_limits(limits=threads):
        _, graph, used = package.bbknn(
            x_np,
            data.batch,
            neighbors_within_batch=neighbors_within_batch,
            n_pcs=n_pcs,
            trim=trim,
            computation=computation,
            annoy_n_trees=annoy_n_trees,
            metric=metric,
            set_op_mix_ratio=set_op_mix_ratio,
            local_connectivity=local_connectivity,
        )
    return MethodOutput(
        graph=sp.csr_matrix(graph, dtype=np.float32),
        notes={
            "neighbours": int(used["n_neighbors"]),
            "n_pcs": int(used["n_pcs"]),
            "metric": str(used["metric"]),
            "trim": int(used["bbknn"]["trim"]),
            "computation": str(used["bbknn"]["computation"]),
        },
    )
