"""The cell graph and mutual pairs against brute force."""

import numpy as np
import pytest

from morebench.models.more import neighbors, structure
from morebench.models.more.structure import mutual_pairs, propagate, within_batches


def cells(n=80, d=5, batches=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), rng.choice(list("abcdef")[:batches], n)


def cosine(x, y):
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    return x.astype(float) @ y.astype(float).T


def brute_pairs(x, batch, k):
    """Pairs by sorting each cell's cosines to each other batch."""
    found = set()
    for i in range(len(x)):
        for j in range(len(x)):
            if batch[i] >= batch[j]:
                continue
            there, back = np.flatnonzero(batch == batch[j]), np.flatnonzero(batch == batch[i])
            to = there[np.argsort(-cosine(x[[i]], x[there])[0])[:k]]
            fro = back[np.argsort(-cosine(x[[j]], x[back])[0])[:k]]
            if j in to and i in fro:
                found.add((i, j))
    return found


@pytest.mark.parametrize("backend", ["faiss", "sklearn"])
def test_neighbours_are_the_nearest_by_cosine(backend, monkeypatch):
    if backend == "sklearn":
        monkeypatch.setattr(neighbors.importlib.util, "find_spec", lambda name: None)
    x, _ = cells()
    y, _ = cells(30, seed=1)
    expected = np.argsort(-cosine(x, y), axis=1)
    np.testing.assert_array_equal(neighbors.nearest(x, y, 4), expected[:, :4])
    assert neighbors.nearest(x, y, 99).shape == (80, 30)


def test_rows_of_zeros_are_no_error():
    x = np.zeros((3, 4), dtype=np.float32)
    assert not neighbors.unit(x).any()
    assert neighbors.nearest(x, x, 2).shape == (3, 2)


def test_graph_rows_sum_to_one_and_never_cross_batches():
    x, batch = cells()
    graph = within_batches(x, batch, seed=0)
    np.testing.assert_allclose(np.asarray(graph.sum(1)).ravel(), 1, rtol=1e-6)
    i, j = graph.nonzero()
    assert (batch[i] == batch[j]).all()
    assert (graph.diagonal() > 0).all()
    for cell in (0, 17, 79):
        own = np.flatnonzero(batch == batch[cell])
        nearest = own[np.argsort(-cosine(x[[cell]], x[own])[0])[: structure.N_NEIGHBORS + 1]]
        assert set(graph[cell].indices) == set(nearest)


def test_a_batch_of_one_cell_stays_where_it_is():
    x, _ = cells(5)
    batch = np.array(["a", "a", "a", "a", "b"])
    np.testing.assert_allclose(propagate(x, batch, (2,), seed=0)[4], x[4], rtol=1e-6)


def test_resolutions_are_powers_of_the_graph():
    x, batch = cells()
    graph = within_batches(x, batch, seed=0).toarray()
    found = propagate(x, batch, (1, 3), seed=0)
    expected = np.concatenate([graph @ x, graph @ graph @ graph @ x], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_a_cell_of_another_batch_changes_nothing():
    x, batch = cells()
    moved = x.copy()
    moved[batch == "b"] *= -3
    same = batch != "b"
    np.testing.assert_array_equal(
        propagate(x, batch, (2,), seed=0)[same], propagate(moved, batch, (2,), seed=0)[same]
    )


def test_large_batches_seek_among_a_seeded_sample(monkeypatch):
    monkeypatch.setattr(structure, "MAX_REFERENCE", 20)
    x, batch = cells(120, batches=2)
    graph = within_batches(x, batch, seed=3)
    np.testing.assert_allclose(np.asarray(graph.sum(1)).ravel(), 1, rtol=1e-6)
    i, j = graph.nonzero()
    assert (batch[i] == batch[j]).all()
    used = np.unique(j)
    assert [int((batch[used] == b).sum()) for b in "ab"] <= [20, 20]
    assert (graph != within_batches(x, batch, seed=3)).nnz == 0
    assert (graph != within_batches(x, batch, seed=4)).nnz > 0


@pytest.mark.parametrize(("batches", "k"), [(2, 3), (3, 5), (4, 1)])
def test_mutual_pairs_are_those_of_brute_force(batches, k):
    x, batch = cells(70, batches=batches)
    found = mutual_pairs(x, batch, k, seed=0)
    expected = brute_pairs(x, batch, k)
    assert {tuple(p) for p in found.tolist()} == expected and len(found) == len(expected) > 5


def test_one_batch_has_no_pairs():
    x, _ = cells()
    found = mutual_pairs(x, np.full(80, "a"), 5, seed=0)
    assert found.shape == (0, 2) and found.dtype == np.int64


def test_anchors_of_large_batches_are_a_seeded_sample(monkeypatch):
    monkeypatch.setattr(structure, "MAX_ANCHORS", 15)
    x, batch = cells(100, batches=2)
    found = mutual_pairs(x, batch, 3, seed=0)
    assert len(found) and (batch[found[:, 0]] != batch[found[:, 1]]).all()
    assert len(np.unique(found[:, 0])) <= 15 and len(np.unique(found[:, 1])) <= 15
    np.testing.assert_array_equal(found, mutual_pairs(x, batch, 3, seed=0))
