"""Graph connectivity of a graph that a method gives, rather than of an embedding."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def graph_connectivity(graph: sp.spmatrix, labels: np.ndarray) -> float:
    """Mean over types of the share of its cells in its largest connected part.

    Luecken et al. 2022, "Graph connectivity", as ``scib.metrics.graph_connectivity``: the
    given graph is restricted to each type. Its edges have no direction, so a part here may
    be larger than the strongly connected ones of a directed neighbour graph, which
    ``connectivity.graph_connectivity`` counts for embeddings; it is never smaller.

    Parameters
    ----------
    graph : (n, n) sparse matrix
        Symmetric; only which edges are there counts.
    labels : (n,) array
        Type of each cell.

    Returns
    -------
    float
        In (0, 1].
    """
    from scipy.sparse.csgraph import connected_components

    edges = sp.csr_matrix(graph, copy=True)
    edges.eliminate_zeros()
    shares = []
    for label in np.unique(labels):
        cells = np.flatnonzero(labels == label)
        _, parts = connected_components(edges[cells][:, cells], directed=False)
        shares.append(np.bincount(parts).max() / len(cells))
    return float(np.mean(shares))
