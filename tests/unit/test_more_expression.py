"""The expression branch against dense linear algebra, and the choice of features."""

import numpy as np
import pytest
import scipy.sparse as sp

from morebench.errors import DataError
from morebench.models.more import expression, genes
from morebench.models.more.expression import fit_expression, keep_power, normalise


def counts(n=60, g=20, seed=0):
    rng = np.random.default_rng(seed)
    rate = rng.gamma(2, 1, (3, g))[rng.integers(0, 3, n)]
    return sp.csr_matrix(rng.poisson(rate).astype(np.float32))


def dense_pca(x_ng, p):
    """Centred values on their first p right singular vectors; variances of all."""
    centred = x_ng - x_ng.mean(0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    return centred @ vt[:p].T, s**2 / (len(x_ng) - 1), vt


def logs(x_ng):
    total = x_ng.sum(1, keepdims=True)
    return np.log1p(1e4 * x_ng / np.where(total > 0, total, 1))


@pytest.mark.parametrize("n", [12, 60])
def test_components_are_those_of_a_dense_svd(n):
    x = counts(n)
    fitted = fit_expression(x, "rna", 5, shrink=False, seed=0)
    expected, variance, vt = dense_pca(logs(x.toarray().astype(float)), 5)
    np.testing.assert_allclose(np.abs(np.diag(vt[:5] @ fitted.components_gp)), 1, atol=1e-6)
    found = fitted.transform(x)
    np.testing.assert_allclose(np.abs(found), np.abs(expected) * fitted.scale, atol=1e-4)
    assert fitted.scale == pytest.approx(np.sqrt(5 / variance[:5].sum()))
    # mean squared norm p, up to the n - 1 of the variance
    assert (found**2).sum(1).mean() == pytest.approx(5 * (n - 1) / n, rel=1e-5)


def test_shrinkage_is_what_the_first_component_left_out_leaves():
    x = counts()
    fitted = fit_expression(x, "rna", 4, shrink=True, seed=0)
    plain = fit_expression(x, "rna", 4, shrink=False, seed=0)
    _, variance, _ = dense_pca(logs(x.toarray().astype(float)), 4)
    expected = np.sqrt(1 - variance[4] / variance[:4])
    np.testing.assert_allclose(fitted.shrinkage_p, expected, rtol=1e-6)
    ratio = fitted.transform(x) / fitted.scale / (plain.transform(x) / plain.scale)
    np.testing.assert_allclose(ratio, np.tile(expected, (60, 1)), rtol=1e-3)
    assert (np.diff(fitted.shrinkage_p) <= 0).all() and (plain.shrinkage_p == 1).all()


@pytest.mark.parametrize("spectrum", [1.0, 0.5, 0.0])
def test_a_fit_of_full_rank_is_inverted(spectrum):
    """Twelve genes of which six are twins: six components hold all."""
    x = counts(40, 6).toarray()
    x = sp.csr_matrix(np.concatenate([x, x], axis=1))
    fitted = fit_expression(x, "rna", 6, shrink=False, seed=0, spectrum=spectrum)
    assert fitted.width == 6
    back = fitted.inverse(fitted.transform(x))
    np.testing.assert_allclose(back, logs(x.toarray().astype(float)), atol=1e-4)


def lossy(seed=0, n=1500, g=40):
    """Make two types that ten weak genes tell apart; ten strong ones are lost at random."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    rate = np.full((n, g), 20.0)
    rate[:, :5] = np.where(kind, 30, 20)[:, None]
    rate[:, 5:10] = np.where(kind, 20, 30)[:, None]
    x = rng.poisson(rate).astype(np.float32)
    x[:, 10:20] *= 20 * (rng.random((n, 10)) < 0.7)
    return sp.csr_matrix(x), kind


def test_genes_that_are_lost_at_random_make_no_components_of_their_own():
    """Their loss also changes every other gene's share, which is a component in any case."""
    x, kind = lossy()
    plain, weighted = (
        fit_expression(x, "rna", 2, shrink=False, seed=0, noise_weight=weight)
        for weight in (0.0, 10.0)
    )
    told_apart = [
        max(np.corrcoef(p_n, kind)[0, 1] ** 2 for p_n in fitted.transform(x).T)
        for fitted in (plain, weighted)
    ]
    assert told_apart[0] < 0.05 and told_apart[1] > 0.8
    lost, others = weighted.weight_g[10:20], np.delete(weighted.weight_g, range(10, 20))
    assert lost.max() < 0.2 * others.min()


def test_the_noise_is_the_uniqueness_of_factor_analysis(monkeypatch):
    """With enough rounds the noise is that of scikit-learn's maximum likelihood."""
    from sklearn.decomposition import FactorAnalysis

    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(3, 40))
    noise = rng.uniform(0.5, 4, 40)
    x = rng.normal(size=(20_000, 3)) @ loadings + rng.normal(size=(20_000, 40)) * np.sqrt(noise)
    monkeypatch.setattr(expression, "ROUNDS", 30)
    monkeypatch.setattr(expression, "normalise", lambda x_ng, kind, frequency_g: x_ng)
    fitted = fit_expression(sp.csr_matrix(x), "rna", 3, shrink=False, seed=0, noise_weight=1e6)
    found = (fitted.weight_g**-2 - 1) / 1e6
    expected = (
        FactorAnalysis(3, svd_method="lapack", tol=1e-8, max_iter=5000).fit(x).noise_variance_
    )
    np.testing.assert_allclose(found, expected, rtol=0.1)
    np.testing.assert_allclose(found, noise, rtol=0.15)


