"""The simulated multiome: sizes as asked, modalities that share states, graded batches."""

import json

import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from morebench.data.simulate import sim_multiome
from morebench.errors import ConfigError

DEFAULT = {
    "n_cells": 900,
    "n_genes": 800,
    "n_peaks": 1200,
    "n_proteins": 30,
    "n_types": 8,
    "n_rare": 2,
    "rare_fraction": 0.02,
    "n_batches": 3,
    "batch_effect": 0.4,
    "missing_fraction": 0.15,
    "seed": 0,
}


def make(**changed):
    return sim_multiome(**{**DEFAULT, **changed})


@pytest.fixture(scope="module")
def data():
    return make()


@pytest.fixture(scope="module")
def plain():
    """No batch effect, every modality for every cell."""
    return make(batch_effect=0.0, missing_fraction=0.0)


def pca(modality):
    from sklearn.decomposition import PCA

    counts = modality.X.toarray()
    total = counts.sum(axis=1, keepdims=True)
    return PCA(20, random_state=0).fit_transform(np.log1p(counts / total * np.median(total)))


def neighbours(points, k):
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[1][:, 1:]


def same_batch_share(data):
    """Mean share of 15 neighbours of the cell's own batch; 1/3 in mixed batches."""
    batch = data.obs["batch"].cat.codes.to_numpy()
    return (batch[neighbours(pca(data["rna"]), 15)] == batch[:, None]).mean()


def type_votes(data, name):
    modality = data[name]
    types = data.obs.loc[modality.obs_names, "cell_type"].cat.codes.to_numpy()
    return types, np.array([np.bincount(v).argmax() for v in types[neighbours(pca(modality), 15)]])


def test_sizes_names_and_counts(data):
    assert [data[m].n_vars for m in ("rna", "atac", "adt")] == [800, 1200, 30]
    assert list(data.obs) == ["batch", "donor", "cell_type", "cell_type_coarse"]
    assert data["rna"].n_obs == data.n_obs == 900
    assert list(data.obs_names[:2]) == ["cell001", "cell002"]
    for name in data.mod:
        counts = data[name].X
        assert isinstance(counts, sp.csr_matrix) and counts.dtype == np.float32
        assert np.all(counts.data == np.rint(counts.data)) and counts.data.min() >= 1
        assert data[name].obs.shape[1] == 0 and data[name].var_names.is_unique
    sizes = data.obs["cell_type"].value_counts()
    assert data.uns["planted"]["rare_types"] == ["type07", "type08"]
    assert sizes["type07"] == sizes["type08"] == 18  # rint(.02 * 900)
    assert sizes.drop(["type07", "type08"]).min() > 40


def test_hierarchies(data):
    obs = data.obs
    assert (obs.groupby("donor", observed=True)["batch"].nunique() == 1).all()
    assert (obs.groupby("batch", observed=True)["donor"].nunique() == 2).all()
    assert (obs.groupby("cell_type", observed=True)["cell_type_coarse"].nunique() == 1).all()
    types = pd.crosstab(obs["cell_type_coarse"], obs["cell_type"]) > 0
    rare = data.uns["planted"]["rare_types"]
    assert len(types) == 3 and (types.drop(columns=rare).sum(axis=1) == 2).all()
    spread = pd.crosstab(obs["cell_type"], obs["donor"])
    assert (spread.max(axis=1) - spread.min(axis=1)).max() <= 1


def test_missing_modalities(data, plain):
    without = {m: set(data.obs_names) - set(data[m].obs_names) for m in ("atac", "adt")}
    assert not without["atac"] & without["adt"]
    assert len(without["atac"]) + len(without["adt"]) == 135  # rint(.15 * 900)
    assert 45 <= len(without["atac"]) <= 90  # a fair coin: 67.5, sd 5.8
    assert all(plain[m].n_obs == 900 for m in plain.mod)


def test_peaks_and_proteins_follow_their_genes(plain):
    atac, adt, genes = plain["atac"], plain["adt"], plain["rna"].var_names
    assert set(atac.var["nearest_gene"]) == set(genes)
    assert list(adt.var_names) == [f"prot_{g}" for g in adt.var["gene"]]
    place = atac.var_names.to_series().str.extract(r"^(chr\d+)_(\d+)_(\d+)$")
    assert place.notna().all(axis=None)
    assert (place[2].astype(int) - place[1].astype(int) == 500).all()

    def type_means(name):
        counts = pd.DataFrame(plain[name].X.toarray(), columns=plain[name].var_names)
        share = counts.div(plain[name].X.sum(axis=1), axis=0)
        return share.groupby(plain.obs["cell_type"].astype(str).to_numpy()).mean().iloc[:6]

    def linked(name, genes, features):
        other, rna = type_means(name)[features], type_means("rna")
        pairs = zip(features, genes[features], strict=True)
        return np.median([np.corrcoef(other[f], rna[g])[0, 1] for f, g in pairs])

    assert linked("adt", adt.var["gene"], adt.var_names) > 0.75
    totals = np.asarray(atac.X.sum(axis=0)).ravel()
    often = atac.var_names[np.argsort(-totals)[:200]]
    assert linked("atac", atac.var["nearest_gene"], often) > 0.4
    wrong = atac.var["nearest_gene"].set_axis(np.roll(atac.var_names, 7))
    assert abs(linked("atac", wrong, often)) < 0.2


