"""The cells inside scanpy: recovered counts and planted effects of known size."""

import json

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from morebench.data import bundled
from morebench.errors import ConfigError, DataError

NEUTRAL = {
    "n_batches": 3,
    "gene_effect": 0.0,
    "depth": (1.0, 1.0, 1.0),
    "ambient": 0.0,
    "imbalance": 0.0,
    "doublet_rate": 0.0,
    "doublet_heterotypic": 0.8,
    "seed": 0,
}


def make(**changed):
    return bundled.pbmc68k_batches(**{**NEUTRAL, **changed})


def dense(data):
    return pd.DataFrame(
        data["rna"].X.toarray(), index=data.obs_names, columns=data["rna"].var_names
    )


@pytest.fixture(scope="module")
def original():
    return bundled.pbmc68k()


def test_counts_are_the_closed_form_of_every_row(original):
    import scanpy as sc

    source = sc.datasets.pbmc68k_reduced()
    scaled = np.expm1(source.raw.X.toarray().astype(float))
    ratio = scaled / np.where(scaled > 0, scaled, np.inf).min(axis=1, keepdims=True)
    found = original["rna"].X
    assert isinstance(found, sp.csr_matrix) and found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), np.rint(ratio))
    assert np.abs(ratio - found.toarray()).max() == pytest.approx(0.1122, abs=1e-3)
    np.testing.assert_array_equal(original.obs_names, source.obs_names)
    np.testing.assert_array_equal(original["rna"].var_names, source.raw.var_names)
    np.testing.assert_array_equal(
        original.obs["cell_type"].astype(str), source.obs["bulk_labels"].astype(str)
    )


def test_obs_of_pbmc68k(original):
    assert original.shape == (700, 765)
    assert list(original.obs) == ["batch", "cell_type", "cell_type_coarse", "phase"]
    assert set(original.obs["batch"]) == {"pbmc68k"}
    assert original["rna"].obs.shape[1] == 0
    found = original.obs["cell_type_coarse"].value_counts().to_dict()
    assert found == {
        "Myeloid cell": 369,
        "T cell": 192,
        "B cell": 95,
        "NK cell": 31,
        "Progenitor": 13,
    }
    levels = original.obs.groupby("cell_type", observed=True)["cell_type_coarse"].nunique()
    assert (levels == 1).all()


def test_recover_counts_of_known_counts():
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, size=(50, 60))
    counts[:, 0] = 1
    scaled = np.log1p(counts * (1e4 / counts.sum(axis=1, keepdims=True)))
    found, deviation = bundled.recover_counts(sp.csr_matrix(scaled))
    np.testing.assert_array_equal(found.toarray(), counts)
    assert deviation.shape == (50,) and deviation.max() < 1e-9


def test_recover_counts_refuses_what_has_no_unit():
    values = sp.csr_matrix(np.log1p([[1.0, 2.0, 3.0], [2.0, 3.0, 0.0]]))
    with pytest.raises(DataError, match="deviation 0.500"):
        bundled.recover_counts(values)
    with pytest.raises(DataError, match="cell 1 has no counts"):
        bundled.recover_counts(sp.csr_matrix(np.array([[1.0, 2.0], [0.0, 0.0]])))


def test_neutral_strengths_leave_the_cells_as_they_are(original):
    data = make()
    assert data.n_obs == 700 and not data.obs["is_doublet"].any()
    pd.testing.assert_frame_equal(dense(data).loc[original.obs_names], dense(original))
    assert list(data.obs_names) != list(original.obs_names)  # shuffled
    sizes = pd.crosstab(data.obs["cell_type"], data.obs["batch"])
    assert (sizes.max(axis=1) - sizes.min(axis=1)).max() <= 1


def test_doublets_of_neutral_effects_are_sums_of_their_parents(original):
    data = make(doublet_rate=0.06)
    counts, obs = dense(data), data.obs
    sizes = obs[~obs["is_doublet"]]["batch"].value_counts()
    doublets = obs[obs["is_doublet"]]
    expected = np.rint(0.06 * sizes)
    assert doublets["batch"].value_counts().to_dict() == expected.to_dict()
    assert doublets[["cell_type", "cell_type_coarse", "phase"]].isna().all(axis=None)
    assert obs.loc[~obs["is_doublet"], "cell_type"].notna().all()
    assert obs.loc[~obs["is_doublet"], "doublet_kind"].isna().all()
    for name, kind in doublets["doublet_kind"].items():
        first, second = name.split("+")
        np.testing.assert_array_equal(counts.loc[name], counts.loc[first] + counts.loc[second])
        assert obs.loc[first, "batch"] == obs.loc[second, "batch"] == obs.loc[name, "batch"]
        differ = (
            original.obs.loc[first, "cell_type_coarse"]
            != (original.obs.loc[second, "cell_type_coarse"])
        )
        assert kind == ("heterotypic" if differ else "homotypic")
    number = data.uns["planted"]["doublets_by_batch"]
    mixed = (doublets["doublet_kind"] == "heterotypic").sum()
    assert mixed == sum(int(np.rint(0.8 * d)) for d in number)


def test_no_position_tells_a_doublet():
    is_doublet = make(doublet_rate=0.2).obs["is_doublet"].to_numpy()
    place = np.flatnonzero(is_doublet) / len(is_doublet)
    assert 0.4 < place.mean() < 0.6


