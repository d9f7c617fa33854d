"""Majority voting: every cell takes the most frequent label of its small cluster."""

from __future__ import annotations

import numpy as np

from morebench.metrics.clustering import leiden_clusters
from morebench.metrics.connectivity import umap_connectivities
from morebench.metrics.neighbors import K_GRAPH, exact_neighbors

#: Cells below which a resolution of Leiden serves, as CellTypist over-clusters
#: (Dominguez Conde et al. 2022; celltypist.classifier.Classifier.over_cluster).
RESOLUTIONS = ((5_000, 5.0), (20_000, 10.0), (40_000, 15.0), (100_000, 20.0), (200_000, 25.0))
LARGEST = 30.0


def over_clusters(x_np: np.ndarray, *, seed: int, threads: int) -> np.ndarray:
    """Return (n,) small clusters: Leiden at a high resolution on 15 neighbours.

    Parameters
    ----------
    x_np : (n, p) array
        Uncorrected components of every cell: one clustering serves all methods, and no label
        has a part in it.
    """
    n = len(x_np)
    if n <= K_GRAPH:
        return np.zeros(n, dtype=int)
    resolution = next((r for below, r in RESOLUTIONS if n < below), LARGEST)
    graph = umap_connectivities(exact_neighbors(x_np, K_GRAPH, threads=threads))
    return leiden_clusters(graph, [resolution], seed=seed)[0]


def vote(labels: np.ndarray, cluster_n: np.ndarray) -> np.ndarray:
    """Return (n,) the most frequent label of each cell's cluster; the first by name of equals."""
    names, code_n = np.unique(labels.astype(str), return_inverse=True)
    at = np.unique(cluster_n, return_inverse=True)[1]
    count_ck = np.zeros((at.max() + 1, len(names)), dtype=int)
    np.add.at(count_ck, (at, code_n), 1)
    return names[count_ck.argmax(axis=1)][at]