def test_noise_weights_leave_other_modalities_and_denoising_as_they_are():
    x = counts()
    for kind in ("adt", "atac"):
        fitted = fit_expression(x, kind, 4, shrink=False, seed=0, noise_weight=2.0)
        assert (fitted.weight_g == 1).all()
    whole = sp.csr_matrix(np.tile(counts(40, 6).toarray(), 2))
    fitted = fit_expression(whole, "rna", 6, shrink=False, seed=0, noise_weight=2.0)
    back = fitted.inverse(fitted.transform(whole))
    np.testing.assert_allclose(back, logs(whole.toarray().astype(float)), atol=1e-4)


def test_proteins_are_centred_log_ratios():
    x = counts(10, 6).toarray()
    x[3] = 0
    found = normalise(sp.csr_matrix(x), "adt", np.ones(6)).toarray()
    expected = np.array([np.log1p(row) - np.mean(np.log1p(row)) for row in x.astype(float)])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-12)
    assert not found[3].any()


def test_peaks_are_weighted_by_inverse_frequency():
    x = np.array([[2, 0, 1, 0], [1, 1, 1, 0], [0, 0, 5, 0]], dtype=np.float32)
    frequency = (x > 0).mean(0)
    found = normalise(sp.csr_matrix(x), "atac", frequency).toarray()
    binary = (x > 0).astype(float)
    expected = np.log1p(
        1e4 * binary / binary.sum(1, keepdims=True) / np.where(frequency > 0, frequency, 1)
    )
    np.testing.assert_allclose(found, expected)
    fitted = fit_expression(sp.vstack([sp.csr_matrix(x)] * 3), "atac", 2, shrink=False, seed=0)
    np.testing.assert_allclose(fitted.frequency_g, frequency)


@pytest.mark.parametrize("kind", ["rna", "adt", "atac"])
def test_empty_cells_stay_empty_and_are_finite(kind):
    x = counts().toarray()
    x[5] = 0
    x = sp.csr_matrix(x)
    fitted = fit_expression(x, kind, 4, shrink=True, seed=0)
    assert not normalise(x, kind, fitted.frequency_g)[5].toarray().any()
    found = fitted.transform(x)
    assert np.isfinite(found).all() and found.dtype == np.float32
    expected = -(fitted.mean_g @ fitted.components_gp) * fitted.shrinkage_p * fitted.scale
    np.testing.assert_allclose(found[5], expected, rtol=1e-5)
    assert (fitted.weight_g == 1).all()


@pytest.mark.parametrize("shrink", [True, False])
def test_the_spectrum_is_a_power_of_the_standard_deviations(shrink):
    x = counts()
    plain = fit_expression(x, "rna", 4, shrink=shrink, seed=0).transform(x).std(0)
    half = fit_expression(x, "rna", 4, shrink=shrink, seed=0, spectrum=0.5).transform(x)
    ratio = half.std(0) / np.sqrt(plain)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    assert (half**2).sum(1).mean() == pytest.approx(4 * 59 / 60, rel=1e-4)
    np.testing.assert_allclose(
        keep_power(np.array([4.0, 1.0, 0.0]), 0.5), [1, 2, 0]
    )  # 4 stays, 1 becomes 4 * sqrt(1 / 4)


