"""The integration task: values, typed missing ones, coverage, one failure alone."""

import logging
import math

import numpy as np
import pytest
from sklearn.metrics import silhouette_samples as _silhouette

from morebench.contract import MethodOutput
from morebench.metrics import clustering, connectivity, lisi, totals
from morebench.metrics.neighbors import exact_neighbors
from morebench.registry import METRICS
from morebench.sample import sample_rows
from morebench.tasks import integration
from morebench.tasks.contract import Candidate, TaskData

NAMES = [m.name for m in METRICS.values() if m.task == "integration"]
BATCH_METRICS = (
    *("bras", "ilisi", "kbet", "graph_connectivity", "pcr", "cilisi"),
    *("isolated_labels", "scgraph"),
)
TYPE_METRICS = (
    *("nmi_leiden", "ari_leiden", "silhouette_label", "clisi", "nmi_kmeans", "ari_kmeans"),
    "isolated_labels",
    "scgraph",
)


def make_data(n=150, n_types=3, n_batches=2, seed=0, *, shift=1.0):
    """Make cells of some types and batches; the embedding is the truth with noise."""
    rng = np.random.default_rng(seed)
    types, batch = np.arange(n) % n_types, rng.integers(n_batches, size=n)
    x = 6 * rng.normal(size=(n_types, 5))[types] + rng.normal(size=(n, 5))
    pca = x + shift * rng.normal(size=(n_batches, 5))[batch]
    data = TaskData(
        dataset="d",
        split="all",
        batch=np.array([f"b{b}" for b in batch]),
        cell_type=np.array([f"t{t}" for t in types], dtype=object),
        is_doublet=np.full(n, np.nan),
        scored=np.ones(n, dtype=bool),
        shown=np.full(n, None, dtype=object),
        pca_np=pca.astype(np.float32),
    )
    return data, x.astype(np.float32)


def ok(x, method="m", seed=0):
    return Candidate(method, "unsupervised", seed, "ok", MethodOutput(embedding=x))


def by_name(data, candidate, seed=0):
    scores = integration.score(data, [candidate], seed=seed, threads=1, params={"n_boot": 5})
    assert [s.metric for s in scores] == integration.metric_names()
    for s in scores:
        assert (s.method, s.track, s.seed) == (candidate.method, candidate.track, candidate.seed)
        assert math.isfinite(s.value) == (s.status == "ok")
        assert bool(s.reason) == (s.status != "ok")
    return {s.metric: s for s in scores}


def test_every_metric_of_the_registry_is_computed():
    assert sorted(integration.metric_names()) == sorted(NAMES)
    data, x = make_data()
    data.batch[data.cell_type == "t2"] = "b0"
    found = by_name(data, ok(x))
    assert {s.status for s in found.values()} == {"ok"}
    assert all(0 <= s.value <= 1 for s in found.values())


def test_values_totals_and_seeds():
    data, x = make_data(shift=2.0)
    x = np.random.default_rng(0).normal(size=x.shape) + x / 6
    found = by_name(data, ok(x), seed=3)
    near = exact_neighbors(x)
    labels = data.cell_type.astype(str)
    assert found["ilisi"].value == lisi.ilisi(near, data.batch)
    graph = connectivity.umap_connectivities(near.subset(15))
    leiden = clustering.leiden_nmi_ari(graph, labels, seed=45)
    assert (found["nmi_leiden"].value, found["ari_leiden"].value) == leiden
    kmeans = clustering.kmeans_nmi_ari(x, labels, seed=3)
    assert (found["nmi_kmeans"].value, found["ari_kmeans"].value) == kmeans
    values = {name: s.value for name, s in found.items()}
    batch = np.mean([values[n] for n in ("bras", "ilisi", "kbet", "graph_connectivity", "pcr")])
    bio = np.mean([values[n] for n in ("nmi_leiden", "ari_leiden", "silhouette_label", "clisi")])
    assert values["batch_total"] == pytest.approx(batch)
    assert values["bio_total"] == pytest.approx(bio)
    assert values["total"] == pytest.approx(0.4 * batch + 0.6 * bio)
    in_totals = {m.name for m in METRICS.values() if m.in_total}
    assert in_totals == {*totals.BATCH_COMPONENTS, *totals.BIO_COMPONENTS}
    assert found["isolated_labels"].status == "not_applicable"


