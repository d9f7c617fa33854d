"""Annotation of MoRE: head, calibration, refinement, novelty, and all of them together."""

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.special import expit, softmax

from morebench.errors import ConfigError, DataError
from morebench.metrics.classification import calibration_errors
from morebench.models.more import annotate as module
from morebench.models.more.annotate import UNKNOWN, Annotator
from morebench.models.more.annotate_settings import AnnotateSettings
from morebench.models.more.calibrate import (
    choose_strength,
    cross_fit,
    fit_temperature,
    folds,
    stratified_sample,
    temper,
)
from morebench.models.more.classifier import HeadInputs, class_weights, fit_head
from morebench.models.more.novelty import LEAST_CELLS, LEAST_SHARE, Profiles
from morebench.models.more.propagate import (
    Markers,
    label_shares,
    majority_vote,
    neighbours,
    over_clusters,
    pooled,
    refine,
)

QUICK = AnnotateSettings(strengths=(1.0,))
WEIGHTS = {"neighbours": 1.0, "markers": 0.3, "clusters": 0.3}


def blobs(seed=0, n=240, k=3, p=6, apart=3.0, batches=3):
    """Classes around corners of a simplex, rare ones included, each batch a little moved."""
    rng = np.random.default_rng(seed)
    y = rng.choice(k, n, p=np.array([0.6, 0.3, 0.1]) if k == 3 else None)
    batch = np.arange(n) % batches
    x = apart * np.eye(p)[y] + rng.normal(size=(n, p)) + 0.5 * rng.normal(size=(batches, p))[batch]
    genes = np.maximum(3 * np.eye(12)[y * 4] + 0.5 * rng.normal(size=(n, 12)), 0)
    z = x[:, :4] + 0.1 * rng.normal(size=(n, 4))
    return x, z, y, np.array([f"b{b}" for b in batch]), genes


@pytest.fixture(scope="module")
def fitted():
    x, z, y, batch, genes = blobs()
    labels = np.where(batch == "b2", -1, y)
    names = np.array(["a", "b", "c"])
    return Annotator.fit(x, z, labels, names, batch, log_ng=genes, counts_ng=genes), blobs(), labels


# --- what the head sees, and the head ---------------------------------------------------


def test_every_block_has_mean_zero_and_total_variance_one():
    x, z, *_ = blobs()
    x = x * [9, 1, 1, 1, 1, 0.1]
    inputs = HeadInputs.fit(x, z, 2)
    got = inputs.transform(x, z)
    assert got.shape == (len(x), 6 + 2 + 4)
    np.testing.assert_allclose(got.mean(0), 0, atol=1e-12)
    for part in (got[:, :6], got[:, 6:8], got[:, 8:]):
        np.testing.assert_allclose(part.var(0).sum(), 1)
    np.testing.assert_allclose(got[:, 6:8].var(0), 0.5)  # whitened: equal shares
    ratio = got[:, 0].std() / got[:, 5].std()  # not whitened: proportions stay
    np.testing.assert_allclose(ratio, x[:, 0].std() / x[:, 5].std())


def test_other_columns_and_values_that_are_not_finite_are_refused():
    x, z, *_ = blobs()
    inputs = HeadInputs.fit(x, None, 2)
    with pytest.raises(DataError, match="found 12 columns; valid: 8"):
        inputs.transform(x, z)
    with pytest.raises(DataError, match="embedding: found shape"):
        HeadInputs.fit(x, z[:5], 2)
    with pytest.raises(DataError, match="expression: has values that are not finite"):
        inputs.transform(np.where(x > 3, np.nan, x), None)


def test_constant_components_do_not_divide_by_zero():
    x = np.c_[np.arange(5.0), np.full(5, 7.0)]
    got = HeadInputs.fit(x, None, 2).transform(x, None)
    assert np.isfinite(got).all() and not got[:, [1, 3]].any()


