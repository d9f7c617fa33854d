"""The random forest, against scikit-learn called directly and against its own trees."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.ensemble import RandomForestClassifier

from morebench.contract import MethodInput
from morebench.errors import ConfigError, ContractError, DataError
from morebench.methods import forest
from morebench.registry import METHODS

PARAMS = dict(METHODS["forest"].params)
CLASSES = np.array(["a", "b", "c"])


def make_input(n=240, p=30, g=25, seed=0):
    """Return cells of three types, told apart by two components and by genes; a third hidden."""
    rng = np.random.default_rng(seed)
    code_n = rng.integers(0, 3, n)
    truth = CLASSES[code_n].astype(object)
    x_np = rng.normal(size=(n, p)) * np.linspace(3, 0.2, p)
    x_np[:, :2] += np.array([[6, 0], [-3, 5], [-3, -5]])[code_n]
    rate_kg = rng.gamma(1.0, 2.0, (3, g))
    labels = truth.copy()
    labels[: n // 3] = None
    data = MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array([f"g{i}" for i in range(g)]),
        counts_ng=sp.csr_matrix(rng.poisson(rate_kg[code_n]), dtype=np.float32),
        pca_np=x_np.astype(np.float32),
        obs=pd.DataFrame({"batch": np.repeat("x", n)}),
        fit_visible=np.ones(n, dtype=bool),
        labels=labels,
    )
    return data, truth


def run(data, seed=0, threads=1, **params):
    return forest.run(data, seed=seed, threads=threads, **(PARAMS | {"n_estimators": 15} | params))


def log_dense(data):
    counts_ng = data.counts_ng.toarray().astype(float)
    return np.log1p(1e4 * counts_ng / counts_ng.sum(1, keepdims=True))


def test_the_registered_parameters_are_the_documented_defaults():
    default = RandomForestClassifier().get_params()
    assert {k: v for k, v in PARAMS.items() if k not in ("space", "n_components")} == {
        k: default[k] for k in ("n_estimators", "max_depth", "max_features", "class_weight")
    }


@pytest.mark.parametrize("space", ["pca", "hvg"])
@pytest.mark.parametrize(
    "params", [{}, {"max_depth": 2, "max_features": 0.5, "class_weight": "balanced"}]
)
def test_probabilities_are_those_of_scikit_learn(space, params):
    data, truth = make_input()
    out = run(data, seed=3, space=space, n_components=12, **params)
    x_nd = data.pca_np[:, :12] if space == "pca" else log_dense(data)
    direct = RandomForestClassifier(15, random_state=3, **params)
    direct.fit(x_nd[80:], truth[80:].astype(str))
    np.testing.assert_allclose(out.probabilities, direct.predict_proba(x_nd), atol=1e-12)
    np.testing.assert_array_equal(out.labels, direct.predict(x_nd))
    np.testing.assert_array_equal(out.probabilities.index, data.cell_ids)
    assert list(out.probabilities.columns) == list(CLASSES)
    assert (out.labels[:80] == truth[:80]).mean() > 0.85
    assert out.notes == {"n_fitted": 160, "depth": max(t.get_depth() for t in direct.estimators_)}


def test_parameters_are_counted_tree_by_tree():
    data, _ = make_input()
    out = run(data, n_estimators=4, max_depth=1)
    assert out.parameters_trained == 4 * (1 + 2 * 3)  # a threshold, two leaves of three shares


def test_seed_decides_and_threads_do_not():
    data, _ = make_input()
    first = run(data, seed=1)
    for other in (run(data, seed=1), run(data, seed=1, threads=2)):
        np.testing.assert_array_equal(other.probabilities, first.probabilities)
        np.testing.assert_array_equal(other.labels, first.labels)
    assert (run(data, seed=2).probabilities != first.probabilities).any(axis=None)


def test_the_scale_of_a_component_does_not_matter():
    data, _ = make_input()
    before = run(data)
    data.pca_np = data.pca_np * np.float32(4)  # a power of two: exact
    np.testing.assert_array_equal(run(data).probabilities, before.probabilities)


@pytest.mark.parametrize("space", ["pca", "hvg"])
def test_cells_without_a_label_or_hidden_from_fitting_change_nothing(space):
    data, _ = make_input()
    data.fit_visible[80:100] = False
    before = run(data, space=space)
    assert before.notes["n_fitted"] == 140
    data.pca_np[:100] = data.pca_np[100:200]
    counts = data.counts_ng.tolil()
    counts[:99] = counts[100:199]
    counts[99] = 0  # an empty cell is labelled too
    data.counts_ng = counts.tocsr()
    after = run(data, space=space)
    np.testing.assert_array_equal(after.probabilities[100:], before.probabilities[100:])
    assert (after.labels[:99] == before.labels[100:199]).all()
    assert (after.labels[:99] != before.labels[:99]).any()
    np.testing.assert_allclose(after.probabilities.sum(axis=1), 1, atol=1e-12)


def test_no_labels_breaks_the_contract():
    data, _ = make_input()
    data.labels = None
    with pytest.raises(ContractError, match="found None; forest needs"):
        run(data)


def test_one_class_is_named():
    data, _ = make_input()
    data.fit_visible[:] = data.labels == "b"
    n = int(data.fit_visible.sum())
    with pytest.raises(DataError, match=rf"1 classes \(b\) on {n} cells .* forest needs at least"):
        run(data)
    data.labels[:] = None
    with pytest.raises(DataError, match=r"0 classes \(\(none\)\) on 0 cells"):
        run(data)


def test_parameters_that_make_no_sense():
    data, _ = make_input(p=8)
    with pytest.raises(DataError, match="found 30, but the split's PCA has 8"):
        run(data)
    assert run(data, space="hvg").notes["n_fitted"] == 160
    with pytest.raises(ConfigError, match="space: found 'genes'; valid: pca, hvg"):
        run(data, space="genes")
    with pytest.raises(ValueError, match="'n_estimators' .* Got 0 instead"):
        run(data, space="hvg", n_estimators=0)
