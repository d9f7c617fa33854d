"""Bad input that only methods and tasks can meet: a typed result or a reason, never a number.

What is asked of methods is asked of every one in the registry, so of a new one too. A method
runs as in its own process (``child.run``), on files that the workflow's own code made.
"""

import numpy as np
import pandas as pd
import pytest
from tests.refusals import refused
from tests.world import World

from morebench import canary_world as canary
from morebench import threads
from morebench.config import load
from morebench.contract import MethodOutput
from morebench.errors import DataError
from morebench.io.splits import read_split
from morebench.registry import ACCEPTED_STATES, METHODS, METRICS
from morebench.selftest.titrate import TITRATIONS
from morebench.tasks import annotation, crosstab, doublets, integration, pooled
from morebench.tasks.contract import Candidate
from morebench.tasks.held_out import held_out

ONLY, COMMON = "type01", "type02"
LABEL_READERS = [n for n, m in METHODS.items() if m.track == "semi-supervised"]
DOUBLETS = [n for n, m in METHODS.items() if "doublet_score" in m.outputs]
ANNOTATED = [n for n, m in METHODS.items() if {"labels", "embedding"} & set(m.outputs)]
INTEGRATED = [n for n, m in METHODS.items() if {"embedding", "graph"} & set(m.outputs)]


