"""Tokens against a dense computation, and what must not change them."""

import numpy as np
import pytest
import scipy.sparse as sp

from morebench.errors import DataError
from morebench.models.more import tokens as tk


def cells(n=60, g=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.4, 2.0, size=g), size=(n, g)).astype(np.float32)


def dense_log(x):
    depth = x.sum(1, keepdims=True)
    return np.log1p(1e4 * x / np.where(depth > 0, depth, 1))


def expected(x, visible, k):
    """The definition, dense and cell by cell."""
    log = dense_log(x.astype(np.float64))
    mean, std = log[visible].mean(0), log[visible].std(0)
    z = (log - mean) / (std + np.median(std[std > 0]))
    for i in range(len(x)):
        order = sorted(np.flatnonzero(x[i]), key=lambda j: (-z[i, j], j))[:k]
        positive = np.maximum(z[i, order], 0)
        top = positive.max() if len(order) and positive.max() > 0 else 1
        yield order, 0.2 + 0.8 * positive / top


@pytest.mark.parametrize("k", [1, 7, 100])
def test_tokens_are_those_of_the_dense_definition(k, monkeypatch):
    monkeypatch.setattr(tk, "CHUNK", 17)  # several chunks, the last one shorter
    x = cells()
    x[3] = 0
    visible = np.arange(60) % 3 > 0
    found = tk.choose_tokens(sp.csr_matrix(x), tk.background(sp.csr_matrix(x), visible), k)
    assert found.index_nk.dtype == np.int32 and found.weight_nk.dtype == np.float32
    for i, (order, weight) in enumerate(expected(x, visible, k)):
        m = found.n_tokens_n[i]
        assert found.index_nk[i, :m].tolist() == order
        np.testing.assert_allclose(found.weight_nk[i, :m], weight, rtol=1e-5)
        assert not found.weight_nk[i, m:].any() and not found.index_nk[i, m:].any()
    assert found.n_tokens_n[3] == 0
    assert (found.n_tokens_n == np.minimum(k, (x > 0).sum(1))).all()


def test_background_is_of_fit_visible_cells_only():
    x = cells()
    visible = np.arange(60) < 40
    usual = tk.background(sp.csr_matrix(x), visible)
    log = dense_log(x[:40].astype(np.float64))
    np.testing.assert_allclose(usual.mean_g, log.mean(0), atol=1e-12)
    np.testing.assert_allclose(usual.std_g, log.std(0), atol=1e-7)
    x[40:] *= 5
    again = tk.background(sp.csr_matrix(x), visible)
    assert (again.mean_g == usual.mean_g).all() and (again.std_g == usual.std_g).all()


def test_ties_go_to_the_lower_index():
    x = np.zeros((4, 6), dtype=np.float32)
    x[0] = [2, 0, 2, 2, 2, 2]
    usual = tk.Background(np.zeros(6), np.ones(6))
    found = tk.choose_tokens(sp.csr_matrix(x), usual, 3)
    assert found.index_nk[0].tolist() == [0, 2, 3]
    np.testing.assert_allclose(found.weight_nk[0], 1)


def test_depth_and_storage_do_not_matter():
    x = cells()
    usual = tk.background(sp.csr_matrix(x), np.ones(60, bool))
    found = tk.choose_tokens(sp.csr_matrix(x), usual, 8)
    shuffled = sp.csr_matrix(x)
    for a, b in zip(shuffled.indptr[:-1], shuffled.indptr[1:], strict=True):
        shuffled.indices[a:b] = shuffled.indices[a:b][::-1]
        shuffled.data[a:b] = shuffled.data[a:b][::-1]
    shuffled.has_sorted_indices = False
    before = shuffled.indices.copy()
    for other in (shuffled, sp.csr_matrix(4 * x), sp.csr_matrix(x.astype(np.int64))):
        again = tk.choose_tokens(other, usual, 8)
        assert (again.index_nk == found.index_nk).all()
        np.testing.assert_allclose(again.weight_nk, found.weight_nk, rtol=1e-5)
    assert (shuffled.indices == before).all()  # the caller's matrix is as it was


def test_a_value_and_not_only_its_rank_moves_the_weight():
    usual = tk.Background(np.zeros(3), np.ones(3))
    near = tk.choose_tokens(sp.csr_matrix([[10, 9, 1]]), usual, 3).weight_nk[0]
    far = tk.choose_tokens(sp.csr_matrix([[10, 2, 1]]), usual, 3).weight_nk[0]
    assert near[0] == far[0] == 1 and near[1] > far[1] > far[2] >= 0.2


def test_bad_input_is_named():
    x = sp.csr_matrix(cells())
    usual = tk.background(x, np.ones(60, bool))
    with pytest.raises(DataError, match="0 of them true"):
        tk.background(x, np.zeros(60, bool))
    with pytest.raises(DataError, match="k = 0"):
        tk.choose_tokens(x, usual, 0)
    with pytest.raises(DataError, match="background of 40"):
        tk.choose_tokens(x[:, :9].tocsr(), usual, 3)
    x.data[5] = -1
    with pytest.raises(DataError, match="counts hold -1"):
        tk.choose_tokens(x, usual, 3)
