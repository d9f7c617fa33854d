"""Integration metrics: oracles outside scib-metrics, invariants, brackets, undefined cases."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_samples,
)

from morebench.metrics import clustering, connectivity, kbet, kmeans, lisi, pcr, silhouette, totals
from morebench.metrics.neighbors import K_GRAPH, K_KBET, exact_neighbors
from morebench.metrics.undefined import UndefinedMetric


def cells(n=240, d=6, n_types=3, n_batches=2, *, shift=0.0, spread=8.0, seed=0):
    rng = np.random.default_rng(seed)
    types, batch = np.arange(n) % n_types, rng.permutation(np.arange(n) % n_batches)
    x = spread * rng.normal(size=(n_types, d))[types] + rng.normal(size=(n, d))
    x = x + shift * rng.normal(size=(n_batches, d))[batch]
    return x, types.astype(str), batch.astype(str)


def every_metric(x, labels, batch, reference):
    """Compute all that does not depend on the order of cells."""
    near = exact_neighbors(x)
    samples = silhouette.silhouette_samples(x, labels)
    before = pcr.batch_variance(reference, batch)
    return {
        "bras": silhouette.bras(x, labels, batch)[0],
        "ilisi": lisi.ilisi(near, batch),
        "clisi": lisi.clisi(near, labels),
        "cilisi": lisi.cilisi(x, labels, batch)[0],
        "kbet": kbet.kbet(connectivity.umap_connectivities(near.subset(K_KBET)), batch, labels)[0],
        "graph": connectivity.graph_connectivity(near.subset(K_GRAPH), labels),
        "pcr": pcr.pcr_comparison(before, pcr.batch_variance(x, batch)),
        "silhouette": silhouette.silhouette_label(samples),
    }


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_order_of_cells_and_rotation_change_nothing(shift):
    x, labels, batch = cells(shift=shift)
    reference = x + 3 * (batch == "1")[:, None]
    expected = every_metric(x, labels, batch, reference)
    order = np.random.default_rng(1).permutation(len(x))
    shuffled = every_metric(x[order], labels[order], batch[order], reference[order])
    # LISI finds its weights to 1e-5 only; the others are exact to rounding.
    assert shuffled == pytest.approx(expected, abs=1e-5)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    assert every_metric(x @ turn, labels, batch, reference) == pytest.approx(expected, abs=1e-5)


def test_names_of_types_and_batches_change_nothing():
    x, labels, batch = cells(shift=1.0)
    renamed = np.array(["z", "y", "x"])[labels.astype(int)], np.array(["B", "A"])[batch.astype(int)]
    expected = every_metric(x, labels, batch, x + (batch == "1")[:, None])
    assert every_metric(x, *renamed, x + (batch == "1")[:, None]) == pytest.approx(
        expected, abs=1e-9
    )


def test_perfect_and_worst_embeddings_bracket_the_rest():
    good = every_metric(*cells(n=600), cells(n=600, shift=5.0)[0])
    x, labels, batch = cells(n=600, shift=200.0)
    bad = every_metric(x, labels, batch, x)
    for name in ("bras", "ilisi", "cilisi", "kbet", "pcr"):
        assert good[name] > 0.85, name
        assert bad[name] < 0.2, name
        assert 0 <= bad[name] < good[name] <= 1, name
    noise = np.random.default_rng(0).normal(size=x.shape)
    none = every_metric(noise, labels, batch, x)
    assert good["clisi"] == pytest.approx(1) and good["graph"] > 0.95
    assert good["silhouette"] > 0.8 and none["silhouette"] == pytest.approx(0.5, abs=0.02)
    assert none["clisi"] < 0.3


def test_umap_connectivities_solve_their_equation():
    near = exact_neighbors(cells()[0], 15)
    graph = connectivity.umap_connectivities(near).toarray()
    np.testing.assert_array_equal(graph, graph.T)
    assert (graph.diagonal() == 0).all() and graph.max() <= 1
    sigma, rho = connectivity._smooth_distances(near.distances)
    np.testing.assert_array_equal(rho, near.distances[:, 1])
    sums = np.exp(-(near.distances[:, 1:] - rho[:, None]) / sigma[:, None]).sum(axis=1)
    np.testing.assert_allclose(sums, np.log2(15), atol=2e-5)


def test_graph_connectivity_of_a_known_graph():
    """Type a falls into 6 + 4 cells, type b is whole."""
    x = np.concatenate([np.arange(6), 100 + np.arange(4), 200 + np.arange(10)])[:, None]
    labels = np.repeat(["a", "b"], 10)
    near = exact_neighbors(x.astype(float), 4)
    assert connectivity.graph_connectivity(near, labels) == pytest.approx((0.6 + 1.0) / 2)


def test_lisi_of_one_point_is_the_inverse_simpson_index():
    """Cells on one spot have equal weights: all cells but oneself."""
    x, batch = np.ones((90, 2)), np.array(["a"] * 60 + ["b"] * 30)
    near = exact_neighbors(x)
    expected = 1 / ((59 / 89) ** 2 + (30 / 89) ** 2) - 1
    assert lisi.ilisi(near, batch) == pytest.approx(expected, abs=1e-5)
    assert lisi.clisi(near, batch) == pytest.approx(1 - expected, abs=1e-5)


def test_lisi_of_equally_far_cells_is_undefined_and_not_below_zero():
    """No weights have the perplexity asked for; scib-metrics returns an iLISI of -2."""
    near = exact_neighbors(np.eye(90))
    with pytest.raises(UndefinedMetric, match="equally far"):
        lisi.ilisi(near, np.array(["a"] * 60 + ["b"] * 30))


def test_cilisi_in_closed_form_and_its_coverage():
    """21 cells of one type, all neighbours of each other; a second type in one batch."""
    x = np.concatenate([np.eye(21), 5 + np.zeros((4, 21))])
    labels = np.array(["t"] * 21 + ["u"] * 4)
    batch = np.array(["a"] * 14 + ["b"] * 7 + ["a"] * 4)
    value, tested = lisi.cilisi(x, labels, batch)
    in_a = 1 / ((13 / 20) ** 2 + (7 / 20) ** 2) - 1
    in_b = 1 / ((14 / 20) ** 2 + (6 / 20) ** 2) - 1
    assert value == pytest.approx((14 * in_a + 7 * in_b) / 21)
    np.testing.assert_array_equal(tested, labels == "t")


def test_cilisi_gives_nothing_for_mixing_types():
    """Types of different batches on one spot: iLISI is fooled, CiLISI is not."""
    x = np.random.default_rng(0).normal(size=(400, 5))
    batch = np.tile(["a", "b"], 200)
    labels = np.where(batch == "a", "t", "u")
    labels[:100] = "v"
    x[:100] += np.where(batch[:100] == "a", 50, -50)[:, None]
    assert lisi.ilisi(exact_neighbors(x), batch) > 0.8
    value, tested = lisi.cilisi(x, labels, batch)
    assert value == 0 and tested.sum() == 100


def test_silhouettes_are_those_of_sklearn():
    x, labels, _ = cells(spread=1.0)
    labels = labels.copy()
    labels[3] = "alone"
    found = silhouette.silhouette_samples(x, labels)
    np.testing.assert_allclose(found, silhouette_samples(x, labels), atol=1e-9)
    assert found[3] == 0


def test_bras_with_two_batches_is_one_minus_the_cosine_silhouette():
    x, labels, batch = cells(shift=3.0)
    expected = [
        1 - np.abs(silhouette_samples(x[labels == t], batch[labels == t], metric="cosine")).mean()
        for t in np.unique(labels)
    ]
    assert silhouette.bras(x, labels, batch)[0] == pytest.approx(np.mean(expected), abs=1e-9)


def test_collapsed_embedding_scores_half_a_silhouette_and_full_bras():
    x, labels, batch = cells()
    point = np.tile(np.linspace(0.1, 1.3, 6), (len(x), 1))
    assert silhouette.silhouette_label(silhouette.silhouette_samples(point, labels)) == 0.5
    assert silhouette.bras(point, labels, batch)[0] == 1.0
    with pytest.raises(UndefinedMetric, match="one point"):
        pcr.batch_variance(point, batch)


def test_pcr_is_the_regression_on_components_weighed_by_their_variance():
    x, _, batch = cells(n_batches=3, shift=1.0)
    model = PCA().fit(x)
    dummies = (batch[:, None] == np.unique(batch)).astype(float)
    r2 = [LinearRegression().fit(dummies, pc).score(dummies, pc) for pc in model.transform(x).T]
    expected = np.average(r2, weights=model.explained_variance_)
    assert pcr.batch_variance(x, batch) == pytest.approx(expected, abs=1e-9)


def test_pcr_comparison():
    assert pcr.pcr_comparison(0.4, 0.1) == pytest.approx(0.75)
    assert pcr.pcr_comparison(0.1, 0.4) == 0
    with pytest.raises(UndefinedMetric, match="no variance"):
        pcr.pcr_comparison(0.0, 0.1)


def test_kbet_leaves_out_small_and_single_batch_types():
    x, labels, batch = cells(n=300)
    labels = labels.copy()
    labels[:9] = "small"
    batch[labels == "2"] = "0"
    graph = connectivity.umap_connectivities(exact_neighbors(x, K_KBET))
    _, tested = kbet.kbet(graph, batch, labels)
    np.testing.assert_array_equal(tested, np.isin(labels, ["0", "1"]))


def test_kbet_acceptance_is_the_chi_square_test_of_scipy():
    from scipy.stats import chisquare

    rng = np.random.default_rng(0)
    codes = rng.choice(3, 100, p=[0.5, 0.3, 0.2])
    indices = np.stack([rng.choice(100, 20, replace=False) for _ in range(100)])
    expected = np.bincount(codes) / 100 * 20
    p = [chisquare(np.bincount(codes[row], minlength=3), expected).pvalue for row in indices]
    assert kbet.acceptance(indices, codes) == np.mean(np.array(p) >= 0.05)
    assert kbet.acceptance(indices, np.zeros(100, int)) == 0


def test_diffusion_map_is_the_same_by_both_solvers(monkeypatch):
    graph = connectivity.umap_connectivities(exact_neighbors(cells(n_types=1)[0], 30))
    dense = kbet.diffusion_map(graph, 20)
    monkeypatch.setattr(kbet, "_DENSE_CELLS", 10)
    arpack = kbet.diffusion_map(graph, 20)
    np.testing.assert_allclose(np.abs(arpack), np.abs(dense), atol=1e-4)


def test_leiden_finds_planted_groups_and_is_deterministic():
    x, labels, _ = cells()
    graph = connectivity.umap_connectivities(exact_neighbors(x, K_GRAPH))
    assert clustering.leiden_nmi_ari(graph, labels) == pytest.approx((1, 1))
    noise = np.random.default_rng(0).normal(size=(300, 4))
    graph = connectivity.umap_connectivities(exact_neighbors(noise, K_GRAPH))
    first, again = (clustering.leiden_clusters(graph, seed=3) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_leiden_score_is_the_resolution_of_highest_nmi():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(250, 3))
    labels = np.where(x[:, 0] > 0, "a", "b")
    graph = connectivity.umap_connectivities(exact_neighbors(x, K_GRAPH))
    scores = [
        (normalized_mutual_info_score(labels, c), adjusted_rand_score(labels, c))
        for c in clustering.leiden_clusters(graph, (0.2, 0.8, 2.0), seed=1)
    ]
    found = clustering.leiden_nmi_ari(graph, labels, (0.2, 0.8, 2.0), seed=1)
    assert found == pytest.approx(max(scores, key=lambda pair: pair[0]))
    assert len({nmi for nmi, _ in scores}) > 1


def test_leiden_leaves_pythons_random_numbers_to_igraph_as_before():
    import random

    import igraph

    graph = sp.csr_matrix(np.ones((4, 4)) - np.eye(4))
    clustering.leiden_clusters(graph, (1.0,), seed=5)
    random.seed(0)
    one = igraph.Graph.Erdos_Renyi(n=30, m=40).get_edgelist()
    random.seed(0)
    assert igraph.Graph.Erdos_Renyi(n=30, m=40).get_edgelist() == one


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_kmeans_ends_in_a_local_optimum(n, k, seed):
    k = min(n, k)
    x = np.random.default_rng(seed).normal(size=(n, 2))
    labels = kmeans.kmeans(x, k, seed=seed)
    np.testing.assert_array_equal(labels, kmeans.kmeans(x, k, seed=seed))
    used = np.unique(labels)
    centers = np.stack([x[labels == g].mean(axis=0) for g in used])
    nearest = used[np.argmin(((x[:, None] - centers) ** 2).sum(axis=2), axis=1)]
    np.testing.assert_array_equal(nearest, labels)


def test_kmeans_of_fewer_points_than_clusters_ends():
    x = np.repeat(np.eye(2), 5, axis=0)
    labels = kmeans.kmeans(x, 4)
    assert len(set(labels[:5])) == len(set(labels[5:])) == 1 and labels[0] != labels[5]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda x, near, one, two: lisi.ilisi(near, one), "one batch only"),
        (lambda x, near, one, two: lisi.clisi(near, one), "one cell type only"),
        (lambda x, near, one, two: lisi.ilisi(near.subset(5), two), "at least 6 cells"),
        (lambda x, near, one, two: lisi.cilisi(x, two, two), "no cell type has two batches"),
        (lambda x, near, one, two: silhouette.silhouette_samples(x, one), "one cell type only"),
        (lambda x, near, one, two: silhouette.bras(x, two, two), "no cell type has two"),
        (lambda x, near, one, two: silhouette.bras(0 * x, one, two), "30 cells lie at the origin"),
        (lambda x, near, one, two: clustering.kmeans_nmi_ari(x, one), "one cell type only"),
        (
            lambda x, near, one, two: silhouette.isolated_labels(x[:, 0], one, two),
            "none is isolated",
        ),
        (
            lambda x, near, one, two: kbet.kbet(connectivity.umap_connectivities(near), two, two),
            "no cell type has two batches and 10 cells",
        ),
        (
            lambda x, near, one, two: clustering.leiden_nmi_ari(
                connectivity.umap_connectivities(near), one
            ),
            "one cell type only",
        ),
    ],
)
def test_metrics_without_a_value_say_why(metric, message):
    x = np.random.default_rng(0).normal(size=(30, 3))
    two = np.tile(["p", "q"], 15)
    with pytest.raises(UndefinedMetric, match=message):
        metric(x, exact_neighbors(x), np.full(30, "only"), two)


def test_isolated_labels_are_those_in_the_fewest_batches():
    labels = np.repeat(["a", "b", "c"], 4)
    batch = np.array(list("pqrppqpqppqq"))
    samples = np.linspace(-1, 1, 12)
    value, isolated = silhouette.isolated_labels(samples, labels, batch)
    assert value == pytest.approx((samples[4:].mean() + 1) / 2)
    np.testing.assert_array_equal(isolated, labels != "a")


def test_totals():
    names = totals.BATCH_COMPONENTS + totals.BIO_COMPONENTS
    values = dict(zip(names, np.arange(1, 10) / 10, strict=True))
    assert totals.batch_total(values) == pytest.approx(0.3)
    assert totals.bio_total(values) == pytest.approx(0.75)
    assert totals.total(values) == pytest.approx(0.4 * 0.3 + 0.6 * 0.75)
    assert np.isnan(totals.total({**values, "pcr": np.nan}))
    assert np.isnan(totals.batch_total({**values, "kbet": np.nan}))


@pytest.mark.parametrize("n", [200, 401])
def test_lisi_of_far_apart_groups_is_perfect_and_never_undefined(n):
    """One label among a cell's neighbours: an index of 1 up to float32, on either side."""
    labels = np.array(["a"] * (n // 2) + ["b"] * (n - n // 2))
    x = np.random.default_rng(n).normal(size=(n, 3))
    x[labels == "b"] += 1e3
    near = exact_neighbors(x)
    assert lisi.clisi(near, labels) == pytest.approx(1, abs=1e-5)
    assert lisi.ilisi(near, labels) == pytest.approx(0, abs=1e-5)
