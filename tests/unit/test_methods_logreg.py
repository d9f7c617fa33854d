"""Logistic regression on PCA and on genes, against the conditions that define its optimum."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from morebench.contract import MethodInput
from morebench.errors import ConfigError, ContractError, DataError
from morebench.methods import logreg
from morebench.registry import METHODS

PARAMS = dict(METHODS["logreg"].params)
CLASSES = ("a", "b", "c")


def make_input(n=240, p=30, seed=0):
    """Return cells of three types whose means differ in the first components; a third hidden."""
    rng = np.random.default_rng(seed)
    truth = np.array(CLASSES, dtype=object)[rng.integers(0, 3, n)]
    means = {"a": (2, 0), "b": (-1, 2), "c": (-1, -2)}
    scale = np.linspace(5, 0.2, p)
    x_np = rng.normal(size=(n, p)) * scale + 3
    x_np[:, :2] += np.array([means[t] for t in truth]) * scale[:2]
    labels = truth.copy()
    labels[: n // 3] = None
    data = MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array(["g0"]),
        counts_ng=sp.csr_matrix((n, 1), dtype=np.float32),
        pca_np=x_np.astype(np.float32),
        obs=pd.DataFrame({"batch": np.repeat("x", n)}),
        fit_visible=np.ones(n, dtype=bool),
        labels=labels,
    )
    return data, truth


def make_counts(data, truth, g=40, seed=1):
    """Give cells counts of genes, some of which tell their type; the last gene has none."""
    rng = np.random.default_rng(seed)
    rate_kg = rng.gamma(1.0, 1.0, (3, g))
    rate_kg[:, -1] = 0
    depth_n = rng.uniform(0.5, 3, len(truth))
    code_n = np.searchsorted(CLASSES, truth.astype(str))
    data.counts_ng = sp.csr_matrix(rng.poisson(rate_kg[code_n] * depth_n[:, None]), dtype="f4")
    data.genes = np.array([f"g{i}" for i in range(g)])
    return data


def run(data, **params):
    return logreg.run(data, seed=0, threads=1, **(PARAMS | params))


@pytest.mark.parametrize("C", [1.0, 0.05])
def test_probabilities_are_those_of_the_penalised_optimum(C):
    """At the optimum of the multinomial loss, w_k = C sum_i (y_ik - p_ik) z_i."""
    data, _ = make_input()
    out = run(data, C=C)
    fitted = np.array([label is not None for label in data.labels])
    x_np = data.pca_np.astype(float)
    z_np = (x_np - x_np[fitted].mean(0)) / x_np[fitted].std(0)
    p_nk = out.probabilities.to_numpy()
    y_nk = data.labels[:, None] == np.array(CLASSES)[None, :]
    rest_nk = (y_nk - p_nk)[fitted]
    np.testing.assert_allclose(rest_nk.sum(0), 0, atol=0.05)  # intercepts have no penalty
    w_pk = C * z_np[fitted].T @ rest_nk
    logit_nk = np.log(p_nk) - z_np @ w_pk
    contrast = logit_nk[:, 1:] - logit_nk[:, :1]  # the intercepts, the same for every cell
    np.testing.assert_allclose(
        contrast, np.broadcast_to(contrast.mean(0), contrast.shape), atol=0.2
    )
    assert np.abs(w_pk).max() > 0.2


@pytest.mark.parametrize("C", [1.0, 0.05])
def test_genes_are_scaled_log_counts_that_are_not_centred(C):
    data, truth = make_input()
    out = run(make_counts(data, truth), space="hvg", C=C)
    counts_ng = data.counts_ng.toarray().astype(float)
    x_ng = np.log1p(1e4 * counts_ng / counts_ng.sum(1, keepdims=True))[:, :-1]
    z_ng = x_ng / x_ng[80:].std(0)
    direct = LogisticRegression(C=C, max_iter=1000).fit(z_ng[80:], truth[80:].astype(str))
    np.testing.assert_allclose(out.probabilities, direct.predict_proba(z_ng), atol=1e-4)
    centred = LogisticRegression(C=C, max_iter=1000, tol=1e-8)
    centred.fit(z_ng[80:] - z_ng[80:].mean(0), truth[80:].astype(str))
    p_nk = centred.predict_proba(z_ng - z_ng[80:].mean(0))  # the same optimum: free intercepts
    np.testing.assert_allclose(out.probabilities, p_nk, atol=0.03)


def test_output_and_notes():
    data, truth = make_input()
    out = run(data)
    assert list(out.probabilities.columns) == list(CLASSES)
    np.testing.assert_array_equal(out.probabilities.index, data.cell_ids)
    np.testing.assert_allclose(out.probabilities.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(out.labels, out.probabilities.idxmax(axis=1))
    assert (out.labels[:80] == truth[:80]).mean() > 0.85
    assert out.parameters_trained == 3 * (30 + 1)
    assert out.notes["n_fitted"] == 160 and out.notes["converged"] is True
    np.testing.assert_array_equal(run(data).probabilities, out.probabilities)
    assert run(data, n_components=4).parameters_trained == 3 * 5


def test_an_early_stop_is_noted():
    found = run(make_input()[0], max_iter=2).notes
    assert (found["iterations"], found["converged"]) == (2, False)


def test_cells_without_a_label_or_hidden_from_fitting_change_nothing():
    data, _ = make_input()
    data.fit_visible[80:100] = False
    before = run(data)
    assert before.notes["n_fitted"] == 140
    data.pca_np[:100] *= -7
    after = run(data)
    np.testing.assert_array_equal(after.probabilities[100:], before.probabilities[100:])
    assert (after.labels[:100] != before.labels[:100]).any()


def test_balanced_weights_raise_a_rare_class():
    data, truth = make_input()
    rare = np.flatnonzero((truth == "c") & (data.labels != None))  # noqa: E711
    data.labels[rare[5:]] = None
    plain, balanced = run(data), run(data, class_weight="balanced")
    assert balanced.probabilities["c"].mean() > plain.probabilities["c"].mean()


def test_no_labels_breaks_the_contract():
    data, _ = make_input()
    data.labels = None
    with pytest.raises(ContractError, match="found None; logreg needs"):
        run(data)


def test_one_class_is_named():
    data, _ = make_input()
    data.fit_visible[:] = data.labels == "b"
    n = int(data.fit_visible.sum())
    with pytest.raises(DataError, match=rf"1 classes \(b\) on {n} cells .* at least 2"):
        run(data)
    data.fit_visible[:] = False
    with pytest.raises(DataError, match=r"0 classes \(\(none\)\) on 0 cells"):
        run(data)


def test_too_few_components():
    with pytest.raises(DataError, match="found 30, but the split's PCA has 8"):
        run(make_input(p=8)[0])


def test_genes_are_read_without_components():
    data, truth = make_input(p=2)
    out = run(make_counts(data, truth), space="hvg")
    assert out.parameters_trained == 3 * (40 + 1)
    assert (out.labels[:80] == truth[:80]).mean() > 0.9
    data.counts_ng = sp.csr_matrix(data.counts_ng * 3)  # depth does not matter
    again = run(data, space="hvg")
    np.testing.assert_allclose(again.probabilities, out.probabilities, atol=1e-6)


def test_genes_of_cells_without_a_label_change_nothing_and_empty_cells_are_labelled():
    data, truth = make_input()
    before = run(make_counts(data, truth), space="hvg")
    changed = data.counts_ng.tolil()
    changed[:79] = changed[80:159].toarray()[:, ::-1]
    changed[79] = 0
    data.counts_ng = changed.tocsr()
    after = run(data, space="hvg")
    np.testing.assert_array_equal(after.probabilities[80:], before.probabilities[80:])
    assert (after.labels[:79] != before.labels[:79]).any()
    np.testing.assert_allclose(after.probabilities.iloc[79].sum(), 1, atol=1e-12)


def test_a_space_that_is_not_there():
    with pytest.raises(ConfigError, match="space: found 'umap'; valid: pca, hvg"):
        run(make_input()[0], space="umap")