def test_many_peaks_of_a_gene_keep_unique_names():
    some = make(n_genes=20, n_peaks=900, n_proteins=20, missing_fraction=0.0)["atac"]
    assert some.var_names.is_unique and some.n_vars == 900


@pytest.mark.parametrize("name", ["rna", "atac", "adt"])
def test_batch_factors_are_found_in_the_data(name):
    data = make(missing_fraction=0.0)
    counts = data[name].X.toarray()
    factors = data[name].uns["batch_factors"]
    assert factors.shape == (data[name].n_vars, 3)
    assert np.log(factors).std() == pytest.approx(0.4, rel=0.25 if name == "adt" else 0.06)
    batch = data.obs["batch"].cat.codes.to_numpy()
    mean = np.stack([counts[batch == b].mean(axis=0) for b in range(3)])
    usual = counts.sum(axis=0) >= 450
    assert usual.sum() >= 30
    found = np.log(mean[1, usual] / mean[0, usual])
    truth = np.log(factors[:, 1] / factors[:, 0])[usual]
    assert np.corrcoef(found, truth)[0, 1] > 0.9


def test_batches_separate_with_the_strength(plain, data):
    shares = [same_batch_share(make(batch_effect=s)) for s in (0.1, 0.2)]
    shares = [same_batch_share(plain), *shares, same_batch_share(data)]
    assert abs(shares[0] - 1 / 3) < 0.03
    assert np.all(np.diff(shares) > 0.03)
    assert shares[-1] > 0.9


@pytest.mark.parametrize("name", ["rna", "atac", "adt"])
def test_types_are_found_but_not_for_free(name, data):
    types, votes = type_votes(data, name)
    main = types < 6
    assert 0.88 < (votes == types)[main].mean() < 0.995
    rare = (votes == types)[~main].mean()
    assert rare < (votes == types)[main].mean()


def test_states_vary_within_a_type(plain):
    """The first component of one type's cells holds more than that of noise alone."""
    from sklearn.decomposition import PCA

    cells = (plain.obs["cell_type"] == "type01").to_numpy()
    counts = plain["rna"].X.toarray()[cells]
    logged = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 700)
    rng = np.random.default_rng(0)
    shuffled = np.column_stack([rng.permutation(x) for x in logged.T])
    first, noise = (PCA(1).fit(x).explained_variance_[0] for x in (logged, shuffled))
    assert first > 1.5 * noise


def test_seed_decides_all(data):
    again, other = make(), make(seed=1)
    pd.testing.assert_frame_equal(data.obs, again.obs)
    for name in data.mod:
        assert list(data[name].obs_names) == list(again[name].obs_names)
        assert (data[name].X != again[name].X).nnz == 0
    assert (data["rna"].X != other["rna"].X).nnz > 0


def test_record_survives_json_and_h5mu(data, tmp_path):
    assert json.loads(json.dumps(data.uns["planted"])) == data.uns["planted"]
    assert data.uns["planted"]["strengths"] == DEFAULT
    with mudata.set_options(pull_on_update=False):
        data.write(tmp_path / "x.h5mu")
        back = mudata.read_h5mu(tmp_path / "x.h5mu")
    pd.testing.assert_frame_equal(back.obs, data.obs, check_names=False)
    assert back["atac"].n_obs == data["atac"].n_obs
    assert list(back["atac"].var["nearest_gene"]) == list(data["atac"].var["nearest_gene"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_cells", 20),
        ("n_peaks", 0),
        ("n_types", 1),
        ("n_rare", 8),
        ("rare_fraction", 0.3),
        ("n_proteins", 801),
        ("n_batches", 0),
        ("batch_effect", -0.1),
        ("missing_fraction", 1.0),
    ],
)
def test_bad_parameters_are_named(key, value):
    with pytest.raises(ConfigError, match=f"^{key}: found {value}"):
        make(**{key: value})
