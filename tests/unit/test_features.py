"""The input of a split: against scanpy, and without a look at hidden cells."""

import os
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from morebench.data.features import choose_genes, log_normalise, make_input
from morebench.data.pca import ScaledPCA
from morebench.data.spec import Features
from morebench.errors import DataError
from morebench.sample import sample_rows

N, G = 240, 150
SETTINGS = Features(n_top=60, n_pcs=10, min_cells=3)


def counts_of(n=N, g=G, seed=0):
    """Counts of four types, so that leading components stand apart."""
    rng = np.random.default_rng(seed)
    profile = rng.lognormal(0, 0.6, (4, g)) * (1 + 6 * (rng.random((4, g)) < 0.15))
    kind = np.arange(n) % 4
    depth = rng.lognormal(0, 0.3, (n, 1))
    return sp.csr_matrix(rng.poisson(0.6 * profile[kind] * depth).astype(np.float32))


def prepared_of(counts, batch, drop=0):
    ids = [f"c{i + 1:06d}" for i in range(counts.shape[0])]
    rna = anndata.AnnData(
        counts, obs=pd.DataFrame(index=ids), var=pd.DataFrame(index=[f"g{i}" for i in range(G)])
    )
    other = anndata.AnnData(
        counts[:, :5], obs=pd.DataFrame(index=ids), var=pd.DataFrame(index=list("vwxyz"))
    )
    parts = {"rna": rna[drop:].copy(), "adt": other} if drop else {"rna": rna, "adt": other}
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData(parts)
    names = pd.Series(batch, index=ids).loc[data.obs_names]
    data.obs["batch"] = pd.Categorical(names)
    data.obs["n_genes"] = 1.0
    data.obs["donor"] = pd.Categorical(names + "d")
    return data


def inputs(counts, batch, visible, settings=SETTINGS):
    return make_input(prepared_of(counts, batch), visible, settings, "here")


@pytest.fixture
def counts():
    return counts_of()


@pytest.fixture
def batch():
    return np.array(["b0", "b1", "b2"])[np.arange(N) % 3]


def test_log_normalise_equals_scanpy(counts):
    data = anndata.AnnData(counts.copy())
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    np.testing.assert_allclose(log_normalise(counts).toarray(), data.X.toarray(), rtol=2e-6)


def test_log_normalise_keeps_empty_cells_and_takes_integers():
    counts = sp.csr_matrix(np.array([[0, 0], [1, 3]]))
    found = log_normalise(counts, target_sum=8).toarray()
    np.testing.assert_allclose(found, [[0, 0], [np.log(3), np.log(7)]], rtol=1e-6)
    assert counts.toarray().tolist() == [[0, 0], [1, 3]]


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "seurat_v3"])
@pytest.mark.parametrize("aware", [True, False])
def test_genes_equal_scanpy_called_in_the_documented_order(counts, batch, flavor, aware):
    visible = np.arange(N) < 200
    settings = SETTINGS.model_copy(update={"flavor": flavor, "batch_aware": aware})
    found = inputs(counts, batch, visible, settings)

    data = anndata.AnnData(counts[visible].copy())
    data.obs["batch"] = pd.Categorical(batch[visible])
    data.var_names = [f"g{i}" for i in range(G)]
    sc.pp.filter_genes(data, min_cells=3)
    if flavor != "seurat_v3":
        sc.pp.normalize_total(data, target_sum=1e4)
        sc.pp.log1p(data)
    sc.pp.highly_variable_genes(
        data, n_top_genes=60, flavor=flavor, batch_key="batch" if aware else None
    )
    assert list(found.genes["gene"]) == list(data.var_names)
    np.testing.assert_array_equal(found.genes["highly_variable"], data.var["highly_variable"])
    assert found.genes["highly_variable"].sum() == 60
    np.testing.assert_allclose(found.genes["mean"], data.var["means"], rtol=1e-5)
    spread = "variances_norm" if flavor == "seurat_v3" else "dispersions_norm"
    np.testing.assert_allclose(
        found.genes["dispersion_norm"], data.var[spread], rtol=1e-3, atol=1e-4
    )
    assert list(found.data.var_names) == list(data.var_names[data.var["highly_variable"]])


@pytest.mark.parametrize(("n", "g"), [(240, 40), (40, 60)])  # both solvers
def test_pca_equals_scanpys_scale_and_pca(n, g):
    log_ng = log_normalise(counts_of(n, g, seed=3))
    model = ScaledPCA(log_ng, 8)
    pca_np, ratio = model.transform(log_ng), model.variance_ratio
    data = anndata.AnnData(log_ng.toarray().astype(np.float64))
    sc.pp.scale(data, max_value=10)
    assert np.abs(data.X).max() <= 10
    sc.pp.pca(data, n_comps=8, svd_solver="full")
    for i in range(8):
        assert abs(np.corrcoef(pca_np[:, i], data.obsm["X_pca"][:, i])[0, 1]) > 0.9999
    np.testing.assert_allclose(ratio, data.uns["pca"]["variance_ratio"], rtol=1e-4)
    np.testing.assert_allclose(pca_np.mean(0), 0, atol=1e-4)
    assert pca_np.dtype == np.float32