@pytest.mark.parametrize("power, ratio", [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_class_weights_follow_the_power_and_have_mean_one(power, ratio):
    y = np.repeat([0, 1], [40, 10])
    weights = class_weights(y, 2, power)
    np.testing.assert_allclose(weights.mean(), 1)
    np.testing.assert_allclose(weights[-1] / weights[0], ratio)


def test_the_head_is_the_minimum_of_the_penalised_loss():
    x, _, y, *_ = blobs()
    head = fit_head(x, y, 3, strength=0.3, power=0.5)
    assert head.converged
    residual = softmax(head.logits(x), axis=1) - np.eye(3)[y]
    residual *= 0.3 * class_weights(y, 3, 0.5)[:, None]
    scale = np.abs(residual).sum()
    # stationary: C * sum_i w_i (p_i - y_i) x_i + coef = 0; the intercept has no penalty
    np.testing.assert_allclose((residual.T @ x + head.coef) / scale, 0, atol=2e-5)
    np.testing.assert_allclose(residual.sum(0) / scale, 0, atol=2e-5)


def test_two_classes_share_one_sigmoid():
    from sklearn.linear_model import LogisticRegression

    x, _, y, *_ = blobs()
    x, y = x[y < 2], y[y < 2]
    head = fit_head(x, y, 2, strength=1.0, power=0.0)
    model = LogisticRegression(C=1.0, max_iter=2000, tol=1e-6).fit(x, y)
    wanted = expit(model.decision_function(x))
    np.testing.assert_allclose(softmax(head.logits(x), axis=1)[:, 1], wanted)


def test_a_class_without_cells_gets_no_probability_and_one_class_is_refused():
    x, _, y, *_ = blobs()
    some = y != 1
    p = softmax(fit_head(x[some], y[some], 3, strength=1.0, power=0.5).logits(x), axis=1)
    assert not p[:, 1].any()
    np.testing.assert_allclose(p.sum(1), 1)
    with pytest.raises(DataError, match="found 1 class on"):
        fit_head(x[y == 0], y[y == 0], 3, strength=1.0, power=0.5)


# --- calibration ------------------------------------------------------------------------


def test_folds_hold_out_whole_batches_of_about_equal_size():
    batch = np.repeat(list("abcdefg"), [50, 40, 30, 20, 10, 10, 20])
    fold = folds(np.zeros(len(batch), dtype=int), batch, 0)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[batch == b])) == 1 for b in "abcdefg")
    assert np.bincount(fold).max() <= 50


def test_folds_of_one_batch_are_stratified_and_seeded():
    y = np.repeat([0, 1], [50, 5])
    batch = np.full(55, "only")
    fold = folds(y, batch, 0)
    assert np.bincount(fold[y == 0]).tolist() == [10] * 5
    assert sorted(fold[y == 1]) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(fold, folds(y, batch, 0))
    assert (fold != folds(y, batch, 1)).any()


def test_cross_fitting_equals_a_fit_to_the_other_folds_and_skips_unknown_classes():
    x, _, y, *_ = blobs()
    fold = np.arange(len(y)) % 2
    fold[y == 2] = 0  # the class is in one fold only: no other fold knows it
    logits, usable = cross_fit(x, y, fold, 3, 1.0, 0.5)
    head = fit_head(x[fold == 0], y[fold == 0], 3, strength=1.0, power=0.5)
    np.testing.assert_array_equal(logits[fold == 1], head.logits(x[fold == 1]))
    np.testing.assert_array_equal(usable, y != 2)


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_the_temperature_undoes_a_factor_on_the_logits(factor):
    rng = np.random.default_rng(0)
    true = rng.normal(size=(20_000, 4)) * 2
    y = (true + rng.gumbel(size=true.shape)).argmax(1)  # drawn from softmax(true)
    t = fit_temperature(true * factor, y)
    assert t == pytest.approx(factor, rel=0.04)
    raw, tempered = temper(true * factor, 1.0), temper(true * factor, t)
    np.testing.assert_array_equal(raw.argmax(1), tempered.argmax(1))
    assert calibration_error(tempered, y) < 0.012
    assert factor == 1.0 or calibration_error(raw, y) > 0.05


def calibration_error(p_nk, y):
    everything = np.arange(len(y))[None]
    return calibration_errors(p_nk.max(1), p_nk.argmax(1) == y, everything)[0]


