"""The open-set task against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score, roc_auc_score

from morebench.contract import MethodOutput
from morebench.registry import METRICS
from morebench.tasks import open_set
from morebench.tasks.contract import Candidate, TaskData

N = 120
RNG = np.random.default_rng(0)
TYPES = np.array(["a", "b", "new"], dtype=object)[np.arange(N) % 3]
SHOWN = np.where((TYPES != "new") & (np.arange(N) < 80), TYPES, None)
P = RNG.dirichlet([1, 1], N)


def data(types=TYPES, shown=SHOWN):
    scored = np.array([label is None for label in shown])
    return TaskData(
        "d", "newtype-new", np.full(N, "x"), types, np.full(N, np.nan), scored, shown,
        np.zeros((N, 2)),
    )  # fmt: skip


Z = RNG.normal(size=(N, 3)) + 1.5 * (TYPES == "new")[:, None]


def score(output, given=None, state="ok"):
    c = Candidate("m", "semi-supervised", 0, state, output, "why" if state != "ok" else "")
    return open_set.score(given or data(), [c], seed=0, threads=1, params={"n_boot": 100})


def run(labels=None, probabilities=None, given=None):
    frame = pd.DataFrame(P, columns=["a", "b"]) if probabilities is None else probabilities
    return score(MethodOutput(labels=labels, probabilities=frame), given)


def test_values_are_those_of_sklearn_on_the_scored_cells():
    scored = data().scored
    new, doubt = TYPES[scored] == "new", 1 - P.max(1)[scored]
    found = {s.metric: s for s in run()}
    assert list(found) == [m.name for m in METRICS.values() if m.task == "open_set"]
    assert found["unknown_auroc"].value == pytest.approx(roc_auc_score(new, doubt))
    assert found["unknown_auprc"].value == pytest.approx(average_precision_score(new, doubt))
    for s in found.values():
        assert s.n_cells == scored.sum() and s.ci_low < s.value < s.ci_high


def test_cells_called_unknown_come_first():
    labels = np.where(TYPES == "new", "unknown", "a")
    assert [s.value for s in run(labels)] == [1.0, 1.0]
    labels = np.where(TYPES == "new", "a", "unknown")
    assert run(labels)[0].value == 0.0


def test_a_novelty_of_its_own_stands_for_all_else():
    novelty = RNG.normal(size=N) + (TYPES == "new")
    frame, scored = pd.DataFrame(P, columns=["a", "b"]), data().scored
    output = MethodOutput(np.zeros((N, 2)), labels=np.full(N, "unknown"), probabilities=frame)
    output.novelty = novelty
    found = {s.metric: s.value for s in score(output)}
    new = TYPES[scored] == "new"
    assert found["unknown_auroc"] == pytest.approx(roc_auc_score(new, novelty[scored]))
    assert found["unknown_auprc"] == pytest.approx(average_precision_score(new, novelty[scored]))
    output.novelty = novelty[1:]
    for s in score(output):
        assert s.status == "failed" and f"novelty of {N - 1} cells; valid: {N}" in s.reason


def test_no_new_type_among_the_scored_is_not_applicable():
    shown = SHOWN.copy()
    shown[2] = "new"
    for s in run(given=data(shown=shown)):
        assert s.status == "not_applicable" and "0 of 65 scored cells" in s.reason


def test_an_embedding_is_scored_by_its_distance_to_the_shown_cells():
    shown, scored = np.array([label is not None for label in SHOWN]), data().scored
    far = np.sort(cdist(Z, Z[shown]), axis=1)[:, :15].mean(axis=1)[scored]
    new = TYPES[scored] == "new"
    found = {s.metric: s for s in score(MethodOutput(embedding=Z))}
    assert found["unknown_auroc"].value == pytest.approx(roc_auc_score(new, far))
    assert found["unknown_auprc"].value == pytest.approx(average_precision_score(new, far))
    assert 0.6 < found["unknown_auroc"].value < 1
    for s in found.values():
        assert s.n_cells == scored.sum() and s.ci_low < s.value < s.ci_high


def test_truth_and_scale_have_no_part_in_the_distance():
    output = MethodOutput(embedding=Z)
    first = open_set.novelty(Candidate("m", "unsupervised", 0, "ok", output), data())
    for given in (data(types=TYPES[::-1].copy()), data(shown=np.where(SHOWN == "a", "b", SHOWN))):
        again = open_set.novelty(Candidate("m", "unsupervised", 0, "ok", output), given)
        np.testing.assert_array_equal(first, again)
    turned = MethodOutput(embedding=100 * Z[:, ::-1] + 7)
    np.testing.assert_allclose(
        open_set.novelty(Candidate("m", "unsupervised", 0, "ok", turned), data()), 100 * first
    )


def test_probabilities_of_the_method_stand_before_its_embedding():
    frame = pd.DataFrame(P, columns=["a", "b"])
    both = score(MethodOutput(embedding=Z, probabilities=frame))
    assert [s.value for s in both] == [s.value for s in run()]
    assert [s.value for s in both] != [s.value for s in score(MethodOutput(embedding=Z))]


def test_what_failed_or_lacks_both_is_typed():
    assert {(s.status, s.reason) for s in score(None, state="timeout")} == {("timeout", "why")}
    for output, reason in (
        (MethodOutput(probabilities=pd.DataFrame(P[:5])), "probabilities of 5 cells; valid: 120"),
        (MethodOutput(embedding=Z[:5]), "embedding: found 5 rows; valid: 120"),
        (MethodOutput(embedding=np.where(Z > 2, np.nan, Z)), "NaN"),
        (MethodOutput(), "no novelty, probabilities or embedding"),
    ):
        found = score(output)
        assert len(found) == 2
        for s in found:
            assert s.status == "failed" and np.isnan(s.value) and reason in s.reason
