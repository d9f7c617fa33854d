"""K-means, by SciPy: what scikit-learn imports takes longer than the clustering."""

from __future__ import annotations

import numpy as np

STEPS = 30


def k_means(x_nd: np.ndarray, k: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centres (k, d) and the cluster of each row (n,).

    Starts by k-means++ (Arthur and Vassilvitskii 2007) and takes Lloyd's steps, at most
    ``STEPS``. A cluster that loses all its rows keeps its centre.
    """
    import warnings

    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        # a cluster that is empty stays where it was, which is what is wanted
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        x_nd = np.asarray(x_nd, dtype=np.float64)
        return kmeans2(x_nd, k, iter=STEPS, minit="++", rng=np.random.default_rng(seed))