def test_gene_effect_is_found_in_the_ratio_of_means(original):
    data = make(gene_effect=0.4)
    counts, batch = dense(data), data.obs["batch"].astype(str)
    before = dense(original).loc[data.obs_names]
    factors = data["rna"].uns["gene_factors"]
    assert factors.shape == (765, 3)
    assert np.log(factors).std() == pytest.approx(0.4, rel=0.05)
    made, had = counts.groupby(batch).sum(), before.groupby(batch).sum()
    for b, name in enumerate(data.uns["planted"]["batches"]):
        n, f = had.loc[name].to_numpy(), factors[:, b]
        # A molecule leaves floor(f) copies or one more, so the sum is a shifted binomial.
        sd = np.sqrt(n * (f % 1) * (1 - f % 1))
        assert np.all(np.abs(made.loc[name].to_numpy() - n * f) <= 5 * sd + 1)
    usual = (had >= 50).all(axis=0).to_numpy()
    assert usual.sum() > 400
    mean = counts.loc[:, usual].groupby(batch).mean()
    # Without the originals: composition is balanced, so means of batches compare.
    found = np.log(mean.loc["batch2"] / mean.loc["batch1"])
    truth = np.log(factors[:, 1] / factors[:, 0])[usual]
    assert np.corrcoef(found, truth)[0, 1] > 0.9


def test_depth_and_ambient_have_their_size(original):
    totals = dense(original).sum(axis=1)
    data = make(depth=(1.0, 0.7, 0.5))
    kept = dense(data).sum(axis=1)
    share = kept.groupby(data.obs["batch"], observed=True).sum() / (
        totals[kept.index].groupby(data.obs["batch"], observed=True).sum()
    )
    np.testing.assert_allclose(share, [1.0, 0.7, 0.5], atol=0.005)

    data = make(ambient=0.2)
    after, before = dense(data), dense(original).loc[data.obs_names]
    np.testing.assert_array_equal(after.sum(axis=1), before.sum(axis=1))
    # A marker of B cells leaks into the others at the strength times its share of the soup.
    other = (data.obs["cell_type_coarse"] == "Myeloid cell").to_numpy()
    expected = 0.8 * before.loc[other, "CD79A"].sum() + 0.2 * sum(
        before.loc[m, "CD79A"].sum()
        / before.loc[m].to_numpy().sum()
        * before.loc[m & other].to_numpy().sum()
        for m in ((data.obs["batch"] == b).to_numpy() for b in data.uns["planted"]["batches"])
    )
    assert after.loc[other, "CD79A"].sum() == pytest.approx(
        expected, abs=float(5 * np.sqrt(expected))
    )
    assert after.loc[other, "CD79A"].sum() > 1.5 * before.loc[other, "CD79A"].sum()


def test_imbalance_grows_and_every_cell_is_kept(original):
    found = []
    for strength in (0.0, 1.0, 3.0):
        data = make(imbalance=strength)
        table = pd.crosstab(data.obs["cell_type"], data.obs["batch"])
        assert sorted(data.obs_names) == sorted(original.obs_names)
        assert ((table > 0).sum() >= 2).all()
        found.append((table.max(axis=1) / table.sum(axis=1)).mean())
        record = data.uns["planted"]
        np.testing.assert_array_equal(
            record["singlets_by_type_and_batch"], table.loc[record["cell_types"]]
        )
    assert found[0] + 0.1 < found[1] < found[2] - 0.1


def test_seed_decides_all():
    full = {
        "gene_effect": 0.4,
        "depth": (1.0, 0.7, 0.5),
        "ambient": 0.05,
        "imbalance": 1.0,
        "doublet_rate": 0.06,
    }
    one, again, other = make(**full), make(**full), make(**full, seed=1)
    pd.testing.assert_frame_equal(dense(one), dense(again))
    pd.testing.assert_frame_equal(one.obs, again.obs)
    assert not dense(one).equals(dense(other))
    # Steps draw from streams of their own: another depth leaves batches and doublets alone.
    deeper = make(**{**full, "depth": (1.0, 1.0, 1.0)})
    pd.testing.assert_frame_equal(one.obs, deeper.obs)
    np.testing.assert_array_equal(one["rna"].uns["gene_factors"], deeper["rna"].uns["gene_factors"])
    values = one["rna"].X.data
    assert one["rna"].X.dtype == np.float32 and np.all(values == np.rint(values))
    assert values.min() >= 1


def test_record_survives_json_and_h5mu(tmp_path):
    data = make(doublet_rate=0.06, imbalance=1.0)
    assert json.loads(json.dumps(data.uns["planted"])) == data.uns["planted"]
    with mudata.set_options(pull_on_update=False):
        data.write(tmp_path / "x.h5mu")
        back = mudata.read_h5mu(tmp_path / "x.h5mu")
    assert list(back.obs) == list(data.obs)
    np.testing.assert_array_equal(back["rna"].X.toarray(), data["rna"].X.toarray())
    assert list(back.uns["planted"]["strengths"]["depth"]) == [1.0, 1.0, 1.0]


def test_bad_parameters_are_named():
    with pytest.raises(ConfigError, match="n_batches"):
        make(n_batches=1)
    with pytest.raises(ConfigError, match="depth.*3 fractions"):
        make(depth=(1.0, 0.5))
    with pytest.raises(ConfigError, match="doublet_rate"):
        make(doublet_rate=2.0)