def test_scaled_values_are_clipped_and_constant_genes_are_harmless():
    values = np.random.default_rng(0).normal(size=(300, 6))
    values[:, 0] = 5  # no variance
    values[0, 1] = 1e4  # 17 standard deviations out
    pca_np = ScaledPCA(sp.csr_matrix(values), 4).transform(sp.csr_matrix(values))
    scaled = (values - values.mean(0)) / np.where(np.arange(6) == 0, 1, values.std(0, ddof=1))
    assert scaled.max() > 10
    clipped = np.clip(scaled, -10, 10)
    centred = clipped - clipped.mean(0)
    _, _, v = np.linalg.svd(centred, full_matrices=False)
    for i in range(4):
        assert abs(np.corrcoef(pca_np[:, i], centred @ v[i])[0, 1]) > 0.9999


def test_pca_by_blocks_equals_the_dense_one(monkeypatch):
    log_ng = log_normalise(counts_of(500, 40, seed=5))
    dense = ScaledPCA(log_ng[:430], 6)
    monkeypatch.setattr("morebench.data.pca.BLOCK", 97)  # the last block is a part
    blocks = ScaledPCA(log_ng[:430], 6)
    np.testing.assert_allclose(blocks.variance_ratio, dense.variance_ratio, rtol=1e-9)
    np.testing.assert_allclose(blocks.transform(log_ng), dense.transform(log_ng), atol=1e-5)
    assert blocks.transform(log_ng).shape == (500, 6)


def test_genes_and_pca_of_a_stated_sample(counts, batch):
    visible = np.arange(N) < 200
    settings = SETTINGS.model_copy(update={"sample": 120, "seed": 4})
    found = inputs(counts, batch, visible, settings)
    rows = np.flatnonzero(visible)[sample_rows(batch[visible], 120, 4)]
    assert found.facts["n_fitted"] == 120 and found.data.n_obs == N
    other = counts.toarray()
    other[np.setdiff1d(np.arange(N), rows)] += 1  # no other cell matters
    again = inputs(sp.csr_matrix(other), batch, visible, settings)
    pd.testing.assert_frame_equal(found.genes, again.genes)
    assert found.facts == again.facts


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    share=st.floats(0.01, 1.2),
    seed=st.integers(0, 5),
)
def test_a_sample_keeps_the_shares_of_its_groups(sizes, share, seed):
    group = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    group = np.random.default_rng(seed).permutation(group)
    size = max(1, int(share * len(group)))
    rows = sample_rows(group, size, seed)
    assert len(rows) == len(set(rows)) == min(size, len(group))
    assert list(rows) == sorted(rows)
    for i, n in enumerate(sizes):
        exact = n * min(1, size / len(group))
        assert abs((group[rows] == f"g{i}").sum() - exact) < 1
    np.testing.assert_array_equal(rows, sample_rows(group, size, seed))


def test_a_sample_differs_by_seed_and_takes_all_by_default():
    group = np.array(["a", "b"] * 50)
    assert list(sample_rows(group, 20, 0)) != list(sample_rows(group, 20, 1))
    np.testing.assert_array_equal(sample_rows(group, None, 0), np.arange(100))
    with pytest.raises(ValueError, match="size = 0; valid: 1 or more"):
        sample_rows(group, 0, 0)


def test_hidden_cells_change_nothing_for_the_fitted_ones(counts, batch):
    visible = batch != "b2"
    one = inputs(counts, batch, visible)
    other = counts.toarray()
    other[~visible] = np.random.default_rng(9).poisson(30, other[~visible].shape)
    other = sp.csr_matrix(other.astype(np.float32))
    two = inputs(other, batch, visible)
    pd.testing.assert_frame_equal(one.genes, two.genes)
    assert one.facts == two.facts
    assert one.facts["n_fitted"] == visible.sum() == 160
    np.testing.assert_array_equal(one.data.obsm["X_pca"][visible], two.data.obsm["X_pca"][visible])
    assert not np.allclose(one.data.obsm["X_pca"][~visible], two.data.obsm["X_pca"][~visible])
    # nor does their batch, which would add a group to the ranking
    renamed = np.where(visible, batch, np.where(np.arange(N) % 2, "new1", "new2"))
    pd.testing.assert_frame_equal(one.genes, inputs(counts, renamed, visible).genes)