def test_calibration_error_is_the_weighted_gap_of_the_bins():
    p = np.array([[0.8, 0.2]] * 4 + [[0.4, 0.6]] * 6)
    y = np.array([0, 0, 1, 1] + [1] * 3 + [0] * 2 + [-1])
    assert calibration_error(p, y) == pytest.approx(0.4 * 0.3 + 0.6 * 0.1)
    assert calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0


def test_the_strength_with_the_least_cross_fitted_loss_is_chosen():
    x, _, y, *_ = blobs(apart=1.5)
    fold = np.arange(len(y)) % 4
    strength, temperature, losses = choose_strength(x, y, fold, 3, (1e-6, 1.0), 0.5)
    assert strength == 1.0 and losses[1.0] < losses[1e-6] and temperature > 0
    assert choose_strength(x, y, np.zeros(len(y)), 3, (0.1, 1.0, 3.0), 0.5) == (1.0, 1.0, {})


def test_a_sample_keeps_the_shares_and_every_class():
    y = np.repeat([0, 1, 2], [1000, 500, 1])
    rows = stratified_sample(y, 150, 0)
    assert np.bincount(y[rows]).tolist() == [99, 49, 1]
    assert len(set(rows)) == len(rows)
    np.testing.assert_array_equal(stratified_sample(y, 5000, 0), np.arange(1501))


# --- evidence and refinement ------------------------------------------------------------


def test_markers_are_the_genes_that_tell_a_class_from_the_next_best():
    *_, y, _, genes = blobs()
    genes[:, 1] += 5  # high everywhere: no marker
    markers = Markers.fit(genes, np.where(np.arange(len(y)) % 2, y, -1), 3, 1)
    assert markers.gene_kj.ravel().tolist() == [0, 4, 8]
    scores = markers.scores(genes)
    assert (scores.argmax(1) == y).mean() > 0.97
    shown = np.arange(len(y)) % 2 == 1
    np.testing.assert_allclose(scores[shown].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scores[shown].std(0), 1)


def test_sparse_and_dense_expression_give_the_same_markers():
    *_, y, _, genes = blobs()
    dense = Markers.fit(genes, y, 3, 4)
    sparse = Markers.fit(sp.csr_matrix(genes), y, 3, 4)
    np.testing.assert_array_equal(dense.gene_kj, sparse.gene_kj)
    np.testing.assert_allclose(dense.scores(genes), sparse.scores(sp.csr_matrix(genes)))


def test_neighbours_are_the_nearest_by_cosine_without_the_cell_itself():
    rng = np.random.default_rng(0)
    x, reference = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    rows = np.array([3, 17])
    got = neighbours(x, rows, reference, 5)
    both = np.vstack([reference, x])
    both = both / np.linalg.norm(both, axis=1, keepdims=True)
    cosine = both[20 + rows] @ both.T
    cosine[[0, 1], 20 + rows] = -np.inf
    np.testing.assert_array_equal(np.sort(got), np.sort(np.argsort(-cosine)[:, :5]))


def test_a_cell_with_many_copies_is_still_not_its_own_neighbour():
    got = neighbours(np.ones((8, 3)), np.arange(8), np.ones((4, 3)), 3)
    assert got.shape == (8, 3)
    assert (got != (np.arange(8) + 4)[:, None]).all()


def test_certain_cells_stay_as_they_are():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 20)
    uncertain = p.max(1) < 0.6
    near = rng.integers(0, 25, (uncertain.sum(), 4))
    got, _ = refine(p, uncertain, np.eye(3)[[0, 1, 2, 0, 1]], near, None, None, WEIGHTS, 20)
    np.testing.assert_array_equal(got[~uncertain], p[~uncertain])
    np.testing.assert_allclose(got.sum(1), 1)
    nobody, rounds = refine(
        p, np.zeros(20, dtype=bool), np.eye(3), np.empty((0, 4), int), None, None, WEIGHTS, 20
    )
    assert rounds == 0 and nobody is not p
    np.testing.assert_array_equal(nobody, p)


