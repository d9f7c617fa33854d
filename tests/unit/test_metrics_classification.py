"""Annotation and ranking metrics against scikit-learn, on data and on resamples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

from morebench.metrics import classification, ranking
from morebench.metrics.resampling import resamples

SKLEARN = {
    classification.accuracy: accuracy_score,
    classification.macro_f1: lambda t, p: f1_score(
        t, p, labels=np.unique(t), average="macro", zero_division=0
    ),
    classification.balanced_accuracy: balanced_accuracy_score,
}


@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label")
@pytest.mark.parametrize("metric", SKLEARN)
@given(n=st.integers(1, 60), t=st.integers(1, 6), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_types_as_in_sklearn_also_on_resamples(metric, n, t, seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice([f"t{i}" for i in range(t)], n).astype(object)
    predicted = np.where(rng.random(n) < 0.5, truth, rng.choice(["t0", "t9", "unknown"], n))
    statistic = classification.statistic(metric, truth, predicted)
    indices = np.concatenate([np.arange(n)[None], *resamples(n, 4, seed)])
    expected = [SKLEARN[metric](truth[i].astype(str), predicted[i].astype(str)) for i in indices]
    np.testing.assert_allclose(statistic(indices), expected, atol=1e-12)


def test_unknown_is_wrong_and_costs_recall_only():
    truth = np.array(["a", "a", "b", "b"])
    statistic = classification.statistic(
        classification.macro_f1, truth, np.array(["a", "unknown", "b", "b"])
    )
    assert statistic(np.arange(4)[None])[0] == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [(ranking.auroc, roc_auc_score), (ranking.auprc, average_precision_score)],
)
@given(n=st.integers(2, 60), levels=st.integers(1, 40), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_ranking_as_in_sklearn_with_ties_also_on_resamples(metric, oracle, n, levels, seed):
    rng = np.random.default_rng(seed)
    positive, score = rng.random(n) < 0.4, rng.integers(levels, size=n) / levels
    statistic = ranking.statistic(metric, positive, score)
    indices = np.concatenate([np.arange(n)[None], *resamples(n, 4, seed)])
    found = statistic(indices)
    for i, value in zip(indices, found, strict=True):
        if len(set(positive[i])) == 1:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(oracle(positive[i], score[i]), abs=1e-12)


def test_perfect_and_reversed_rankings():
    positive = np.array([True, True, False, False, False])
    everything = np.arange(5)[None]
    score = np.array([5.0, 4, 3, 2, 1])
    assert ranking.statistic(ranking.auroc, positive, score)(everything)[0] == 1
    assert ranking.statistic(ranking.auprc, positive, score)(everything)[0] == 1
    assert ranking.statistic(ranking.auroc, positive, -score)(everything)[0] == 0
    assert ranking.statistic(ranking.auroc, positive, 0 * score)(everything)[0] == 0.5
