"""Pooled annotation: each cell once, the oracles' numbers, pairs, and holes that stay holes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from morebench.contract import MethodOutput
from morebench.errors import ContractError
from morebench.metrics import classification
from morebench.registry import METRICS
from morebench.stats.bootstrap import bootstrap, paired_bootstrap
from morebench.tasks import pooled
from morebench.tasks.contract import Candidate, TaskData
from morebench.tasks.held_out import held_out
from morebench.tasks.voting import vote

N, BATCHES = 240, ("b0", "b1", "b2")
RNG = np.random.default_rng(0)
TYPES = RNG.choice(["t0", "t1", "t2"], N, p=[0.6, 0.3, 0.1]).astype(object)
BATCH = RNG.choice(BATCHES, N, p=[0.5, 0.3, 0.2])
CLUSTER = RNG.integers(0, 30, N)


def split_data(batch, types=TYPES):
    scored = (BATCH == batch) & np.array([t is not None for t in types])
    shown = np.where(BATCH == batch, None, types)
    return TaskData(
        "d", f"lobo-{batch}", BATCH, types, np.full(N, np.nan), scored, shown, np.zeros((N, 2))
    )


def guess(skill, seed):
    """Predict all cells in each split; what is said of cells that are not hidden is wrong."""
    rng = np.random.default_rng(seed)
    right = np.where(rng.random(N) < skill, TYPES, rng.choice(["t0", "t1", "unknown"], N))
    return {b: np.where(BATCH == b, right, "nonsense") for b in BATCHES}, right.astype(str)


def entrant(labels, method="m", seed=0):
    """Return a run's candidate in each batch."""
    return {
        b: Candidate(method, "semi-supervised", seed, "ok", MethodOutput(labels=labels[b]))
        for b in BATCHES
    }


def batches(*runs, types=TYPES):
    return [held_out(split_data(b, types), [run[b] for run in runs], CLUSTER) for b in BATCHES]


def score(parts, fixed=(), n_boot=200, seed=1):
    return pooled.score(parts, fixed=fixed, n_boot=n_boot, seed=seed)


def test_values_are_those_of_sklearn_over_all_cells():
    labels, right = guess(0.7, 1)
    scores, differences = score(batches(entrant(labels)))
    truth, types = TYPES.astype(str), ["t0", "t1", "t2"]
    options = {"labels": types, "average": "macro", "zero_division": 0}
    expected = {
        "accuracy": accuracy_score(truth, right),
        "macro_f1": f1_score(truth, right, **options),
        "balanced_accuracy": recall_score(truth, right, **options),
    }
    voted = right.copy()
    for batch in BATCHES:  # only the hidden cells of a cluster vote
        voted[BATCH == batch] = vote(right[BATCH == batch], CLUSTER[BATCH == batch])
    expected["macro_f1_voted"] = f1_score(truth, voted, **options)
    assert expected["macro_f1_voted"] != pytest.approx(expected["macro_f1"])
    *scores, nearest = scores
    assert nearest.metric == "macro_f1_knn" and nearest.status == "not_applicable"
    assert nearest.reason == "the method gives no embedding" and math.isnan(nearest.value)
    assert {s.metric: s.value for s in scores} == pytest.approx(expected)
    assert set(expected) < {m.name for m in METRICS.values() if m.task == "annotation"}
    assert {(s.n_cells, s.n_batches, s.status, s.reason) for s in scores} == {(N, 3, "ok", "")}
    assert differences == []


def test_intervals_and_differences_are_those_of_the_plain_bootstrap():
    """In the pooled order, which is that of the batches."""
    (one, _), (two, _) = guess(0.8, 1), guess(0.6, 2)
    parts = batches(entrant(one, "one"), entrant(two, "two"))
    scores, differences = score(parts)
    order = np.concatenate([np.flatnonzero(BATCH == b) for b in BATCHES])

    def statistic(metric, labels):
        said = np.concatenate([labels[b][BATCH == b] for b in BATCHES]).astype(str)
        return classification.statistic(metric, TYPES[order].astype(str), said)

    found = {(s.method, s.metric): s for s in scores}
    for metric, (kind, function) in pooled.METRICS.items():
        if kind != "predicted":
            continue
        theirs = bootstrap(statistic(function, one), N, n_boot=200, seed=1)
        ours = found[("one", metric)]
        assert (ours.value, ours.ci_low, ours.ci_high) == pytest.approx(
            (theirs.estimate, theirs.low, theirs.high), abs=1e-12
        )
    first, second = (statistic(classification.macro_f1, labels) for labels in (one, two))
    theirs = paired_bootstrap(first, second, N, n_boot=200, seed=1)
    (ours,) = differences
    assert (ours.difference, ours.ci_low, ours.ci_high) == pytest.approx(
        (theirs.estimate, theirs.low, theirs.high), abs=1e-12
    )
    assert (ours.method, ours.other, ours.metric, ours.n_cells) == ("one", "two", "macro_f1", N)
    assert ours.ci_low > 0  # 0.8 against 0.6 of the cells


