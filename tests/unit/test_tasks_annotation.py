"""The annotation task against scikit-learn; unseen types, missing outputs, intervals."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from morebench.contract import MethodOutput
from morebench.registry import METRICS
from morebench.tasks import annotation
from morebench.tasks.contract import Candidate, TaskData

NAMES = [m.name for m in METRICS.values() if m.task == "annotation"]


def make_data(n=200, seed=0):
    """Make a held-out batch of n / 2 cells; type t3 is in it and was never shown."""
    rng = np.random.default_rng(seed)
    types = rng.choice(["t0", "t1", "t2"], n, p=[0.6, 0.3, 0.1]).astype(object)
    scored = np.arange(n) >= n // 2
    types[-5:] = "t3"
    shown = np.where(scored, None, types)
    batch = np.where(scored, "query", "reference")
    predicted = np.where(rng.random(n) < 0.7, types, rng.choice(["t0", "t1", "unknown"], n))
    data = TaskData(
        "d", "lobo-query", batch, types, np.full(n, np.nan), scored, shown, np.zeros((n, 2))
    )
    return data, predicted


def run(data, *candidates, **params):
    return annotation.score(data, candidates, seed=1, threads=1, params={"n_boot": 200, **params})


def ok(labels, method="m"):
    return Candidate(method, "semi-supervised", 0, "ok", MethodOutput(labels=labels))


def test_values_are_those_of_sklearn_on_the_scored_cells():
    data, predicted = make_data()
    found = {s.metric: s for s in run(data, ok(predicted))}
    assert list(found) == NAMES
    truth, guess = data.cell_type[100:].astype(str), predicted[100:].astype(str)
    assert found["accuracy"].value == pytest.approx(accuracy_score(truth, guess))
    f1 = f1_score(truth, guess, labels=np.unique(truth), average="macro", zero_division=0)
    assert found["macro_f1"].value == pytest.approx(f1)
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = balanced_accuracy_score(truth, guess)
    assert found["balanced_accuracy"].value == pytest.approx(expected)
    for s in found.values():
        assert s.status == "ok" and s.n_cells == 100
        assert s.ci_low < s.value < s.ci_high


def test_interval_of_the_accuracy_is_binomial():
    data, predicted = make_data(n=2000)
    s = run(data, ok(predicted), n_boot=2000)[0]
    half = 1.96 * math.sqrt(s.value * (1 - s.value) / 1000)
    assert (s.ci_low, s.ci_high) == pytest.approx((s.value - half, s.value + half), abs=0.005)


def test_types_never_shown_count_and_are_named():
    data, predicted = make_data()
    for s in run(data, ok(predicted)):
        assert s.coverage == pytest.approx(0.95)
        assert "t3" in s.reason
    data.shown[0] = "t3"
    assert {(s.coverage, s.reason) for s in run(data, ok(predicted))} == {(1.0, "")}


def test_unlabelled_and_unscored_cells_do_not_count():
    data, predicted = make_data()
    data.cell_type[100:110] = None
    found = run(data, ok(predicted))
    assert found[0].n_cells == 90
    predicted = predicted.copy()
    predicted[:110] = "nonsense"
    assert [s.value for s in run(data, ok(predicted))] == [s.value for s in found]


def test_perfect_and_wrong():
    data, _ = make_data()
    assert {s.value for s in run(data, ok(data.cell_type))} == {1.0}
    wrong = np.full(200, "unknown", dtype=object)
    assert {s.value for s in run(data, ok(wrong))} == {0.0}


def test_same_seed_same_interval_and_candidates_are_resampled_alike():
    data, predicted = make_data()
    a, b = run(data, ok(predicted)), run(data, ok(predicted, "other"))
    assert [(s.ci_low, s.ci_high) for s in a] == [(s.ci_low, s.ci_high) for s in b]


def test_missing_results_are_typed():
    data, predicted = make_data()
    gone = Candidate("gone", "semi-supervised", 2, "timeout", None, "60 min")
    bare = Candidate("bare", "semi-supervised", 0, "ok", MethodOutput())
    short = ok(predicted[:5], "short")
    scores = run(data, gone, bare, short, ok(predicted))
    assert len(scores) == 4 * len(NAMES)
    status = {s.method: (s.status, s.reason) for s in scores}
    assert status["gone"] == ("timeout", "60 min")
    assert status["bare"][0] == "failed" and "found none labels" in status["bare"][1]
    assert (
        status["short"][0] == "failed"
        and "found 5 labels; valid: one a cell, 200" in (status["short"][1])
    )
    assert status["m"][0] == "ok"
    assert all(math.isnan(s.value) == (s.status != "ok") for s in scores)
    data.cell_type[100:] = None
    assert {s.status for s in run(data, ok(predicted))} == {"not_applicable"}
