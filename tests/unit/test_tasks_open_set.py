"""The open-set task against scikit-learn."""

import numpy as np
import pandas as pd
import pytest
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


def run(labels=None, probabilities=None, given=None, state="ok"):
    frame = pd.DataFrame(P, columns=["a", "b"]) if probabilities is None else probabilities
    output = MethodOutput(labels=labels, probabilities=frame) if state == "ok" else None
    c = Candidate("m", "semi-supervised", 0, state, output, "why" if state != "ok" else "")
    return open_set.score(given or data(), [c], seed=0, threads=1, params={"n_boot": 100})


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


def test_no_new_type_among_the_scored_is_not_applicable():
    shown = SHOWN.copy()
    shown[2] = "new"
    for s in run(given=data(shown=shown)):
        assert s.status == "not_applicable" and "0 of 65 scored cells" in s.reason


def test_what_failed_or_lacks_probabilities_is_typed():
    assert {(s.status, s.reason) for s in run(state="timeout")} == {("timeout", "why")}
    short = pd.DataFrame(P[:5], columns=["a", "b"])
    for s in run(probabilities=short):
        assert s.status == "failed" and "probabilities of 5 cells; valid: 120" in s.reason