def test_an_embedding_is_asked_for_its_nearest_cells_whatever_its_method_says():
    labels, _ = guess(0.5, 1)
    kind = np.unique(TYPES.astype(str), return_inverse=True)[1]
    z = 20 * np.eye(3)[kind] + np.random.default_rng(0).normal(size=(N, 3))
    run = {
        b: replace(c, output=MethodOutput(labels=c.output.labels, embedding=z))
        for b, c in entrant(labels).items()
    }
    found = {s.metric: s for s in score(batches(run))[0]}
    assert found["macro_f1_knn"].value == found["macro_f1_knn"].ci_low == 1
    assert found["macro_f1"].value < 0.8


def test_equal_predictions_differ_by_nothing():
    labels, _ = guess(0.7, 1)
    _, (d,) = score(batches(entrant(labels, "one"), entrant(labels, "two")))
    assert (d.difference, d.ci_low, d.ci_high) == (0, 0, 0)


def test_runs_pair_by_seed_and_a_single_run_with_every_seed():
    runs = [("celltypist", 7), ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("knn", 3)]
    made = [
        entrant(guess(0.5 + 0.05 * i, i)[0], method, seed) for i, (method, seed) in enumerate(runs)
    ]
    scores, differences = score(batches(*made), fixed=("celltypist", "knn"))
    assert [(d.method, d.other, d.seed) for d in differences] == [
        ("celltypist", "a", 0), ("celltypist", "a", 1),
        ("celltypist", "b", 0), ("celltypist", "b", 1),
        ("celltypist", "knn", 7),
        ("a", "b", 0), ("a", "b", 1),
        ("a", "knn", 0), ("a", "knn", 1),
        ("b", "knn", 0), ("b", "knn", 1),
    ]  # fmt: skip
    f1 = {(s.method, s.seed): s.value for s in scores if s.metric == "macro_f1"}
    for d in differences:
        one = f1.get((d.method, d.seed), f1.get((d.method, 7)))
        two = f1.get((d.other, d.seed), f1.get((d.other, 3)))
        assert d.difference == pytest.approx(one - two)


def test_one_batch_without_an_answer_leaves_no_value():
    labels, _ = guess(0.7, 1)
    lost, bare = entrant(labels, "lost"), entrant(labels, "bare")
    lost["b0"] = Candidate("lost", "semi-supervised", 0, "unsupported", None, "no labels")
    lost["b2"] = Candidate("lost", "semi-supervised", 0, "timeout", None, "60 min")
    bare["b1"] = Candidate("bare", "semi-supervised", 0, "ok", MethodOutput(labels=TYPES[:5]))
    scores, differences = score(batches(entrant(labels, "good"), lost, bare))
    by = {s.method: s for s in scores if s.metric == "macro_f1"}
    assert len(scores) == 3 * len(pooled.METRICS) and by["good"].status == "ok"
    assert (by["lost"].status, by["lost"].reason) == (
        "timeout",
        "lobo-b0: no labels; lobo-b2: 60 min",
    )
    assert by["bare"].status == "failed"
    assert by["bare"].reason == "lobo-b1: bare: found 5 labels; valid: one a cell, 240"
    for s in scores:
        assert math.isnan(s.value) == math.isnan(s.ci_low) == (s.status != "ok")
        assert (s.n_cells, s.n_batches) == ((N, 3) if s.status == "ok" else (0, 0))
    assert [(d.method, d.other, d.status) for d in differences] == [
        ("good", "lost", "timeout"),
        ("good", "bare", "failed"),
        ("lost", "bare", "timeout"),
    ]
    assert all(math.isnan(d.difference) and d.n_cells == 0 for d in differences)
    assert differences[2].reason.count("lobo-") == 3


def test_types_that_no_other_batch_has_stay_and_are_named():
    types = TYPES.copy()
    rare = np.flatnonzero(BATCH == "b1")[:4]
    types[rare], types[np.flatnonzero(BATCH == "b0")[:6]] = "rare", None
    labels, _ = guess(1.0, 1)
    scores, _ = score(batches(entrant(labels), types=types))
    accuracy = scores[0]
    assert accuracy.n_cells == N - 6
    assert accuracy.value == pytest.approx((N - 10) / (N - 6))
    assert accuracy.reason == "never shown, so never right: lobo-b1: rare"


def test_batches_that_do_not_fit_together_are_refused():
    labels, _ = guess(0.7, 1)
    parts = batches(entrant(labels))
    with pytest.raises(ContractError, match="is scored in 2 of them; valid: one"):
        score([*parts, parts[0]])
    other = held_out(split_data("b2"), [entrant(labels, "other")["b2"]], CLUSTER)
    with pytest.raises(ContractError, match=r"lobo-b2: has the runs \('other', 0\); valid: .*'m'"):
        score([*parts[:2], other])
    nothing = np.array([], dtype=int)
    with pytest.raises(ContractError, match="lobo-b0: no scored cell has a usable label"):
        score([replace(parts[0], cells=nothing, truth=nothing.astype(str))])
