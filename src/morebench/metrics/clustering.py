"""Agreement of clusters with cell types: Leiden and k-means, NMI and ARI."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from morebench.metrics.kmeans import kmeans
from morebench.metrics.undefined import UndefinedMetric

#: Resolutions searched for Leiden, those of scib-metrics: 0.2, 0.4, ..., 2.0.
RESOLUTIONS: tuple[float, ...] = tuple(2 * i / 10 for i in range(1, 11))
#: What scib-metrics seeds Leiden by; tasks add theirs. It seeds k-means by 0.
LEIDEN_SEED = 42


def nmi_ari(labels: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """Normalised mutual information (arithmetic mean) and adjusted Rand index.

    Raises
    ------
    UndefinedMetric
        With one type only: any single cluster would then be perfect.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if len(np.unique(labels)) < 2:
        raise UndefinedMetric(f"one cell type only among the scored cells: {labels[0]}")
    nmi = normalized_mutual_info_score(labels, clusters, average_method="arithmetic")
    return float(nmi), float(adjusted_rand_score(labels, clusters))


def leiden_clusters(
    graph: sp.spmatrix, resolutions: Sequence[float] = RESOLUTIONS, *, seed: int = LEIDEN_SEED
) -> list[np.ndarray]:
    """Cluster a weighted graph by Leiden at every resolution (Traag et al. 2019).

    igraph's ``community_leiden`` with modularity and its two iterations, the generator
    seeded anew for every resolution so that none depends on the others.

    Parameters
    ----------
    graph : (n, n) sparse matrix
        Symmetric weights; the upper triangle is read once. scib-metrics lists each edge in
        both directions, which doubles all weights and so leaves modularity as it is.

    Returns
    -------
    list of (n,) arrays of int
        Clusters at each resolution.
    """
    import igraph

    upper = sp.triu(graph, k=1).tocoo()
    network = igraph.Graph(
        n=graph.shape[0], edges=np.column_stack([upper.row, upper.col]), directed=False
    )
    weights = upper.data.astype(np.float64).tolist()
    out = []
    try:
        for resolution in resolutions:
            igraph.set_random_number_generator(random.Random(seed))
            found = network.community_leiden(
                objective_function="modularity", weights=weights, resolution=resolution
            )
            out.append(np.asarray(found.membership))
    finally:
        # The generator is global to the process.
        igraph.set_random_number_generator(random)
    return out


def leiden_nmi_ari(
    graph: sp.spmatrix,
    labels: np.ndarray,
    resolutions: Sequence[float] = RESOLUTIONS,
    *,
    seed: int = LEIDEN_SEED,
    cells: np.ndarray | None = None,
) -> tuple[float, float]:
    """NMI and ARI of the Leiden clusters whose NMI with the types is highest.

    The protocol of ``scib_metrics.nmi_ari_cluster_labels_leiden``: ten resolutions, seed
    42, and the ARI of the resolution that won by NMI (the lower one of equals). The
    choice looks at the truth, for every method alike.

    Parameters
    ----------
    graph : (n, n) sparse matrix
        UMAP connectivities of 15 neighbours in the reference.
    labels : (n,) array
        Type of each cell.
    cells : (m,) array of int, or None
        Places of the cells whose types and clusters are compared; None stands for all.

    Raises
    ------
    UndefinedMetric
        With one type only.
    """
    rows = np.arange(len(labels)) if cells is None else cells
    truth = labels[rows]
    if len(np.unique(truth)) < 2:
        raise UndefinedMetric(f"one cell type only among the scored cells: {truth[0]}")
    scores = [nmi_ari(truth, c[rows]) for c in leiden_clusters(graph, resolutions, seed=seed)]
    return scores[int(np.argmax([nmi for nmi, _ in scores]))]


def kmeans_nmi_ari(x_nd: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """NMI and ARI of k-means clusters, as many as there are types.

    Equals ``scib_metrics.nmi_ari_cluster_labels_kmeans`` at seed 0.

    Raises
    ------
    UndefinedMetric
        With one type only.
    """
    n_types = len(np.unique(labels))
    if n_types < 2:
        raise UndefinedMetric(f"one cell type only among the scored cells: {labels[0]}")
    return nmi_ari(labels, kmeans(x_nd, n_types, seed=seed))
