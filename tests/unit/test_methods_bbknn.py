"""The BBKNN adapter, against bbknn called directly and against its definition."""

import bbknn.matrix as package
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.metrics import pairwise_distances

from morebench.contract import MethodInput
from morebench.errors import ConfigError, Unsupported
from morebench.io.outputs import check_output
from morebench.methods import bbknn
from morebench.registry import METHODS

PARAMS = dict(METHODS["bbknn"].params)


def make_input(sizes, p=8, seed=0):
    rng = np.random.default_rng(seed)
    batch = np.repeat([f"b{i}" for i in range(len(sizes))], sizes)
    x = 4 * rng.integers(0, 3, (len(batch), 1)) + rng.normal(size=(len(batch), p))
    order = rng.permutation(len(batch))
    return MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(len(batch))]),
        genes=np.array(["g0"]),
        counts_ng=sp.csr_matrix((len(batch), 1), dtype=np.float32),
        pca_np=(x + 3 * (batch == "b0")[:, None])[order].astype(np.float32),
        obs=pd.DataFrame({"batch": batch[order]}),
        fit_visible=np.ones(len(batch), dtype=bool),
    )


def run(data, seed=0, threads=1, **params):
    return bbknn.run(data, seed=seed, threads=threads, **(PARAMS | params))


@pytest.mark.parametrize("computation", ["faiss", "KDTree"])
def test_equals_the_package(computation):
    data = make_input([60, 50, 40])
    _, expected, _ = package.bbknn(data.pca_np, data.batch, computation=computation)
    out = run(data, computation=computation)
    assert abs(out.graph - expected).max() == 0 and out.graph.nnz == expected.nnz
    assert out.notes == {
        "neighbours": 9,
        "n_pcs": 8,
        "metric": "euclidean",
        "trim": 90,
        "computation": computation,
    }
    given = {"neighbors_within_batch": 5, "n_pcs": 4, "trim": 6, "set_op_mix_ratio": 0.5}
    given |= {"local_connectivity": 2}
    _, expected, _ = package.bbknn(data.pca_np, data.batch, computation=computation, **given)
    other = run(data, computation=computation, **given).graph
    assert abs(other - expected).max() == 0 and abs(other - out.graph).max() > 0.1


def test_metric_reaches_the_package():
    data = make_input([60, 50])
    _, expected, _ = package.bbknn(
        data.pca_np, data.batch, computation="KDTree", metric="manhattan"
    )
    found = run(data, computation="KDTree", metric="manhattan")
    assert abs(found.graph - expected).max() == 0 and found.notes["metric"] == "manhattan"


def test_edges_are_the_nearest_cells_of_every_batch():
    data = make_input([60, 50, 40])
    distance = pairwise_distances(data.pca_np.astype(float))
    near = np.zeros((150, 150), dtype=bool)
    for name in ("b0", "b1", "b2"):
        cells = np.flatnonzero(data.batch == name)
        chosen = cells[np.argsort(distance[:, cells], axis=1)[:, :3]]
        near[np.arange(150)[:, None], chosen] = True
    np.fill_diagonal(near, False)
    graph = run(data, computation="faiss", trim=0).graph.toarray()
    # UMAP's weights may vanish for the farthest, so edges are among these and nearly all
    assert not (graph > 0)[~(near | near.T)].any()
    assert (graph > 0)[near | near.T].mean() > 0.95
    np.testing.assert_array_equal(graph, graph.T)


def test_the_default_is_a_valid_graph_by_annoy_on_one_thread(monkeypatch):
    asked = []
    original = package.AnnoyIndex

    class Recording(original):
        def build(self, n_trees, n_jobs=-1):
            asked.append((n_trees, n_jobs))
            return super().build(n_trees, n_jobs=n_jobs)

    monkeypatch.setattr(package, "AnnoyIndex", Recording)
    data = make_input([60, 50, 40])
    out = run(data)
    assert asked == [(10, 1)] * 3 and package.AnnoyIndex is Recording
    check_output(out, 150, 1, ("graph",), "here")
    assert out.graph.dtype == np.float32 and out.graph.diagonal().max() == 0
    assert 0 < out.graph.data.min() and out.graph.data.max() <= 1
    exact = run(data, computation="faiss").graph
    assert out.graph.multiply(exact > 0).sum() > 0.95 * out.graph.sum()
    again = run(data, seed=5, threads=2).graph
    assert abs(again - out.graph).max() == 0


def test_rows_follow_the_cells():
    data = make_input([60, 50])
    graph = run(data, computation="faiss").graph
    order = np.random.default_rng(3).permutation(110)
    data.pca_np, data.obs = data.pca_np[order], data.obs.iloc[order]
    turned = run(data, computation="faiss").graph
    assert abs(turned - graph[order][:, order]).max() < 1e-6


def test_every_batch_is_joined():
    """Batches far apart have no edge among plain neighbours; here they have."""
    data = make_input([60, 60])
    data.pca_np[data.batch == "b0"] += 100
    graph = run(data).graph.tocoo()
    across = data.batch[graph.row] != data.batch[graph.col]
    assert 0.3 < across.mean() < 0.7


def test_what_is_not_supported():
    with pytest.raises(Unsupported, match="two batches; found b0"):
        run(make_input([40]))
    with pytest.raises(Unsupported, match="3 cells in every batch; found fewer in b1, b2"):
        run(make_input([40, 2, 1]))
    run(make_input([40, 3]))
    data = make_input([40, 30])
    data.fit_visible[:9] = False
    with pytest.raises(Unsupported, match="hides 9 of 70 cells"):
        run(data)
    with pytest.raises(ConfigError, match="found 'pynndescent'; valid: annoy, faiss, KDTree"):
        run(make_input([40, 30]), computation="pynndescent")