@pytest.fixture(scope="module", autouse=True)
def own_threads():
    """The child limits the threads of its own process; this one is the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "limit", lambda n: None)
        yield


@pytest.fixture(scope="module")
def one_home(tmp_path_factory):
    """Cells whose first type lives in one batch, the held-out one, and nowhere else."""
    cells = canary.source_cells(0)
    away = (cells.obs["batch"] != canary.HELD_OUT) & (cells.obs["cell_type"] == ONLY)
    cells = cells[~away.to_numpy()].copy()
    return World(tmp_path_factory.mktemp("one-home"), cells, tasks=["annotation", "doublets"])


@pytest.fixture(scope="module")
def one_batch(tmp_path_factory):
    """Cells of one batch: the configuration allows no task that compares batches."""
    cells = canary.source_cells(0)
    cells.obs["batch"] = "only"
    splits = {"partial": {"fraction": 0.5, "seed": 0}}
    return World(tmp_path_factory.mktemp("one-batch"), cells, tasks=["doublets"], splits=splits)


def told(state, reason, may_refuse=False):
    """Assert that a method ended with an output, or with a reason in one line."""
    if not may_refuse:
        assert state == "ok", (state, reason)
    assert state in ACCEPTED_STATES, (state, reason)
    assert (reason == "") == (state == "ok")
    assert "\n" not in reason


# --- a label seen only in the query -----------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ANNOTATED)
def test_a_label_seen_only_in_the_query_is_never_right_and_named(name, one_home):
    split = canary.SPLIT
    candidate = one_home.candidate(name, split)
    told(candidate.state, candidate.reason)
    found = one_home.scores(annotation, split, candidate)
    if METHODS[name].outputs == ("graph",):
        return
    _, data = one_home.data(split)
    index = data.labelled
    share = float((data.cell_type[index] == ONLY).mean())
    assert 0.1 < share < 0.5
    found_by_all = ("accuracy", "macro_f1", "balanced_accuracy", "macro_f1_voted")
    for metric in found_by_all:
        score = found[metric]
        assert score.status == "ok" and ONLY in score.reason
        assert score.coverage == pytest.approx(1 - share)
    assert found["accuracy"].value <= 1 - share
    assert found["balanced_accuracy"].value <= 0.75  # of four types, one is out of reach
    output = annotation.with_labels(candidate, data).output
    assert ONLY not in set(output.labels) and ONLY not in set(output.probabilities)
    # the tables over all held-out batches
    batches = [held_out(data, [candidate], np.zeros(len(data.batch), int))]
    scores, _ = pooled.score(batches, n_boot=10, seed=0)
    assert all(s.status == "ok" and ONLY in s.reason for s in scores if s.metric in found_by_all)
    types = crosstab.types_table(crosstab.crosstab(batches)).set_index("cell_type")
    assert types.loc[ONLY, ["recall", "f1"]].tolist() == [0, 0]
    assert np.isnan(types.loc[ONLY, "precision"])


# --- a type in one batch only -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", INTEGRATED)
def test_a_type_in_one_batch_shows_in_the_coverage_of_what_compares_batches(name, one_home):
    split = canary.SPLIT if METHODS[name].track == "semi-supervised" else "all"
    candidate = one_home.candidate(name, split)
    told(candidate.state, candidate.reason)
    found = one_home.scores(integration, "all", candidate)
    _, data = one_home.data("all")
    lonely = float((data.cell_type[data.labelled] == ONLY).mean())
    if METHODS[name].outputs == ("graph",):
        assert found["total"].status == "not_applicable"
        return
    for metric in ("bras", "kbet", "cilisi"):
        assert found[metric].coverage == pytest.approx(1 - lonely)
    assert found["isolated_labels"].coverage == pytest.approx(lonely)
    for metric in ("ilisi", "clisi", "pcr", "graph_connectivity"):
        assert found[metric].status == "ok" and found[metric].coverage == 1
    assert found["total"].coverage == pytest.approx(1 - lonely)


def test_types_that_are_batches_leave_no_total(one_home):
    """Nothing tells a batch from a type there: no method can be right or wrong."""
    _, data = one_home.data("all")
    output = MethodOutput(embedding=data.pca_np)
    candidate = Candidate("x", "unsupervised", 0, "ok", output)
    batch = np.array([str(t) for t in data.cell_type])
    found = one_home.scores(integration, "all", candidate, batch=batch)
    for metric in ("bras", "kbet", "cilisi", "scgraph", "batch_total", "total"):
        assert found[metric].status == "not_applicable", metric


# --- fewer than two batches -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_one_batch_is_unsupported_or_has_no_score_that_compares_batches(name, one_batch):
    candidate = one_batch.candidate(name, "partial")
    told(candidate.state, candidate.reason, may_refuse=True)
    if candidate.state == "unsupported":
        assert "two batches" in candidate.reason
    if name not in INTEGRATED:
        return
    found = one_batch.scores(integration, "partial", candidate)
    if candidate.state != "ok":
        assert {s.status for s in found.values()} == {candidate.state}
        return
    for metric, score in found.items():
        of_batches = METRICS[metric].aspect in ("batch", "structure")
        if of_batches or metric in ("batch_total", "total"):
            assert score.status == "not_applicable", metric
            assert "one batch only among the scored cells: only" in score.reason
    assert {found[m].status for m in ("isolated_labels",)} == {"not_applicable"}
    if METHODS[name].outputs != ("graph",):
        assert found["nmi_leiden"].status == found["bio_total"].status == "ok"


# --- a reference with one class ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", LABEL_READERS)
def test_one_class_is_refused_by_what_learns_from_labels(name, one_home):
    state, reason, output = one_home.run(name, canary.SPLIT, shown=COMMON)
    assert (state, output) == ("failed", None)
    assert reason.startswith("DataError: ") and "\n" not in reason
    assert "class" in reason and COMMON in reason and "2" in reason
    found = one_home.scores(annotation, canary.SPLIT, Candidate(name, "", 0, state, None, reason))
    assert {(s.status, s.reason) for s in found.values()} == {("failed", reason)}


@pytest.mark.parametrize("shown", [COMMON, None])
def test_labels_of_neighbours_need_two_classes(shown, one_home):
    _, data = one_home.data(canary.SPLIT)
    candidate = Candidate("x", "unsupervised", 0, "ok", MethodOutput(embedding=data.pca_np))
    kept = np.array([t if t is not None and t == shown else None for t in data.shown], object)
    found = one_home.scores(annotation, canary.SPLIT, candidate, shown=kept)
    data.shown = kept
    words = f"the split shows {int(shown is not None)} classes ({shown or '(none)'})"
    assert {s.status for s in found.values()} == {"not_applicable"}
    assert all(s.reason.startswith(words) for s in found.values())
    batch = held_out(data, [candidate], np.zeros(len(data.batch), int))
    scores, _ = pooled.score([batch], n_boot=10, seed=0)
    assert {s.status for s in scores} == {"not_applicable"}
    assert all(words in s.reason and np.isnan(s.value) for s in scores)
    assert crosstab.crosstab([batch]).empty


@pytest.mark.parametrize("key", ["lobo", "unseen", "newtype"])
def test_a_reference_of_one_class_is_refused_before_anything_runs(key, config_of, h5ad):
    from morebench.preflight import check

    if key == "newtype":
        path = h5ad(cell_type=["T cell", "B cell", None] * 20)
        item, left = "B cell", "T cell"
    else:
        kinds = [("T cell", "B cell")[i % 2] if i % 3 == 0 else "T cell" for i in range(60)]
        path, item, left = h5ad(cell_type=kinds), "b1", "T cell"
    content = config_of(path, splits={key: [item]})
    text = refused(
        lambda: check(load(content)), f"datasets.d, splits.{key}", repr(item), "two types or more"
    )
    assert f"one cell type is left ({left})" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in INTEGRATED if METHODS[n].outputs != ("graph",)])
def test_cells_of_one_type_have_no_score_of_types(name, one_home):
    split = canary.SPLIT if METHODS[name].track == "semi-supervised" else "all"
    candidate = one_home.candidate(name, split)
    told(candidate.state, candidate.reason)
    _, data = one_home.data("all")
    kept = np.array([t if t == COMMON else None for t in data.cell_type], object)
    found = one_home.scores(integration, "all", candidate, cell_type=kept)
    for metric, score in found.items():
        if METRICS[metric].aspect in ("bio", "structure") or metric in ("bio_total", "total"):
            assert score.status == "not_applicable", metric
    assert found["bras"].status == "ok"


# --- no doublet truth -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", DOUBLETS)
@pytest.mark.parametrize("truth", ["none", "no doublet", "doublets only"])
def test_without_doublets_and_singlets_there_is_no_score(name, truth, one_home):
    candidate = one_home.candidate(name, "all")
    assert candidate.state == "ok", candidate.reason
    n = candidate.output.doublet_score.shape
    value = {"none": np.nan, "no doublet": 0.0, "doublets only": 1.0}[truth]
    found = one_home.scores(doublets, "all", candidate, is_doublet=np.full(n, value))
    assert {s.status for s in found.values()} == {"not_applicable"}
    assert all("cells with truth" in s.reason for s in found.values())
    some = np.full(n, np.nan)
    some[:20], some[:4] = 0, 1
    found = one_home.scores(doublets, "all", candidate, is_doublet=some)
    assert {(s.status, s.n_cells) for s in found.values()} == {("ok", 20)}


# --- titration --------------------------------------------------------------------------


@pytest.mark.parametrize("name", TITRATIONS)
def test_titrations_need_two_batches_or_leave_the_cells_alone(name, one_home):
    _, data = one_home.data("all")
    x, labels = data.pca_np[data.labelled], data.cell_type[data.labelled].astype(str)
    batch = np.full(len(x), "only")
    if name == "batch_strength":
        with pytest.raises(DataError, match="found 1 batches and 4 cell types; valid: 2 or more"):
            TITRATIONS[name](x, labels, batch, 0.5, 0)
    else:
        assert np.isfinite(TITRATIONS[name](x, labels, batch, 0.5, 0)).all()


def test_types_that_no_run_may_know_are_told_by_the_split(one_home):
    """The lists above rest on it: the type is scored, and never shown."""
    table = read_split(one_home.paths.split(canary.DATASET, canary.SPLIT))
    truth = pd.Series(one_home.data("all")[1].cell_type)
    assert ONLY not in set(table["label"].dropna())
    assert (table["scored"] & (truth == ONLY)).sum() > 10
