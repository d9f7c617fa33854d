"""Doublet neighbours: simulated pairs, the score in closed form, PCA and MoRE, small batches."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from morebench.contract import MethodInput
from morebench.errors import ConfigError, DataError, Unsupported
from morebench.methods import neighbor_doublets as nd
from morebench.methods import random
from morebench.methods.simulated_doublets import (
    add_pairs,
    default_neighbors,
    draw_pairs,
    neighbor_share,
)
from morebench.models.more.settings import Settings
from morebench.models.more.tokens import log_normalise
from morebench.registry import METHODS

KNN = dict(METHODS["knn_doublets"].params)
MORE = {**METHODS["more_doublets"].params, "steps": 60, "min_epochs": 1, "n_latent": 8}


def simulate(n, n_doublets=0, seed=0, n_types=4, g=120):
    """Return (n, g) counts of distinct types, and which cells are two cells in one."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(99).lognormal(0, 1.5, size=(n_types, g))
    first, second = rng.integers(0, n_types, n), rng.integers(0, n_types, n)
    doublet = np.arange(n) < n_doublets
    second[doublet] = (first[doublet] + 1) % n_types
    mean = profile[first] + np.where(doublet[:, None], profile[second], 0)
    return rng.poisson(mean).astype(np.float32), doublet


def make_input(counts, batch):
    n, g = counts.shape
    return MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array([f"g{i}" for i in range(g)]),
        counts_ng=sp.csr_matrix(counts),
        pca_np=np.zeros((n, 2), np.float32),
        obs=pd.DataFrame({"batch": np.broadcast_to(batch, n)}),
        fit_visible=np.ones(n, dtype=bool),
    )


def knn(data, seed=0, **params):
    return nd.run(data, seed=seed, threads=1, **(KNN | params))


# --- pairs and the score -------------------------------------------------------------------


def test_pairs_are_of_two_different_cells_each_as_likely():
    pairs = draw_pairs(5, 40_000, np.random.default_rng(0))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    table = np.bincount(pairs[:, 0] * 5 + pairs[:, 1], minlength=25).reshape(5, 5)
    assert np.diag(table).sum() == 0
    expected = 40_000 / 20  # 20 ordered pairs; five standard errors
    assert np.abs(table[~np.eye(5, dtype=bool)] - expected).max() < 5 * np.sqrt(expected)
    with pytest.raises(ValueError, match="found 1; valid: 2 or more"):
        draw_pairs(1, 3, np.random.default_rng(0))


def test_a_simulated_doublet_is_the_sum_of_its_cells():
    counts, _ = simulate(30)
    pairs = draw_pairs(30, 12, np.random.default_rng(1))
    found = add_pairs(sp.csr_matrix(counts), pairs)
    np.testing.assert_array_equal(found.toarray(), counts[pairs[:, 0]] + counts[pairs[:, 1]])


def test_the_score_is_that_of_all_distances_sorted():
    rng = np.random.default_rng(3)
    z_nd, z_sd, k = rng.normal(size=(70, 4)), rng.normal(0.5, 1, size=(105, 4)), 12
    distance = cdist(z_nd, np.concatenate([z_nd, z_sd]))
    distance[np.arange(70), np.arange(70)] = np.inf
    share = (np.argsort(distance, axis=1)[:, :k] >= 70).mean(axis=1)
    ratio = 105 / 70
    np.testing.assert_allclose(
        neighbor_share(z_nd, z_sd, k), share / (share + ratio * (1 - share)), rtol=1e-12
    )


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_cells_mixed_by_chance_score_a_half_whatever_the_ratio(ratio):
    rng = np.random.default_rng(4)
    z_nd, z_sd = rng.normal(size=(600, 2)), rng.normal(size=(int(600 * ratio), 2))
    k = default_neighbors(600, len(z_sd))
    assert neighbor_share(z_nd, z_sd, 2 * k).mean() == pytest.approx(0.5, abs=0.03)