def test_same_inputs_same_scores():
    data, x = make_data()
    first, again = (by_name(data, ok(x / 4)) for _ in range(2))
    assert repr(first) == repr(again)


def test_only_scored_cells_with_a_label_count():
    data, x = make_data(n=200)
    data.scored[:30] = False
    data.cell_type[30:50] = None
    found = by_name(data, ok(x))
    assert found["clisi"].n_cells == 150
    assert found["clisi"].coverage == pytest.approx(150 / 170)
    x = x.copy()
    x[:50] = 1e3 * np.random.default_rng(0).normal(size=(50, 5))
    data.pca_np[:50] = -7
    assert repr(by_name(data, ok(x))) == repr(found)


def test_coverage_of_a_metric_and_of_its_total():
    data, x = make_data(n=200)
    data.cell_type[:8] = "rare"
    data.batch[data.cell_type == "t1"] = "b0"
    found = by_name(data, ok(x))
    in_one = (data.cell_type == "t1").sum()
    assert found["kbet"].n_cells == 200 - 8 - in_one
    assert found["kbet"].coverage == pytest.approx(1 - (8 + in_one) / 200)
    assert found["bras"].coverage == pytest.approx(1 - in_one / 200)
    assert found["cilisi"].coverage == pytest.approx(1 - in_one / 200)
    assert found["isolated_labels"].n_cells == in_one
    assert found["batch_total"].coverage == found["total"].coverage == found["kbet"].coverage
    assert found["bio_total"].coverage == 1


@pytest.mark.parametrize("state", ["failed", "out_of_memory", "timeout", "unsupported"])
def test_candidates_that_are_not_ok_stay_as_typed_missing_scores(state):
    data, x = make_data()
    missing = Candidate("bad", "control", 4, state, None, "because")
    scores = integration.score(data, [missing, ok(x)], seed=0, threads=1, params={})
    assert len(scores) == 2 * len(NAMES)
    for s in scores[: len(NAMES)]:
        assert (s.method, s.track, s.seed) == ("bad", "control", 4)
        assert (s.status, s.reason, s.n_cells, s.coverage) == (state, "because", 0, 0)
        assert math.isnan(s.value)
    assert scores[-1].status == "ok"


def test_one_batch():
    data, x = make_data(n_batches=1)
    found = by_name(data, ok(x))
    missing = {name for name, s in found.items() if s.status == "not_applicable"}
    assert missing == {*BATCH_METRICS, "batch_total", "total"}
    for name in BATCH_METRICS:
        if name != "isolated_labels":
            assert found[name].reason == "one batch only among the scored cells: b0"
    assert "bras" in found["total"].reason and "pcr" in found["total"].reason


def test_one_type():
    data, x = make_data(n_types=1)
    found = by_name(data, ok(x))
    missing = {name for name, s in found.items() if s.status == "not_applicable"}
    assert missing == {*TYPE_METRICS, "bio_total", "total"}
    assert "one cell type only" in found["clisi"].reason


def test_types_in_one_batch_each():
    data, x = make_data(n_types=2)
    data.batch[:] = np.where(data.cell_type == "t0", "b0", "b1")
    found = by_name(data, ok(x))
    missing = {name for name, s in found.items() if s.status == "not_applicable"}
    assert missing == {"bras", "kbet", "cilisi", "scgraph", "batch_total", "total"}
    assert "cell types have 10 cells" in found["scgraph"].reason


def test_no_cells_and_few_cells():
    data, x = make_data()
    data.cell_type[:] = None
    assert {s.status for s in by_name(data, ok(x)).values()} == {"not_applicable"}
    data, x = make_data(n=1)
    assert {s.status for s in by_name(data, ok(x)).values()} <= {"not_applicable", "ok"}
    data, x = make_data(n=12)
    found = by_name(data, ok(x))
    assert found["silhouette_label"].status == "ok"
    assert found["kbet"].status == "not_applicable" and "10 cells" in found["kbet"].reason


