"""The annotation task against scikit-learn; unseen types, missing outputs, intervals."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from morebench.contract import MethodOutput
from morebench.registry import METRICS
from morebench.tasks import annotation
from morebench.tasks.contract import Candidate, TaskData

NAMES = [m.name for m in METRICS.values() if m.task == "annotation"]
PLAIN = ("accuracy", "macro_f1", "balanced_accuracy", "macro_f1_voted")


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


def plain(scores):
    return [s for s in scores if s.metric in PLAIN]


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
    for s in (found[name] for name in PLAIN[:3]):
        assert s.status == "ok" and s.n_cells == 100
        assert s.ci_low < s.value < s.ci_high


def test_interval_of_the_accuracy_is_binomial():
    data, predicted = make_data(n=2000)
    s = run(data, ok(predicted), n_boot=2000)[0]
    half = 1.96 * math.sqrt(s.value * (1 - s.value) / 1000)
    assert (s.ci_low, s.ci_high) == pytest.approx((s.value - half, s.value + half), abs=0.005)


def test_types_never_shown_count_and_are_named():
    data, predicted = make_data()
    for s in plain(run(data, ok(predicted))):
        assert s.coverage == pytest.approx(0.95)
        assert "t3" in s.reason
    data.shown[0] = "t3"
    assert {(s.coverage, s.reason) for s in plain(run(data, ok(predicted)))} == {(1.0, "")}


def test_unlabelled_and_unscored_cells_do_not_count():
    data, predicted = make_data()
    data.cell_type[100:110] = None
    found = run(data, ok(predicted))
    assert found[0].n_cells == 90
    predicted = predicted.copy()
    predicted[:110] = "nonsense"
    again = run(data, ok(predicted))
    assert [s.value for s in again[:3]] == [s.value for s in found[:3]]


def test_perfect_and_wrong():
    data, _ = make_data()
    assert {s.value for s in run(data, ok(data.cell_type))[:3]} == {1.0}
    wrong = np.full(200, "unknown", dtype=object)
    assert {s.value for s in plain(run(data, ok(wrong)))} == {0.0}


def test_same_seed_same_interval_and_candidates_are_resampled_alike():
    data, predicted = make_data()
    a, b = plain(run(data, ok(predicted))), plain(run(data, ok(predicted, "other")))
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
    assert {s.status for s in plain(scores) if s.method == "m"} == {"ok"}
    assert all(math.isnan(s.value) == (s.status != "ok") for s in scores)
    data.cell_type[100:] = None
    assert {s.status for s in run(data, ok(predicted))} == {"not_applicable"}


# --- votes, rare types, calibration, labels by neighbours ---------------------------------


def test_votes_are_taken_in_small_clusters_among_the_scored_cells():
    data, predicted = make_data(n=2400)  # half of them vote
    kind = np.unique(data.cell_type.astype(str), return_inverse=True)[1]
    data.pca_np = 20 * np.eye(4)[kind] + np.random.default_rng(2).normal(size=(2400, 4))
    found = {s.metric: s.value for s in run(data, ok(predicted))}
    assert found["macro_f1_voted"] == 1 and found["macro_f1"] < 0.85
    # what is said of the reference has no vote
    lost = np.where(data.scored, predicted, "nonsense")
    again = {s.metric: s.value for s in run(data, ok(lost))}
    assert again["macro_f1_voted"] == found["macro_f1_voted"]


def test_the_embedding_of_a_method_with_labels_is_asked_too():
    data, predicted = make_data(n=400)
    kind = np.unique(data.cell_type.astype(str), return_inverse=True)[1]
    z = 20 * np.eye(4)[kind] + np.random.default_rng(0).normal(size=(400, 4))
    both = MethodOutput(labels=predicted, embedding=z)
    found = {s.metric: s for s in run(data, Candidate("m", "semi-supervised", 0, "ok", both))}
    assert found["macro_f1_knn"].value == pytest.approx(0.75, abs=0.02)  # t3 was never shown
    assert found["macro_f1"].value > 0.8
    bare = {s.metric: s for s in run(data, ok(predicted))}["macro_f1_knn"]
    assert bare.status == "not_applicable" and bare.reason == "the method gives no embedding"
    short = MethodOutput(labels=predicted, embedding=z[:9])
    lost = {s.metric: s for s in run(data, Candidate("m", "semi-supervised", 0, "ok", short))}
    assert lost["macro_f1_knn"].status == "failed" and lost["macro_f1"].status == "ok"


def test_rare_types_are_those_below_one_percent_of_the_labelled_cells():
    data, predicted = make_data(n=600)
    assert annotation.rare_types(data.cell_type) == {"t3"}  # 5 of 600
    found = {s.metric: s for s in run(data, ok(data.cell_type))}
    assert found["rare_f1"].value == found["rare_recall"].value == 1.0
    half = data.cell_type.copy()
    half[-5:-2] = "t0"  # 2 of 5 are found, and nothing else is called so
    found = {s.metric: s for s in run(data, ok(half))}
    assert found["rare_recall"].value == pytest.approx(2 / 5)
    assert found["rare_f1"].value == pytest.approx(2 * 2 / (5 + 2))
    data.cell_type[-5:] = "t0"
    found = {s.metric: s for s in run(data, ok(predicted))}
    assert found["rare_f1"].status == "not_applicable"
    assert "no scored cell is of a type below 1% of the cells" in found["rare_f1"].reason


def test_calibration_is_one_less_the_expected_error():
    data, _ = make_data(n=400)
    rng = np.random.default_rng(3)
    p = rng.dirichlet([1, 1, 1], 400)
    frame = pd.DataFrame(p, columns=["t0", "t1", "t2"])
    labels = np.asarray(frame.columns)[p.argmax(1)]
    c = Candidate("m", "semi-supervised", 0, "ok", MethodOutput(labels=labels, probabilities=frame))
    found = {s.metric: s for s in run(data, c)}["calibration"]
    confidence, right = p.max(1)[200:], labels[200:] == data.cell_type[200:]
    at = np.minimum((confidence * 15).astype(int), 14)
    error = sum(
        (at == b).mean() * abs(confidence[at == b].mean() - right[at == b].mean())
        for b in np.unique(at)
    )
    assert found.value == pytest.approx(1 - error)
    assert found.ci_low < found.ci_high < 1
    without = {s.metric: s for s in run(data, ok(labels))}["calibration"]
    assert without.status == "not_applicable" and "no probabilities" in without.reason


def test_an_embedding_without_labels_gets_those_of_its_neighbours():
    data, _ = make_data(n=400)
    kind = np.unique(data.cell_type.astype(str), return_inverse=True)[1]
    z = 20 * np.eye(4)[kind] + np.random.default_rng(0).normal(size=(400, 4))
    c = Candidate("m", "unsupervised", 0, "ok", MethodOutput(embedding=z))
    found = {s.metric: s.value for s in run(data, c)}
    assert found["accuracy"] == pytest.approx(0.975)  # all but the 5 of the type never shown
    short = Candidate("m", "unsupervised", 0, "ok", MethodOutput(embedding=z[:9]))
    assert {(s.status, s.reason) for s in run(data, short)} == {
        ("failed", "m: embedding: found 9 rows; valid: 400")
    }