def test_hidden_cells_are_projected_by_the_fitted_loadings(counts, batch):
    visible = batch != "b2"
    found = inputs(counts, batch, visible)
    chosen = found.genes["highly_variable"].to_numpy()
    enough = np.asarray((counts[visible] > 0).sum(0)).ravel() >= 3
    log_ng = log_normalise(counts[:, enough])[:, chosen].toarray().astype(np.float64)
    mean, std = log_ng[visible].mean(0), log_ng[visible].std(0, ddof=1)
    z = np.clip((log_ng - mean) / std, -10, 10)
    centre = z[visible].mean(0)
    _, s, v = np.linalg.svd(z[visible] - centre, full_matrices=False)
    for i in range(5):
        expected = (z[~visible] - centre) @ v[i]
        got = found.data.obsm["X_pca"][~visible, i]
        sign = np.sign(expected @ got)
        np.testing.assert_allclose(got, sign * expected, rtol=1e-3, atol=1e-3)
    ratio = s**2 / (s**2).sum()
    np.testing.assert_allclose(found.facts["pca_variance_ratio"], ratio[:10], rtol=1e-6)


def test_the_input_holds_raw_counts_of_the_chosen_genes_and_no_more(counts, batch):
    visible = np.arange(N) % 5 != 0
    found = inputs(counts, batch, visible)
    assert list(found.data.obs.columns) == ["batch", "donor", "fit_visible"]
    assert list(found.data.obs["fit_visible"]) == list(visible)
    columns = [int(name[1:]) for name in found.data.var_names]
    np.testing.assert_array_equal(found.data.X.toarray(), counts[:, columns].toarray())
    assert set(found.data.obsm) == {"X_pca"} and found.data.obsm["X_pca"].shape == (N, 10)
    assert not len(found.data.layers) and not dict(found.data.uns)
    assert found.facts["n_genes"] == 60 and found.facts["modality"] == "rna"
    in_visible = np.asarray((counts[visible] > 0).sum(0)).ravel()
    assert list(found.genes["n_cells"]) == [k for k in in_visible if k >= 3]


@pytest.mark.parametrize("size", [1, 2, 3, 23])
def test_small_batches_work(size):
    counts = counts_of(200 + size)
    batch = np.array(["a"] * 100 + ["b"] * 100 + ["small"] * size)
    found = inputs(counts, batch, np.ones(200 + size, dtype=bool))
    assert found.genes["highly_variable"].sum() == 60
    assert found.genes.notna().all(axis=None)
    assert np.isfinite(found.data.obsm["X_pca"]).all()
    alone = inputs(counts, np.array([f"b{i}" for i in range(200 + size)]), batch != "")
    assert alone.genes["highly_variable"].sum() == 60  # a batch a cell: ranked over all cells


def test_a_batch_of_one_cell_takes_no_part_in_the_ranking():
    counts = counts_of(201)
    log_ng = log_normalise(counts)
    batch = np.array(["a"] * 100 + ["b"] * 100 + ["small"])
    found = choose_genes(counts, log_ng, batch, SETTINGS)
    without = choose_genes(counts[:200], log_ng[:200], batch[:200], SETTINGS)
    pd.testing.assert_frame_equal(found, without)


@pytest.mark.parametrize(("flavor", "size"), [("seurat_v3", 2), ("cell_ranger", 2)])
def test_a_flavour_that_cannot_rank_small_batches_says_what_to_do(flavor, size):
    counts = counts_of(200 + size)
    batch = np.array(["a"] * 200 + ["small"] * size)
    settings = SETTINGS.model_copy(update={"flavor": flavor})
    with pytest.raises(DataError, match=f"{flavor}.*a: 200, small: {size}.*valid here: seurat"):
        choose_genes(counts, log_normalise(counts), batch, settings)


def test_same_input_same_output(counts, batch):
    visible = batch != "b1"
    one, two = (inputs(counts, batch, visible) for _ in range(2))
    pd.testing.assert_frame_equal(one.genes, two.genes)
    np.testing.assert_array_equal(one.data.obsm["X_pca"], two.data.obsm["X_pca"])
    assert one.facts == two.facts


def test_too_few_cells_or_genes_and_missing_modality_are_named(counts, batch):
    few = np.arange(N) < 10
    with pytest.raises(DataError, match=r"here: 10 cells x \d+ genes .* set n_pcs to 9 or less"):
        inputs(counts, batch, few)
    with pytest.raises(DataError, match="240 cells x 10 genes .* set n_pcs to 9"):
        inputs(counts, batch, np.ones(N, bool), SETTINGS.model_copy(update={"n_top": 10}))
    with pytest.raises(DataError, match="here: 7 cells lack rna"):
        make_input(prepared_of(counts, batch, drop=7), np.ones(N, bool), SETTINGS, "here")


@pytest.mark.skipif("MOREBENCH_DATA" not in os.environ, reason="needs MOREBENCH_DATA")
def test_a_donor_of_23_cells_works():
    file = next(Path(os.environ["MOREBENCH_DATA"]).glob("pancreas_baron*.h5ad"))
    data = anndata.read_h5ad(file)
    counts, batch = sp.csr_matrix(data.X).astype(np.float32), data.obs["batch"].astype(str)
    assert batch.value_counts().min() == 23
    found = choose_genes(counts, log_normalise(counts), batch.to_numpy(), Features())
    assert found["highly_variable"].sum() == 2000