def test_a_metric_that_breaks_is_recorded_and_logged_and_loses_no_other(monkeypatch, caplog):
    def broken(embedding):
        raise ZeroDivisionError("boom")

    monkeypatch.setitem(integration._COMPUTE, "ilisi", broken)
    data, x = make_data()
    with caplog.at_level(logging.ERROR):
        found = by_name(data, ok(x))
    assert found["ilisi"].status == "failed"
    assert found["ilisi"].reason == "ZeroDivisionError: boom"
    assert "ilisi failed for m" in caplog.text and "Traceback" in caplog.text
    for name in ("batch_total", "total"):
        assert found[name].status == "failed" and "ilisi" in found[name].reason
    assert found["clisi"].status == found["bio_total"].status == "ok"


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (MethodOutput(), "no embedding"),
        (MethodOutput(embedding=np.zeros((3, 2))), "3 rows; valid: 150"),
        (MethodOutput(embedding=np.full((150, 2), np.nan)), "150 cells hold NaN"),
    ],
)
def test_embeddings_that_cannot_be_scored_fail_with_the_reason(output, message, caplog):
    data, x = make_data()
    bad = Candidate("bad", "unsupervised", 0, "ok", output)
    scores = integration.score(data, [bad, ok(x)], seed=0, threads=1, params={})
    assert all(s.status == "failed" and message in s.reason for s in scores[: len(NAMES)])
    assert message in caplog.text
    assert scores[-1].status == "ok"


def test_degenerate_embeddings_give_typed_scores():
    """All cells on one point, or at the origin: no crash, no number out of 0..1."""
    data, x = make_data()
    for value in (0.0, 3.0):
        for s in by_name(data, ok(np.full_like(x, value))).values():
            assert s.status in ("ok", "not_applicable"), (s.metric, s.reason)
            assert s.status != "ok" or -0.1 <= s.value <= 1


def test_gamers_do_not_win():
    """The label oracle keeps biology, a random embedding mixes batches; neither has both."""
    data, x = make_data(n=240, shift=3.0)
    noise = np.random.default_rng(0).normal(size=x.shape)
    good, random = by_name(data, ok(x)), by_name(data, ok(noise))
    assert random["ilisi"].value > 0.8 and random["bio_total"].value < 0.5
    assert good["total"].value > random["total"].value + 0.2


def test_a_sample_of_cells_states_its_error():
    """The value on all cells lies within the interval of a few samples, or close to it."""
    data, x = make_data(n=3000, n_types=4, n_batches=3, seed=2, shift=0.4)
    whole = by_name(data, ok(x))
    params = {"n_boot": 5, "sample": 1200, "repeats": 4}
    found = integration.score(data, [ok(x)], seed=0, threads=1, params=params)
    again = integration.score(data, [ok(x)], seed=0, threads=1, params=params)
    assert found == again
    for s in found:
        if s.status != "ok":
            assert s.status == whole[s.metric].status
            continue
        assert s.ci_low <= s.value <= s.ci_high
        assert s.n_cells <= 1200 and s.coverage <= 0.4
        # neighbours lie further apart in fewer cells: a bias that no draw shows
        assert abs(s.value - whole[s.metric].value) <= (s.ci_high - s.ci_low) / 2 + 0.03, s.metric
    total = {s.metric: s for s in found}["total"]
    assert total.ci_high - total.ci_low < 0.1
    assert math.isnan(whole["total"].ci_low)


def test_draws_are_those_of_the_seed_and_their_mean_is_the_value():
    data, x = make_data(n=600, shift=0.4)
    one = [
        integration.score(
            data, [ok(x)], seed=0, threads=1, params={"sample": 200, "repeats": repeats}
        )
        for repeats in (2, 3)
    ]
    by = [{s.metric: s for s in scores} for scores in one]
    rows = [
        sample_rows(
            np.array([f"{b}|{t}" for b, t in zip(data.batch, data.cell_type, strict=True)]), 200, r
        )
        for r in (0, 1)
    ]
    values = [float(np.mean(_silhouette(x[r], data.cell_type[r].astype(str)))) for r in rows]
    found = by[0]["silhouette_label"]
    assert found.value == pytest.approx(np.mean([(v + 1) / 2 for v in values]), abs=1e-6)
    half = 12.706 * np.std([(v + 1) / 2 for v in values], ddof=1) / np.sqrt(2)
    assert found.ci_high - found.value == pytest.approx(half, rel=1e-3, abs=1e-5)
    assert by[1]["silhouette_label"].value != found.value


def test_a_sample_as_large_as_the_data_is_the_data():
    data, x = make_data()
    plain = integration.score(data, [ok(x)], seed=0, threads=1, params={})
    same = integration.score(data, [ok(x)], seed=0, threads=1, params={"sample": 150, "repeats": 3})
    assert plain == same
