"""The integration task on graphs: what is defined on both is the same, the rest is typed."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from morebench.contract import MethodOutput
from morebench.metrics import graph_parts
from morebench.metrics.connectivity import graph_connectivity, umap_connectivities
from morebench.metrics.neighbors import K_GRAPH, exact_neighbors
from morebench.registry import METHODS, METRICS, TASKS
from morebench.tasks import integration
from morebench.tasks.contract import Candidate, TaskData

ON_BOTH = ("graph_connectivity", "nmi_leiden", "ari_leiden")


def make_data(seed=0, n=300, *, gaussian=False):
    """Make three types on a plane, the first of them in two islands."""
    rng = np.random.default_rng(seed)
    place = np.arange(n) % 4
    centre = np.array([[0, 0], [30, 0], [0, 8], [9, 9]])
    noise = 2.5 * rng.normal(size=(n, 2)) if gaussian else rng.uniform(-2, 2, size=(n, 2))
    x = (centre[place] + noise).astype(np.float32)
    data = TaskData(
        dataset="d",
        split="all",
        batch=np.array([f"b{b}" for b in rng.integers(2, size=n)]),
        cell_type=np.array(["t0", "t0", "t1", "t2"], dtype=object)[place],
        is_doublet=np.full(n, np.nan),
        scored=np.ones(n, dtype=bool),
        shown=np.full(n, None, dtype=object),
        pca_np=x,
    )
    return data, x


def graph_of(x):
    return umap_connectivities(exact_neighbors(x, K_GRAPH))


def by_name(data, output, seed=0):
    candidate = Candidate("m", "unsupervised", 0, "ok", output)
    scores = integration.score(data, [candidate], seed=seed, threads=1, params={})
    assert [s.metric for s in scores] == integration.metric_names()
    for s in scores:
        assert math.isfinite(s.value) == (s.status == "ok")
        graph_only = output.embedding is None and s.metric == "graph_connectivity"
        assert bool(s.reason) == (s.status != "ok" or graph_only)
    return {s.metric: s for s in scores}


def test_graphs_take_part_in_integration():
    assert set(METHODS["bbknn"].outputs) & set(TASKS["integration"].outputs) == {"graph"}


@pytest.mark.parametrize("gaussian", [False, True])
def test_a_graph_of_an_embeddings_own_neighbours_scores_as_the_embedding(gaussian):
    seed = 3
    data, x = make_data(seed, gaussian=gaussian)
    given = by_name(data, MethodOutput(embedding=x), seed)
    found = by_name(data, MethodOutput(graph=graph_of(x)), seed)
    for name in ("nmi_leiden", "ari_leiden"):
        assert found[name] == given[name] and 0 < found[name].value
    assert found["graph_connectivity"].value == pytest.approx(2.5 / 3, abs=0.03)
    # an outlier that is nobody's neighbour is left out of directed parts only
    lost = found["graph_connectivity"].value - given["graph_connectivity"].value
    assert (0 <= lost < 0.03) if gaussian else lost == 0


def test_what_needs_an_embedding_is_not_applicable_and_there_is_no_total():
    data, x = make_data()
    found = by_name(data, MethodOutput(graph=graph_of(x)))
    assert {n for n, s in found.items() if s.status == "ok"} == set(ON_BOTH)
    totals = {"batch_total", "bio_total", "total"}
    for name, score in found.items():
        if name in ON_BOTH:
            assert (score.n_cells, score.coverage) == (300, 1)
            continue
        assert (score.status, score.n_cells) == ("not_applicable", 0)
        words = "missing component" if name in totals else "needs an embedding"
        assert score.reason.startswith(words), name
    assert "silhouette_label: needs an embedding" in found["bio_total"].reason
    assert set(found) == {m.name for m in METRICS.values() if m.task == "integration"}


def test_a_metric_by_entry_needs_an_embedding_too(monkeypatch):
    spec = METRICS["bras"].__class__("own", "Own", "integration", "bio", entry="no.module:f")
    monkeypatch.setattr(integration, "METRICS", {**METRICS, "own": spec})
    data, x = make_data()
    assert by_name(data, MethodOutput(graph=graph_of(x)))["own"].status == "not_applicable"


def test_the_graph_is_restricted_to_scored_cells_with_a_label():
    data, x = make_data()
    data.scored[:40] = False
    data.cell_type[40:60] = None
    kept = slice(60, None)
    graph = sp.lil_matrix((300, 300), dtype=np.float32)
    graph[kept, kept] = graph_of(x[kept])
    # edges of cells that do not count join everything
    graph[0, :], graph[:, 0], graph[50, :], graph[:, 50] = 1, 1, 1, 1
    found = by_name(data, MethodOutput(graph=graph.tocsr()))
    given = by_name(data, MethodOutput(embedding=x))
    for name in ON_BOTH:
        assert replace(found[name], reason="") == given[name]
    assert found["graph_connectivity"].reason == integration.OF_A_GRAPH
    assert found["nmi_leiden"].n_cells == 240
    assert found["nmi_leiden"].coverage == pytest.approx(240 / 260)


def test_an_embedding_beside_a_graph_is_what_is_scored():
    data, x = make_data()
    both = by_name(data, MethodOutput(embedding=x, graph=sp.csr_matrix((300, 300))))
    assert repr(both) == repr(by_name(data, MethodOutput(embedding=x)))


def test_a_graph_that_mixes_types_scores_lower():
    data, x = make_data()
    rng = np.random.default_rng(0)
    order = rng.permutation(300)
    mixed = graph_of(x)[order][:, order]
    good, bad = (by_name(data, MethodOutput(graph=g)) for g in (graph_of(x), mixed))
    for name in ("nmi_leiden", "ari_leiden"):
        assert good[name].value > 0.7 > 0.2 > bad[name].value


def test_degenerate_graphs_give_typed_scores():
    data, _ = make_data()
    empty = by_name(data, MethodOutput(graph=sp.csr_matrix((300, 300), dtype=np.float32)))
    # no edge: every cell is a part and a cluster of its own
    assert empty["graph_connectivity"].value == pytest.approx((1 / 150 + 2 / 75) / 3)
    assert empty["ari_leiden"].value == pytest.approx(0, abs=1e-9)
    data.cell_type[:] = "t0"
    one = by_name(data, MethodOutput(graph=sp.identity(300, format="csr")))
    assert one["nmi_leiden"].status == "not_applicable"
    assert "one cell type only" in one["nmi_leiden"].reason


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (MethodOutput(), "no embedding and no graph"),
        (MethodOutput(graph=sp.csr_matrix((3, 3))), r"graph is \(3, 3\); valid: 300 x 300"),
    ],
)
def test_graphs_that_cannot_be_scored_fail_with_the_reason(output, message, caplog):
    data, _ = make_data()
    found = by_name(data, output)
    assert {s.status for s in found.values()} == {"failed"}
    for score in found.values():
        assert re.search(message, score.reason)
    assert "cannot be scored" in caplog.text


def test_graph_connectivity_against_parts_counted_one_by_one():
    rng = np.random.default_rng(1)
    a = sp.random(90, 90, density=0.012, random_state=1, format="csr")
    graph = a + a.T
    labels = rng.choice(["x", "y", "z"], 90)
    shares = []
    for label in "xyz":
        cells = labels == label
        n, parts = connected_components(graph[cells][:, cells], connection="strong")
        assert n > 1
        shares.append(max((parts == k).mean() for k in range(n)))
    assert graph_parts.graph_connectivity(graph, labels) == pytest.approx(np.mean(shares))
    stored = graph.copy()
    stored.data[:] = 0  # an edge of weight 0 is none
    alone = np.mean([1 / (labels == label).sum() for label in "xyz"])
    assert graph_parts.graph_connectivity(stored, labels) == pytest.approx(alone)


def test_symmetric_parts_are_never_smaller_than_strong_ones():
    rng = np.random.default_rng(2)
    for seed in range(5):
        x = np.random.default_rng(seed).standard_t(2, size=(120, 3))
        labels = rng.choice(["x", "y"], 120)
        near = exact_neighbors(x, 4)
        symmetric = graph_parts.graph_connectivity(umap_connectivities(near), labels)
        assert symmetric >= graph_connectivity(near, labels) > 0