def test_one_undecided_cell_takes_the_mean_of_classifier_and_neighbours():
    p = np.array([[0.55, 0.45]])
    got, _ = refine(
        p, np.array([True]), np.eye(2)[[1, 1, 0]], np.array([[0, 1, 2]]), None, None,
        WEIGHTS | {"neighbours": 1.0}, 20,
    )  # fmt: skip
    shared = np.array([1.55, 2.45]) / 4  # three decided neighbours and its own opinion
    wanted = np.sqrt(p[0] * shared)
    np.testing.assert_allclose(got[0], wanted / wanted.sum())


def test_a_chain_of_uncertain_cells_is_decided_from_its_known_end():
    n = 4
    p = np.full((n, 2), 0.5) + 0.02 * np.array([-1, 1])  # leans to the wrong class
    known = np.eye(2)[[0, 0, 0, 0]]
    m = len(known)
    near = np.array([[max(m + i - step, m - step) for step in (1, 2, 3)] for i in range(n)])
    near = np.maximum(near, 0)
    got, rounds = refine(p, np.ones(n, dtype=bool), known, near, None, None, WEIGHTS, 50)
    assert (got.argmax(1) == 0).all() and 1 < rounds < 50
    alone, _ = refine(p, np.ones(n, dtype=bool), known, near, None, None,
                      WEIGHTS | {"neighbours": 0.0}, 50)  # fmt: skip
    assert (alone.argmax(1) == 1).all()


def test_markers_and_clusters_tip_the_scale_each():
    p = np.array([[0.52, 0.48], [0.05, 0.95], [0.05, 0.95], [0.05, 0.95]])
    uncertain = np.array([True, False, False, False])
    none = np.zeros((1, 1), dtype=int)  # one neighbour, which is half and half
    known = np.array([[0.5, 0.5]])
    markers = np.array([[-2.0, 2.0]] + [[0.0, 0.0]] * 3)
    for kwargs in (
        {"markers": markers, "cluster": None},
        {"markers": None, "cluster": np.zeros(4, int)},
    ):
        got, _ = refine(p, uncertain, known, none, kwargs["markers"], kwargs["cluster"], WEIGHTS, 9)
        assert got[0].argmax() == 1
    without, _ = refine(p, uncertain, known, none, None, None, WEIGHTS, 9)
    assert without[0].argmax() == 0


def test_the_order_of_the_cells_does_not_matter():
    rng = np.random.default_rng(1)
    p = rng.dirichlet([1, 1, 1], 40)
    x, reference = rng.normal(size=(40, 3)), rng.normal(size=(10, 3))
    known = np.eye(3)[rng.integers(0, 3, 10)]
    uncertain = p.max(1) < 0.7

    def run(order):
        rows = np.flatnonzero(uncertain[order])
        near = neighbours(x[order], rows, reference, 5)
        return refine(p[order], uncertain[order], known, near, None, None, WEIGHTS, 20)[0]

    order = rng.permutation(40)
    np.testing.assert_allclose(run(order), run(np.arange(40))[order])


def test_a_clear_majority_of_a_cluster_wins_over_its_uncertain_cells():
    p = np.array([[0.9, 0.1]] * 4 + [[0.3, 0.7], [0.3, 0.7]] + [[0.9, 0.1], [0.1, 0.9]])
    cluster = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    uncertain = np.array([0, 0, 0, 0, 1, 1, 0, 0], dtype=bool)
    got, changed = majority_vote(p, cluster, uncertain, 0.8)
    assert changed == 1
    np.testing.assert_allclose(got[4], [0.9, 0.1])
    np.testing.assert_array_equal(np.delete(got, 4, 0), np.delete(p, 4, 0))
    assert majority_vote(p, cluster, np.zeros(8, dtype=bool), 0.8)[1] == 0
    assert majority_vote(p, cluster, uncertain, 0.9)[1] == 0


def test_over_clusters_are_many_and_seeded():
    x = blobs()[0]
    got = over_clusters(x, 15, 0)
    assert len(set(got)) == len(x) // 15
    np.testing.assert_array_equal(got, over_clusters(x, 15, 0))
    assert set(over_clusters(x[:3], 15, 0)) == {0}


# --- novelty ----------------------------------------------------------------------------


KNOWN = np.full(600, -1)  # every batch has shown cells