def test_a_cell_is_not_its_own_neighbour_even_among_equals():
    z = np.zeros((4, 2))
    far = np.full((4, 2), 9.0)
    # all four observed cells stand on one point: their three neighbours are each other
    np.testing.assert_array_equal(neighbor_share(z, far, 3), 0)
    # with five neighbours, two of them are simulated
    share = 2 / 5
    np.testing.assert_allclose(neighbor_share(z, far, 5), share / (share + 1 - share))
    np.testing.assert_array_equal(neighbor_share(z, far, 99), neighbor_share(z, far, 7))


def test_the_number_of_neighbours_is_twice_scrublets():
    assert default_neighbors(400, 800) == 60  # round(sqrt(400)) x (1 + 2)
    assert default_neighbors(2000, 2000) == 90
    assert default_neighbors(1, 1) >= 1


# --- by PCA --------------------------------------------------------------------------------


def test_each_batch_is_scored_by_its_own_cells_alone():
    counts, doublet = simulate(460, n_doublets=50)
    batch = np.where(np.arange(460) % 2, "a", "b")
    out = knn(make_input(counts, batch), seed=5)
    assert roc_auc_score(doublet, out.doublet_score) > 0.9
    assert out.doublet_score.min() >= 0 and out.doublet_score.max() <= 1
    other = counts.copy()
    other[batch == "b"] = other[batch == "b"][::-1] * 2
    again = knn(make_input(other, batch), seed=5)
    np.testing.assert_array_equal(
        again.doublet_score[batch == "a"], out.doublet_score[batch == "a"]
    )
    assert (again.doublet_score[batch == "b"] != out.doublet_score[batch == "b"]).any()
    assert out.notes["batches"]["a"] == {
        "n_cells": 230, "scored_with": "batch", "n_simulated": 460, "n_neighbors": 45,
    }  # fmt: skip


def test_the_score_is_that_of_sklearn_step_by_step():
    counts, _ = simulate(90)
    pairs = draw_pairs(90, 180, np.random.default_rng([7, 0]))
    every = np.concatenate([counts, counts[pairs[:, 0]] + counts[pairs[:, 1]]]).astype(float)
    logs = np.log1p(every / every.sum(1, keepdims=True) * 1e4)
    z = PCA(10, svd_solver="full").fit(logs[:90]).transform(logs)
    expected = neighbor_share(z[:90], z[90:], 20)
    found = knn(make_input(counts, "a"), seed=7, sim_ratio=2.0, n_neighbors=20, n_components=10)
    np.testing.assert_allclose(found.doublet_score, expected, rtol=1e-9)


