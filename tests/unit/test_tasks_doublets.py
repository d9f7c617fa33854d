"""The doublet task against scikit-learn; cells without truth, missing outputs."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from morebench.contract import MethodOutput
from morebench.metrics import ranking
from morebench.metrics.resampling import percentile_interval, resamples
from morebench.registry import METRICS
from morebench.tasks import doublets
from morebench.tasks.contract import Candidate, TaskData

NAMES = [m.name for m in METRICS.values() if m.task == "doublets"]


def make_data(n=300, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.2).astype(float)
    score = (truth + rng.normal(size=n)).round(1)
    truth[:40] = np.nan
    scored = truth == 0
    nothing = np.full(n, None, dtype=object)
    data = TaskData("d", "all", np.full(n, "b"), nothing, truth, scored, nothing, np.zeros((n, 2)))
    return data, score


def run(data, *candidates):
    return doublets.score(data, candidates, seed=1, threads=1, params={"n_boot": 300})


def ok(score, method="m"):
    return Candidate(method, "unsupervised", 0, "ok", MethodOutput(doublet_score=score))


def recall_in_every_order(positive, score, n_orders=0):
    """Recall of the top cells, as many as positives: by counting, or over random orders."""
    n_taken = int(positive.sum())
    if n_orders:
        rng = np.random.default_rng(0)
        found = []
        for _ in range(n_orders):
            top = np.lexsort((rng.random(len(score)), -score))[:n_taken]
            found.append(positive[top].sum() / n_taken)
        return float(np.mean(found))
    last = np.sort(score)[::-1][n_taken - 1]
    above, tied = score > last, score == last
    places = n_taken - above.sum()
    return (positive[above].sum() + places * positive[tied].mean()) / n_taken


def test_values_are_those_of_sklearn_on_all_cells_with_truth():
    """Doublets are no scored cells of the split, but they are of this task."""
    data, score = make_data()
    found = {s.metric: s for s in run(data, ok(score))}
    assert list(found) == NAMES
    truth = data.is_doublet[40:]
    assert found["auroc"].value == pytest.approx(roc_auc_score(truth, score[40:]))
    assert found["auprc"].value == pytest.approx(average_precision_score(truth, score[40:]))
    expected = recall_in_every_order(truth == 1, score[40:])
    assert found["recall_at_rate"].value == pytest.approx(expected)
    for s in found.values():
        assert (s.status, s.n_cells, s.coverage) == ("ok", 260, 1.0)
        assert s.ci_low < s.value < s.ci_high


def test_interval_of_the_auroc_is_near_that_of_delong():
    data, score = make_data(n=3000)
    s = doublets.score(data, [ok(score)], seed=1, threads=1, params={"n_boot": 2000})[0]
    truth, score = data.is_doublet[40:], score[40:]
    above = score[truth == 1][:, None] - score[truth == 0][None, :]
    wins = (above > 0) + 0.5 * (above == 0)
    n1, n0 = wins.shape
    variance = wins.mean(axis=1).var() / n1 + wins.mean(axis=0).var() / n0
    half = 1.96 * np.sqrt(variance)
    assert s.value == pytest.approx(wins.mean())
    assert (s.ci_low, s.ci_high) == pytest.approx((s.value - half, s.value + half), abs=0.002)


def test_only_the_order_of_scores_counts_and_cells_without_truth_do_not():
    data, score = make_data()
    expected = [(s.value, s.ci_low, s.ci_high) for s in run(data, ok(score))]
    other = np.exp(score)
    other[:40] = np.nan
    assert [(s.value, s.ci_low, s.ci_high) for s in run(data, ok(other))] == expected


def test_missing_results_are_typed():
    data, score = make_data()
    gone = Candidate("gone", "unsupervised", 2, "out_of_memory", None, "6 GB")
    bare = Candidate("bare", "unsupervised", 0, "ok", MethodOutput())
    holes = score.copy()
    holes[[50, 60]] = np.nan
    scores = run(data, gone, bare, ok(score[:3], "short"), ok(holes, "holes"), ok(score))
    assert len(scores) == 5 * len(NAMES)
    status = {s.method: (s.status, s.reason) for s in scores}
    assert status["gone"] == ("out_of_memory", "6 GB")
    assert status["bare"][0] == status["short"][0] == status["holes"][0] == "failed"
    assert "found 3 scores; valid: one a cell, 300" in status["short"][1]
    assert "2 doublet scores are NaN" in status["holes"][1]
    assert status["m"][0] == "ok"
    assert all(math.isnan(s.value) == (s.status != "ok") for s in scores)


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_one_class_only_is_not_applicable(value):
    data, score = make_data()
    data.is_doublet[:] = value
    for s in run(data, ok(score)):
        assert s.status == "not_applicable" and "doublets among" in s.reason


def test_recall_at_the_rate_without_ties_is_that_of_the_top_cells():
    data, score = make_data()
    score = score + np.random.default_rng(5).normal(0, 1e-6, len(score))
    truth = data.is_doublet[40:] == 1
    called = score[40:] >= np.sort(score[40:])[::-1][truth.sum() - 1]
    assert called.sum() == truth.sum()
    found = {s.metric: s for s in run(data, ok(score))}["recall_at_rate"]
    assert found.value == pytest.approx(recall_score(truth, called))


@pytest.mark.parametrize("seed", range(6))
def test_tied_cells_count_by_the_mean_over_their_orders(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < 0.3
    score = rng.integers(0, 4, 80) + positive
    found = ranking.statistic(ranking.recall_at_rate, positive, score)(np.arange(80)[None])[0]
    assert found == pytest.approx(recall_in_every_order(positive, score))
    # four standard errors of 4000 orders, of at most 1/2 each
    n_orders = 4000
    assert found == pytest.approx(recall_in_every_order(positive, score, n_orders), abs=0.032)


@pytest.mark.parametrize("flip", [1, -1])
def test_recall_at_the_rate_of_constant_and_perfect_scores(flip):
    data, _ = make_data()
    known = data.is_doublet[40:]
    perfect = np.nan_to_num(data.is_doublet) * flip
    scores = run(data, ok(np.zeros(300), "constant"), ok(perfect, "perfect"))
    found = {s.method: s for s in scores if s.metric == "recall_at_rate"}
    assert found["constant"].value == pytest.approx(known.mean())  # a random order's
    assert found["constant"].ci_low < known.mean() < found["constant"].ci_high
    assert found["perfect"].value == (1.0 if flip == 1 else 0.0)


def test_interval_of_the_recall_is_that_of_resampling_by_hand():
    data, score = make_data(n=120)
    found = {s.metric: s for s in run(data, ok(score))}["recall_at_rate"]
    truth, score = data.is_doublet[40:] == 1, score[40:]
    values = [
        recall_in_every_order(truth[i], score[i])
        for rows in resamples(80, 300, seed=1)
        for i in rows
    ]
    low, high = percentile_interval(np.array(values))
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
