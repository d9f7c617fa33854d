"""The Harmony adapter under the main environment's harmonypy 2."""

import harmonypy
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from morebench.contract import MethodInput
from morebench.errors import ContractError, DataError, Unavailable, Unsupported
from morebench.methods import harmony

DEFAULTS = {"theta": None, "lamb": None, "sigma": 0.1, "nclust": None, "max_iter_harmony": 10}


def make_input(n, p, n_batches=2, seed=0):
    rng = np.random.default_rng(seed)
    batch = np.array([f"b{i % n_batches}" for i in range(n)])
    pca = rng.normal(size=(n, p)) + 3 * rng.integers(0, 3, (n, 1)) + (batch == "b0")[:, None]
    return MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array(["g0"]),
        counts_ng=sp.csr_matrix((n, 1), dtype=np.float32),
        pca_np=pca.astype(np.float32),
        obs=pd.DataFrame({"batch": batch}),
        fit_visible=np.ones(n, dtype=bool),
    )


def run(data, n_components, seed=0, threads=1, **params):
    return harmony.run(
        data, seed=seed, threads=threads, n_components=n_components, **(DEFAULTS | params)
    )


@pytest.mark.parametrize(("n", "p"), [(240, 6), (60, 60)])
def test_equals_the_package_at_its_defaults(n, p):
    data = make_input(n, p)
    direct = harmonypy.run_harmony(
        data.pca_np.T.astype(float),
        pd.DataFrame({"batch": data.batch}),
        "batch",
        random_state=5,
        verbose=False,
    ).Z_corr
    assert direct.shape == (n, p)
    out = run(data, p, seed=5)
    np.testing.assert_allclose(out.embedding, direct, rtol=1e-5, atol=1e-5)
    assert out.notes == {"harmonypy": "2.1.0"}
    # a transposed square result would be far from what was corrected
    same = np.corrcoef(out.embedding.ravel(), data.pca_np.ravel())[0, 1]
    turned = np.corrcoef(out.embedding.ravel(), data.pca_np[:p].T.ravel())[0, 1] if n == p else 0
    assert same > 0.8 > turned + 0.2


def test_parameters_reach_the_package():
    data = make_input(240, 6)
    given = {"theta": 4.0, "lamb": 1.0, "sigma": 0.2, "nclust": 7, "max_iter_harmony": 3}
    direct = harmonypy.run_harmony(
        data.pca_np[:, :4].T.astype(float),
        pd.DataFrame({"batch": data.batch}),
        "batch",
        random_state=1,
        verbose=False,
        **given,
    ).Z_corr
    np.testing.assert_allclose(run(data, 4, seed=1, **given).embedding, direct, atol=1e-5)
    assert np.abs(run(data, 4, seed=1).embedding - direct).max() > 0.01


def test_seed_and_threads():
    data = make_input(240, 6)
    first = run(data, 6, seed=1).embedding
    np.testing.assert_array_equal(first, run(data, 6, seed=1, threads=2).embedding)
    assert np.abs(first - run(data, 6, seed=2).embedding).max() > 0


def test_fewer_than_fifteen_cells_are_one_cluster():
    out = run(make_input(12, 4), 4)
    assert out.embedding.shape == (12, 4) and np.isfinite(out.embedding).all()
    assert out.notes["nclust"] == "1 instead of the package's default of 0: 12 cells"


@pytest.mark.parametrize("shape", [(30, 5), (6, 6)])
def test_orientation_is_normalised_by_version_and_proved(shape):
    z = np.random.default_rng(0).normal(size=shape)
    fixed = z + 1
    np.testing.assert_array_equal(harmony.cells_by_components(fixed, z, z, "2.1.0"), fixed)
    np.testing.assert_array_equal(harmony.cells_by_components(fixed.T, z.T, z, "0.0.10"), fixed)
    with pytest.raises(ContractError, match="orientation"):
        harmony.cells_by_components(fixed.T, z.T, z, "2.1.0")
    with pytest.raises(ContractError, match="orientation"):
        harmony.cells_by_components(fixed, z, z, "0.0.10")


def test_unseen_cells_are_unsupported():
    data = make_input(60, 4)
    data.fit_visible[:7] = False
    with pytest.raises(Unsupported, match="hides 7 of 60 cells"):
        run(data, 4)


def test_one_batch_is_unsupported():
    with pytest.raises(Unsupported, match="two batches; found b0"):
        run(make_input(60, 4, n_batches=1), 4)


def test_too_few_components():
    with pytest.raises(DataError, match="found 5.* 4 components"):
        run(make_input(60, 4), 5)


def test_version_of_unknown_orientation_is_unavailable(monkeypatch):
    monkeypatch.setattr(harmony, "version", lambda name: "1.4.0")
    with pytest.raises(Unavailable, match="1.4.0; valid is 0.0.x or 2.x"):
        run(make_input(60, 4), 4)