def test_the_seed_decides_the_pairs():
    data = make_input(simulate(120)[0], "a")
    one, same, other = (knn(data, seed=s).doublet_score for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("run", [knn, None], ids=["knn", "more"])
def test_small_batches_take_their_scores_from_the_whole_dataset(run):
    counts, _ = simulate(112, n_doublets=12)
    batch = np.repeat(["big", "tiny", "one"], [100, 11, 1])
    data = make_input(counts, batch)
    if run is None:
        out = nd.run_more(data, seed=3, threads=1, **MORE)
    else:
        out = run(data, seed=3)
        # the run over all cells, as of one batch but with the fallback's own pairs
        pairs = draw_pairs(112, 224, np.random.default_rng([3, 112]))
        logs = log_normalise(data.counts_ng)
        model = PCA(30, svd_solver="arpack", random_state=3).fit(logs)
        z_sd = model.transform(log_normalise(add_pairs(data.counts_ng, pairs)))
        whole = neighbor_share(model.transform(logs), z_sd, default_neighbors(112, 224))
        np.testing.assert_allclose(out.doublet_score[100:], whole[100:])
    notes = out.notes["batches"]
    assert notes["big"]["scored_with"] == "batch" and notes["big"]["n_simulated"] == 200
    for name, n in (("tiny", 11), ("one", 1)):
        assert notes[name]["scored_with"].startswith("whole dataset, fallback")
        assert (notes[name]["n_cells"], notes[name]["n_simulated"]) == (n, 224)
    assert np.isfinite(out.doublet_score).all()


def test_cells_without_counts_in_the_splits_genes_have_a_score():
    counts, _ = simulate(60)
    counts[[3, 9]] = 0
    assert np.isfinite(knn(make_input(counts, "a")).doublet_score).all()


@pytest.mark.parametrize("call", [nd.run, nd.run_more], ids=["knn", "more"])
def test_what_cannot_be_scored(call):
    params = KNN if call is nd.run else MORE
    data = make_input(simulate(60)[0], "a")
    hidden = replace(data, fit_visible=np.arange(60) != 3)
    with pytest.raises(Unsupported, match="hides 1 of 60 cells"):
        call(hidden, seed=0, threads=1, **params)
    with pytest.raises(DataError, match="19 cells in the whole dataset; valid: 20 or more"):
        call(make_input(simulate(19)[0], "a"), seed=0, threads=1, **params)
    for key, value in (("sim_ratio", 0.0), ("n_neighbors", 0)):
        with pytest.raises(ConfigError, match=f"{key}: found {value}"):
            call(data, seed=0, threads=1, **{**params, key: value})
    with pytest.raises(ConfigError, match="n_components"):
        call(data, seed=0, threads=1, **{**params, "n_components": 0})
    with pytest.raises(DataError, match="genes: found 1; valid: 2 or more"):
        knn(make_input(simulate(60, g=1)[0] + 1, "a"))


# --- by MoRE -------------------------------------------------------------------------------


def test_more_finds_planted_doublets_and_embeds_simulated_ones_with_the_fitted_model():
    from morebench.models.more.cells import one_modality
    from morebench.models.more.model import MoRE

    counts, doublet = simulate(300, n_doublets=40)
    batch = np.where(np.arange(300) % 2, "a", "b")
    data = make_input(counts, batch)
    out = nd.run_more(data, seed=2, threads=1, **MORE)
    assert roc_auc_score(doublet, out.doublet_score) > 0.8
    assert out.parameters_trained > 0 and out.parameters_frozen == 0
    settings = Settings(**{k: v for k, v in MORE.items() if k in asdict(Settings())})
    cells = one_modality(data.counts_ng, data.genes, batch)
    model = MoRE.fit_cells(cells, None, settings, seed=2, device="cpu", threads=1)
    rows = np.flatnonzero(batch == "b")
    pairs = draw_pairs(150, 300, np.random.default_rng([2, 1]))  # b is the second batch
    simulated = one_modality(add_pairs(data.counts_ng[rows], pairs), data.genes, ["b"] * 300)
    expected = neighbor_share(
        model.embed(cells)[rows], model.embed(simulated), default_neighbors(150, 300)
    )
    np.testing.assert_allclose(out.doublet_score[rows], expected, atol=1e-6)


def test_more_takes_every_setting_of_more_and_no_features_of_cells():
    spec = METHODS["more_doublets"]
    assert not spec.features and spec.params["backbone"] == "none"
    rest = {k: v for k, v in spec.params.items() if k not in ("sim_ratio", "n_neighbors")}
    assert rest == {**asdict(Settings()), "backbone": "none"}
    with pytest.raises(ConfigError, match="unknown setting 'stepz'"):
        nd.run_more(make_input(simulate(40)[0], "a"), seed=0, threads=1, **MORE, stepz=1)


# --- the floor -----------------------------------------------------------------------------


def test_random_scores_are_uniform_and_leave_the_embedding_as_it_was():
    data = make_input(np.ones((4000, 2), np.float32), "a")
    out = random.run(data, seed=3, threads=1, n_components=10)
    np.testing.assert_array_equal(
        out.embedding, np.random.default_rng(3).standard_normal((4000, 10), dtype=np.float32)
    )
    score = out.doublet_score
    assert score.shape == (4000,) and 0 <= score.min() and score.max() < 1
    assert abs(score.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 4000)
    other = random.run(data, seed=4, threads=1, n_components=10).doublet_score
    assert abs(np.corrcoef(score, other)[0, 1]) < 5 / np.sqrt(4000)