def planted_counts(n=600, g=80, new=0.25, seed=0):
    """Multinomial counts of three types of any total, the last one never shown."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=[0.5, 0.5 - new, new])
    q_kg = rng.dirichlet(np.ones(g), 3)
    total = rng.lognormal(6, 0.8, n).astype(int)
    counts = np.array([rng.multinomial(t, q_kg[k]) for t, k in zip(total, y, strict=True)])
    return sp.csr_matrix(counts, dtype=np.float32), y, np.where(y == 2, -1, y), total


def test_the_misfit_is_twice_the_log_likelihood_ratio_to_the_best_profile():
    from scipy.stats import multinomial

    x, _, labels, total = planted_counts()
    found = Profiles.fit(x, labels, 2, 0.99)
    dense = x.toarray().astype(int)
    shares = dense / total[:, None]
    for k in range(2):
        mean = shares[labels == k].mean(0) + LEAST_SHARE
        np.testing.assert_allclose(np.exp(found.log_kg[k]), mean / mean.sum(), rtol=1e-5)
    q_kg = np.exp(found.log_kg.astype(float))
    q_kg /= q_kg.sum(1, keepdims=True)  # scipy asks for sums of 1 beyond float32

    def deviance(i, own):
        """Of a cell, with the profile of its own type made of the other cells."""
        profiles = q_kg.copy()
        if own and labels[i] >= 0:
            others = (labels == labels[i]) & (np.arange(600) != i)
            profiles[labels[i]] = shares[others].mean(0) + LEAST_SHARE
            profiles[labels[i]] /= profiles[labels[i]].sum()
        best = max(multinomial.logpmf(dense[i], total[i], q) for q in profiles)
        return 2 * (multinomial.logpmf(dense[i], total[i], shares[i]) - best)

    misfit = np.array([deviance(i, own=True) for i in range(600)])
    fit, log_total = labels >= 0, np.log(total)
    trend = np.polyfit(log_total[fit], np.log(misfit)[fit], 2)
    expected = np.polyval(trend, np.clip(log_total, *found.span))
    spread = (np.log(misfit) - expected)[fit].std()
    told = (np.log(misfit) - expected)[fit] / spread
    np.testing.assert_allclose(found.usual[0], np.median(told), atol=2e-3)
    rank = int(np.ceil(0.99 * (len(told) + 1)))  # conformal: one more cell counts
    np.testing.assert_allclose(found.usual[2], np.sort(told)[rank - 1], atol=2e-3)
    asked = np.log([deviance(i, own=False) for i in range(600)])
    np.testing.assert_allclose(found.novelty(x, KNOWN), (asked - expected) / spread, atol=2e-3)


def test_types_never_shown_are_newer_and_the_total_says_nothing():
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    x, y, labels, total = planted_counts()
    profiles = Profiles.fit(x, labels, 2, 0.95)
    novelty = profiles.novelty(x, KNOWN)
    assert roc_auc_score(y == 2, novelty) > 0.95
    shown = labels >= 0
    assert abs(spearmanr(novelty[shown], total[shown])[0]) < 0.1
    # those shown have a part in their profile, which fits them a little too well
    assert -0.1 < novelty[shown].mean() < 0 and novelty[shown].std() == pytest.approx(1, abs=0.1)
    assert profiles.is_new(novelty)[shown].mean() == pytest.approx(0.05, abs=0.02)
    assert profiles.is_new(novelty)[~shown].mean() > 0.8
    assert not Profiles.fit(x, labels, 2, 1.0).is_new(novelty).any()


def test_a_batch_without_shown_cells_is_measured_against_itself():
    from scipy.stats import median_abs_deviation

    x, y, labels, _ = planted_counts()
    profiles = Profiles.fit(x, labels, 2, 0.99)
    # a batch whose cells all fit ill: half of the genes count twice
    other = sp.csr_matrix(x.toarray() * np.where(np.arange(80) % 2, 2, 1))
    strange = np.where(np.arange(600) < 300, 4, -1)
    moved, raw = profiles.novelty(other, strange), profiles.novelty(other, KNOWN)
    np.testing.assert_array_equal(moved[300:], raw[300:])
    own = moved[:300]
    assert np.median(own) == pytest.approx(profiles.usual[0])
    assert median_abs_deviation(own) == pytest.approx(profiles.usual[1])
    np.testing.assert_array_equal(np.argsort(own), np.argsort(raw[:300]))
    assert profiles.is_new(raw)[:300][y[:300] < 2].mean() > 0.5  # the whole batch, were it not so
    assert profiles.is_new(own)[y[:300] < 2].mean() < 0.05
    few = np.where(np.arange(600) < LEAST_CELLS - 1, 4, -1)
    np.testing.assert_array_equal(profiles.novelty(other, few), raw)


def test_cells_not_shown_are_as_new_as_those_shown_however_few_these_are():
    rng = np.random.default_rng(0)
    beyond = []
    for seed in range(20):  # 60 cells of two types in 400 genes: their profiles are rough
        x, y, _, _ = planted_counts(g=400, seed=seed)
        known = np.flatnonzero(y < 2)
        shown = rng.choice(known, 60, replace=False)
        labels = np.full(600, -1)
        labels[shown] = y[shown]
        profiles = Profiles.fit(x, labels, 2, 0.9)
        beyond.append(
            profiles.is_new(profiles.novelty(x, KNOWN))[np.setdiff1d(known, shown)].mean()
        )
    assert np.mean(beyond) == pytest.approx(0.1, abs=0.04)
    assert profiles.usual[2] < Profiles.fit(x, labels, 2, 60 / 61).usual[2]  # the largest of 60
    assert not Profiles.fit(x, labels, 2, 0.99).is_new(np.array([1e9])).any()  # too few to tell


def test_cells_without_counts_and_totals_all_alike_have_a_novelty_too():
    x, _, labels, _ = planted_counts()
    found = Profiles.fit(x, labels, 2, 0.99)
    assert found.novelty(sp.csr_matrix((40, 80)), np.zeros(40, int)).tolist() == [0] * 40
    few = sp.csr_matrix(np.eye(4, 80)[[0, 1, 2, 0]])
    alike = Profiles.fit(few, np.array([0, 0, 1, -1]), 2, 0.99)
    assert np.isfinite(alike.novelty(few, KNOWN[:4])).all() and alike.trend[1:].tolist() == [0, 0]
    empty = sp.csr_matrix(np.vstack([x.toarray()[:40], np.zeros(80)]))  # shown, without counts
    with_empty = Profiles.fit(empty, np.append(labels[:40], 0), 2, 0.99)
    without = Profiles.fit(x[:40], labels[:40], 2, 0.99)
    np.testing.assert_array_equal(with_empty.log_kg, without.log_kg)
    with pytest.raises(ValueError, match="no cell has both"):
        Profiles.fit(empty[40:], np.zeros(1, int), 2, 0.99)


# --- the annotator ----------------------------------------------------------------------


def test_hidden_cells_get_their_type_and_rows_sum_to_one(fitted):
    annotator, (x, z, y, _, genes), labels = fitted
    found = annotator.predict(x, z, log_ng=genes)
    hidden = labels < 0
    truth = np.array(["a", "b", "c"])[y]
    assert (found.labels[hidden] == truth[hidden]).mean() > 0.9
    np.testing.assert_allclose(found.probabilities.sum(1), 1)
    known = ~found.unknown
    most = found.classes[found.probabilities.argmax(1)]
    np.testing.assert_array_equal(found.labels[known], most[known])
    assert (found.labels[found.unknown] == UNKNOWN).all()
    assert found.notes["n_fitted"] == (~hidden).sum() and found.notes["converged"]


def test_the_same_seed_gives_the_same_answer(fitted):
    annotator, (x, z, _, batch, genes), labels = fitted
    again = Annotator.fit(x, z, labels, annotator.classes, batch, log_ng=genes)
    one, two = annotator.predict(x, z, log_ng=genes), again.predict(x, z, log_ng=genes)
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    np.testing.assert_array_equal(one.labels, two.labels)


def test_sparse_expression_gives_the_same_answer(fitted):
    annotator, (x, z, _, batch, genes), labels = fitted
    log_ng = sp.csr_matrix(genes)
    again = Annotator.fit(x, z, labels, annotator.classes, batch, log_ng=log_ng)
    got = again.predict(x, z, log_ng=log_ng).probabilities
    np.testing.assert_allclose(got, annotator.predict(x, z, log_ng=genes).probabilities)


def test_every_switch_changes_the_answer_or_its_notes():
    x, z, y, batch, genes = blobs(n=150, apart=1.2)
    labels, names = np.where(batch == "b2", -1, y), np.array(["a", "b", "c"])

    def run(**changes):
        settings = replace(QUICK, **changes)
        made = Annotator.fit(x, z, labels, names, batch, log_ng=genes, settings=settings)
        return made.predict(x, z, log_ng=genes)

    base = run()
    assert base.notes["n_uncertain"] > 5 and "rounds" in base.notes
    switches = (
        {"use_embedding": True}, {"w_embedding": 0.0}, {"calibrate": False}, {"refine": False},
        {"markers": False},
        {"clusters": True}, {"neighbour_space": "embedding"}, {"whitened": 0},
        {"weight_power": 0.0}, {"strengths": (0.01,)}, {"vote": True, "vote_share": 0.6},
    )  # fmt: skip
    for change in switches:
        assert np.abs(run(**change).probabilities - base.probabilities).max() > 1e-6, change
    assert "rounds" not in run(refine=False).notes
    assert run(calibrate=False).notes["temperature"] == 1.0
    assert run(vote=True, vote_share=0.6).notes["n_voted"] > 0


def test_unknown_is_where_no_class_is_credible_and_can_be_switched_off():
    x, z, y, batch, _ = blobs(apart=1.2)
    for level, least in ((0.0, 1 / 3), (0.25, 0.5), (1.0, 1.0)):
        settings = replace(QUICK, unknown=level, usual_share=1.0)
        made = Annotator.fit(x, z, y, np.array(["a", "b", "c"]), batch, settings=settings)
        found = made.predict(x, z)
        np.testing.assert_array_equal(found.unknown, found.probabilities.max(1) < least)
        assert found.unknown.any() == (level > 0)


def test_a_type_that_the_reference_lacks_is_unknown_by_its_counts():
    x, z, y, batch, genes = blobs(apart=20.0)
    counts = np.random.default_rng(1).poisson(20 * genes + 2)
    there = y != 2
    made = Annotator.fit(
        x[there], z[there], y[there], np.array(["a", "b"]), batch[there],
        counts_ng=counts[there], settings=QUICK,
    )  # fmt: skip
    found = made.predict(x, z, batch, counts_ng=counts)
    assert found.unknown[~there].mean() > 0.9
    assert found.unknown[there].mean() < 0.05
    assert not made.predict(x, z, batch).unknown.any()  # sure of them, and nothing says more
    nothing = Annotator.fit(
        x[there], z[there], y[there], np.array(["a", "b"]), batch[there],
        counts_ng=0 * counts[there], settings=QUICK,
    )  # fmt: skip
    assert nothing.profiles is None and not nothing.predict(x, z, counts_ng=counts).novelty.any()
    limitless = replace(QUICK, usual_share=1.0)
    made = Annotator.fit(
        x[there], z[there], y[there], np.array(["a", "b"]), batch[there],
        counts_ng=counts[there], settings=limitless,
    )  # fmt: skip
    assert all(np.isfinite(v).all() for v in made.to_state()[0].values())
    assert not made.predict(x, z, batch, counts_ng=counts).unknown.any()


def test_a_batch_without_labelled_cells_has_a_novelty_of_its_own():
    x, z, y, batch, genes = blobs()
    counts = np.random.default_rng(1).poisson(20 * genes + 2)
    names = np.array(["a", "b", "c"])
    made = Annotator.fit(x, z, y, names, batch, counts_ng=counts, settings=QUICK)
    found = made.predict(x, z, batch, counts_ng=counts)
    far = made.predict(x, z, np.where(batch == "b2", "other", batch), counts_ng=counts)
    own = batch == "b2"
    np.testing.assert_array_equal(far.novelty[~own], found.novelty[~own])
    assert np.median(far.novelty[own]) == pytest.approx(made.profiles.usual[0])


def test_the_nearest_labelled_cells_have_their_say():
    x, z, y, batch, genes = blobs(n=300)
    labels, names = np.where(batch == "b2", -1, y), np.array(["a", "b", "c"])
    moved = np.where((batch == "b2")[:, None], x[:, [1, 0, 2, 3, 4, 5]], x)  # expression misleads

    def right(weight):
        settings = replace(QUICK, w_embedding=weight, refine=False, unknown=0.0)
        made = Annotator.fit(moved, z, labels, names, batch, settings=settings)
        return (made.predict(moved, z).labels == names[y])[batch == "b2"].mean()

    assert right(0.0) < 0.3 and right(4.0) > 0.9


def test_shares_and_pool_are_those_of_the_closed_forms():
    z = np.array([[1.0, 0], [1, 0.1], [0, 1]])
    near = np.array([[1.0, 0], [0.9, 0], [0.8, 0.1], [0, 1]])
    shares = label_shares(z, near, np.array([0, 0, 1, 1]), 3)
    np.testing.assert_allclose(shares[0], [2.5 / 4, 1.5 / 4])
    assert shares.shape == (3, 2) and np.allclose(shares.sum(1), 1)
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    wanted = p ** (2 / 3) * shares ** (1 / 3)
    np.testing.assert_allclose(pooled(p, shares, 0.5), wanted / wanted.sum(1, keepdims=True))
    np.testing.assert_allclose(pooled(p, shares, 0.0), p)


def test_a_saved_annotator_answers_as_before(fitted, tmp_path):
    from safetensors.numpy import load_file, save_file

    annotator, (x, z, _, _, genes), _ = fitted
    arrays, content = annotator.to_state()
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / "a.safetensors")
    content = json.loads(json.dumps(content, allow_nan=False))
    again = Annotator.from_state(load_file(tmp_path / "a.safetensors"), content)
    one, two = (a.predict(x, z, log_ng=genes, counts_ng=genes) for a in (annotator, again))
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.novelty, two.novelty)
    assert one.novelty.any() and not annotator.predict(x, z, log_ng=genes).novelty.any()
    assert one.notes == two.notes and again.settings == annotator.settings


def test_an_annotator_without_markers_is_saved_too():
    x, z, y, batch, _ = blobs(n=60)
    made = Annotator.fit(x, z, y, np.array(["a", "b", "c"]), batch, settings=QUICK)
    again = Annotator.from_state(*made.to_state())
    np.testing.assert_array_equal(again.predict(x, z).labels, made.predict(x, z).labels)


def test_many_labelled_cells_are_sampled_for_the_neighbours(monkeypatch):
    x, z, y, batch, genes = blobs()
    monkeypatch.setattr(module, "MAX_REFERENCE", 60)
    made = Annotator.fit(x, z, y, np.array(["a", "b", "c"]), batch, settings=QUICK)
    assert len(made.reference.y) <= 60 and set(made.reference.y) == {0, 1, 2}
    assert made.notes["n_fitted"] == len(y)


def test_labels_that_cannot_be_used_are_refused():
    x, z, y, batch, _ = blobs(n=60)
    names = np.array(["a", "b", "c"])
    with pytest.raises(DataError, match="without a labelled cell: c"):
        Annotator.fit(x, z, np.where(y == 2, -1, y), names, batch)
    with pytest.raises(DataError, match="valid: -1 to 1"):
        Annotator.fit(x, z, y, names[:2], batch)
    with pytest.raises(DataError, match="valid: int"):
        Annotator.fit(x, z, y[:-1], names, batch)
    with pytest.raises(DataError, match="found 1"):
        Annotator.fit(x, z, np.zeros(60, dtype=int), names[:1], batch)


@pytest.mark.parametrize(
    "key, value",
    [
        ("uncertain", 1.5), ("unknown", -0.1), ("n_neighbours", 0), ("w_markers", -1.0),
        ("strengths", ()), ("strengths", (0.0,)), ("neighbour_space", "pca"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"{key}: found .*; valid: "):
        AnnotateSettings(**{key: value})
