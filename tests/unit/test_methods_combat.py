"""The ComBat adapter, against scanpy called directly and against closed forms."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from sklearn.decomposition import PCA

from morebench.contract import MethodInput
from morebench.errors import DataError, Unsupported
from morebench.methods import combat


def make_input(sizes, g=40, seed=0):
    rng = np.random.default_rng(seed)
    batch = np.repeat([f"b{i}" for i in range(len(sizes))], sizes)
    profile = np.random.default_rng(9).lognormal(0, 1, size=(3, g))
    shift = np.random.default_rng(8).lognormal(0, 0.7, size=(len(sizes), g))
    types = rng.integers(0, 3, len(batch))
    counts = rng.poisson(5 * profile[types] * np.repeat(shift, sizes, axis=0))
    order = np.random.default_rng(7).permutation(len(batch))
    return MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(len(batch))]),
        genes=np.array([f"g{j}" for j in range(g)]),
        counts_ng=sp.csr_matrix(counts[order].astype(np.float32)),
        pca_np=np.zeros((len(batch), 2), np.float32),
        obs=pd.DataFrame({"batch": batch[order]}),
        fit_visible=np.ones(len(batch), dtype=bool),
    )


def run(data, n_components=5, seed=0, threads=1):
    return combat.run(data, seed=seed, threads=threads, n_components=n_components)


def direct(data):
    """scanpy's own normalisation and ComBat."""
    adata = anndata.AnnData(data.counts_ng.toarray().astype(float))
    adata.obs["batch"] = pd.Categorical(data.batch)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.combat(adata, key="batch")
    return adata.X


def test_equals_scanpy_and_an_exact_pca():
    data = make_input([70, 60, 50])
    x = direct(data)
    np.testing.assert_allclose(combat.corrected(data).X, x, rtol=1e-6, atol=1e-6)
    scaled = np.clip((x - x.mean(0)) / x.std(0, ddof=1), -10, 10)
    u, s, _ = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
    out = run(data, 5)
    assert out.embedding.shape == (180, 5) and out.embedding.dtype == np.float32
    sign = np.sign((u[:, :5] * out.embedding).sum(0))
    np.testing.assert_allclose(out.embedding, u[:, :5] * s[:5] * sign, rtol=1e-3, atol=1e-3)
    assert out.notes == {"n_genes": 40, "n_genes_left_out": 0}


def test_batch_means_come_together():
    """Without shrinkage ComBat's means are equal over batches; with it they nearly are."""
    data = make_input([150, 150])
    counts = data.counts_ng.toarray().astype(float)
    before = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    after = combat.corrected(data).X
    one = data.batch == "b0"
    gap = [np.abs(x[one].mean(0) - x[~one].mean(0)).mean() for x in (before, after)]
    assert gap[1] < 0.05 * gap[0]
    spread = [np.abs(np.log(x[one].std(0) / x[~one].std(0))).mean() for x in (before, after)]
    assert spread[1] < 0.5 * spread[0]
    # the grand mean of a gene stays where it was
    np.testing.assert_allclose(after.mean(0), before.mean(0), atol=0.02)


def test_fewer_cells_than_genes():
    data = make_input([16, 14], g=50)
    x = direct(data)
    scaled = np.clip((x - x.mean(0)) / x.std(0, ddof=1), -10, 10)
    expected = PCA(4, svd_solver="full").fit_transform(scaled)
    np.testing.assert_allclose(run(data, 4).embedding, expected, rtol=1e-3, atol=1e-3)


def test_genes_without_variance_are_left_out():
    data = make_input([60, 50])
    counts = data.counts_ng.toarray()
    counts[:, [3, 17]] = 0
    data.counts_ng = sp.csr_matrix(counts)
    assert run(data).notes == {"n_genes": 38, "n_genes_left_out": 2}
    kept = np.setdiff1d(np.arange(40), [3, 17])
    fewer = make_input([60, 50])
    fewer.counts_ng, fewer.genes = fewer.counts_ng[:, kept], fewer.genes[kept]
    np.testing.assert_array_equal(run(data).embedding, run(fewer).embedding)
    # a gene silent in one batch only has a solution
    counts[data.batch == "b0", 5] = 0
    data.counts_ng = sp.csr_matrix(counts)
    assert np.isfinite(combat.corrected(data).X).all()


def test_cells_keep_their_order_and_nothing_is_drawn():
    data = make_input([60, 50])
    first = run(data)
    np.testing.assert_array_equal(first.embedding, run(data, seed=7, threads=2).embedding)
    order = np.random.default_rng(3).permutation(110)
    data.counts_ng, data.obs = data.counts_ng[order], data.obs.iloc[order]
    turned = run(data).embedding
    sign = np.sign((turned * first.embedding[order]).sum(0))
    np.testing.assert_allclose(turned * sign, first.embedding[order], rtol=1e-3, atol=1e-3)


def test_what_cannot_be_done():
    with pytest.raises(Unsupported, match="two batches; found b0"):
        run(make_input([40]))
    with pytest.raises(Unsupported, match="2 cells in every batch; found fewer in b1"):
        run(make_input([40, 1]))
    data = make_input([40, 30])
    with pytest.raises(DataError, match="n_components: found 41, .* valid is 1 to 40"):
        run(data, 41)
    data.fit_visible[:3] = False
    with pytest.raises(Unsupported, match="hides 3 of 70 cells"):
        run(data)
    data = make_input([40, 30])
    data.counts_ng = sp.csr_matrix(data.counts_ng.shape, dtype=np.float32)
    with pytest.raises(DataError, match="none of 40 genes varies"):
        run(data)


def test_two_cells_in_a_batch_have_a_finite_answer_or_a_reason():
    data = make_input([40, 2])
    assert np.isfinite(run(data).embedding).all()