def test_values_of_other_cells_do_not_change_a_cell():
    x = counts()
    fitted = fit_expression(x[:40], "rna", 4, shrink=True, seed=0)
    np.testing.assert_array_equal(fitted.transform(x)[50:], fitted.transform(x[50:]))


@pytest.mark.parametrize(("shape", "p"), [((60, 5), 3), ((6, 20), 4), ((4, 4), 2)])
def test_few_cells_or_features_give_fewer_components(shape, p):
    assert fit_expression(counts(*shape), "rna", 30, shrink=True, seed=0).width == p


@pytest.mark.parametrize("value", [0, 1])
def test_equal_cells_are_refused(value):
    x = sp.csr_matrix(np.full((10, 6), value, dtype=np.float32))
    with pytest.raises(DataError, match="atac: no feature varies over the 10 cells"):
        fit_expression(x, "atac", 3, shrink=True, seed=0)


def test_large_data_is_fitted_on_a_seeded_sample(monkeypatch):
    monkeypatch.setattr(expression, "MAX_FITTED", 30)
    x = counts()
    one, two = (fit_expression(x, "rna", 4, shrink=True, seed=1) for _ in range(2))
    other = fit_expression(x, "rna", 4, shrink=True, seed=2)
    np.testing.assert_array_equal(one.components_gp, two.components_gp)
    assert not np.allclose(one.mean_g, other.mean_g)
    rows = np.sort(np.random.default_rng(1).choice(60, 30, replace=False))
    np.testing.assert_allclose(one.mean_g, logs(x.toarray().astype(float))[rows].mean(0))


def test_all_features_are_kept_where_they_are_few():
    assert list(genes.most_variable(counts(30, 7), np.full(30, "a"), "rna")) == list(range(7))


def test_variable_genes_are_found_in_every_batch_and_rare_ones_are_not(monkeypatch):
    """Genes 3 and 8 differ between types in both batches; gene 5 between batches only."""
    rng = np.random.default_rng(0)
    batch, kind = np.repeat(["a", "b"], 200), np.tile([0, 1], 200)
    rate = np.tile(rng.uniform(1, 5, 60), (400, 1))
    rate[:, 3], rate[:, 8] = np.where(kind, 9, 0.3), np.where(kind, 0.3, 9)
    rate[:, 5] = np.where(batch == "a", 1, 4)
    rate[:, 11] = 0
    x = rng.poisson(rate).astype(np.float32)
    x[7, 11] = 50  # one cell only
    monkeypatch.setitem(genes.N_TOP, "rna", 2)
    assert list(genes.most_variable(sp.csr_matrix(x), batch, "rna")) == [3, 8]


def test_both_ways_to_the_components_agree(monkeypatch):
    """Few features go by their covariance, many by Lanczos: the same branch up to signs."""
    rng = np.random.default_rng(3)
    counts = sp.csr_matrix(rng.poisson(rng.gamma(0.5, 4, (3, 40))[np.arange(90) % 3]) * 1.0)
    given = {"kind": "rna", "n_components": 5, "shrink": True, "seed": 0, "spectrum": 0.75}
    given["noise_weight"] = 2.0
    few = expression.fit_expression(counts, **given)
    monkeypatch.setattr(expression, "CHUNK", 7)
    chunked = expression.fit_expression(counts, **given)
    monkeypatch.setattr(expression, "MAX_COVARIANCE", 10)
    many = expression.fit_expression(counts, **given)
    np.testing.assert_allclose(few.components_gp, chunked.components_gp, atol=1e-10)
    np.testing.assert_allclose(few.shrinkage_p, many.shrinkage_p, rtol=1e-8)
    np.testing.assert_allclose(few.weight_g, many.weight_g, rtol=1e-8)
    assert few.weight_g.max() < 1
    np.testing.assert_allclose(
        np.abs((few.components_gp * many.components_gp).sum(0)), 1, atol=1e-8
    )
    np.testing.assert_allclose(
        np.abs(few.transform(counts)), np.abs(many.transform(counts)), atol=1e-4
    )
