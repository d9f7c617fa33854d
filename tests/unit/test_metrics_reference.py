"""Every metric against scib-metrics, to 1e-6. One file, since the import is slow."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from morebench.metrics import (
    clustering,
    connectivity,
    kbet,
    kmeans,
    lisi,
    pcr,
    silhouette,
    threefry,
)
from morebench.metrics.neighbors import K_GRAPH, K_KBET, Neighbors, exact_neighbors
from morebench.metrics.undefined import UndefinedMetric

scib_metrics = pytest.importorskip("scib_metrics")

TOLERANCE = 1e-6


def problem(n, d, n_types, n_batches, seed, *, spread=3.0, effect=1.0, noise=0.8, scale=1.0):
    """Make cells of several types; type 0 is rare, the last type is in one batch only."""
    rng = np.random.default_rng(seed)
    weights = np.linspace(0.15, 1.0, n_types)
    types = rng.choice(n_types, n, p=weights / weights.sum())
    batch = rng.choice(n_batches, n)
    batch[types == n_types - 1] = 0
    x = rng.normal(size=(n_types, d))[types] * spread / np.sqrt(d) * 2
    x = scale * (x + noise * rng.normal(size=(n, d)))
    pre = x + effect * scale * rng.normal(size=(n_batches, d))[batch]
    post = x + 0.3 * (pre - x)
    names = np.array([f"type {t}" for t in types]), np.array([f"batch {b}" for b in batch])
    return post.astype(np.float32), pre.astype(np.float32), *names


def islands(seed):
    """Make a whole type, one with a small part far away, and one of three parts."""
    rng = np.random.default_rng(seed)
    part = np.repeat(np.arange(6), [90, 180, 20, 60, 61, 62])
    labels = np.repeat(["a whole", "b two parts", "c three parts"], [90, 200, 183])
    x = 1000 * rng.normal(size=(6, 6))[part] + rng.normal(size=(len(part), 6))
    return x.astype(np.float32), x, labels, rng.choice(["p", "q"], len(x))


CASES = {
    "tiny": problem(80, 4, 3, 2, 0),
    "small types": problem(260, 8, 7, 2, 1),
    "three batches": problem(500, 12, 5, 3, 2, effect=2.0),
    "overlapping": problem(400, 10, 4, 4, 3, spread=0.7),
    "tight clusters": problem(300, 10, 4, 2, 4, noise=0.05),
    "large scale": problem(300, 6, 4, 2, 5, scale=1e4),
    "islands": islands(6),
}


# The reference compiles for every new shape: seconds a case.
FAST = ("tiny", "small types", "islands")


@pytest.fixture(
    params=[n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in CASES],
    scope="module",
)
def case(request):
    x, pre, labels, batch = CASES[request.param]
    return SimpleNamespace(
        x=x, pre=pre, labels=labels, batch=batch, near=exact_neighbors(x), name=request.param
    )


def theirs(near: Neighbors):
    """Return our neighbours in the reference's container."""
    from scib_metrics.nearest_neighbors import NeighborsResults

    return NeighborsResults(indices=near.indices, distances=near.distances)


@pytest.fixture
def exact_search(monkeypatch):
    """Make the search inside the reference's kBET exact (its own is approximate)."""
    from scib_metrics.utils import _diffusion_nn

    def search(x, n_neighbors):
        squared = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(axis=2)
        np.fill_diagonal(squared, -1)
        indices = np.argsort(squared, axis=1, kind="stable")[:, :n_neighbors]
        return theirs(Neighbors(indices, np.zeros(indices.shape)))

    stand_in = SimpleNamespace(pynndescent=search, NeighborsResults=None)
    monkeypatch.setattr(_diffusion_nn, "nearest_neighbors", stand_in)


def test_umap_connectivities(case):
    for k in (K_GRAPH, K_KBET):
        near = case.near.subset(k)
        expected = theirs(near).knn_graph_connectivities.toarray()
        ours = connectivity.umap_connectivities(near).toarray()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-7)


def test_lisi(case):
    expected = scib_metrics.ilisi_knn(theirs(case.near), case.batch)
    assert lisi.ilisi(case.near, case.batch) == pytest.approx(expected, abs=TOLERANCE)
    expected = scib_metrics.clisi_knn(theirs(case.near), case.labels)
    assert lisi.clisi(case.near, case.labels) == pytest.approx(expected, abs=TOLERANCE)


def test_cilisi_is_lisi_inside_types_with_equal_weights(case):
    if case.name not in ("tiny", "three batches"):
        pytest.skip("two cases will do: the reference compiles for every type")
    value, tested = lisi.cilisi(case.x, case.labels, case.batch)
    parts = []
    for label in np.unique(case.labels):
        cells = case.labels == label
        n_batches = len(np.unique(case.batch[cells]))
        if n_batches < 2 or cells.sum() < 3:
            assert not tested[cells].any()
            continue
        near = exact_neighbors(case.x[cells], min(30, cells.sum() - 1) + 1)
        found = scib_metrics.lisi_knn(theirs(near), case.batch[cells], perplexity=near.k - 1)
        parts.append((found - 1) / (n_batches - 1))
    # The reference's bisection stops short of equal weights, at an entropy 1e-5 below.
    assert value == pytest.approx(np.concatenate(parts).mean(), abs=2e-3)


def test_kbet(case, exact_search):
    near = case.near.subset(K_KBET)
    expected, table = scib_metrics.kbet_per_label(
        theirs(near), case.batch, case.labels, return_df=True
    )
    value, tested = kbet.kbet(connectivity.umap_connectivities(near), case.batch, case.labels)
    assert value == pytest.approx(expected, abs=TOLERANCE)
    counted = table.loc[table["kBET"].notna(), "cluster"]
    np.testing.assert_array_equal(tested, np.isin(case.labels, counted))
    if case.name == "islands":
        assert dict(zip(table["cluster"], table["kBET"], strict=True))["c three parts"] == 0


def test_kbet_of_large_types_by_arpack(exact_search, monkeypatch):
    x, _, labels, batch = problem(700, 8, 3, 2, 11)
    monkeypatch.setattr(kbet, "_DENSE_CELLS", 50)
    near = exact_neighbors(x, K_KBET)
    expected = scib_metrics.kbet_per_label(theirs(near), batch, labels, diffusion_n_comps=20)
    monkeypatch.setattr(kbet, "N_COMPONENTS", 20)
    value, _ = kbet.kbet(connectivity.umap_connectivities(near), batch, labels)
    assert value == pytest.approx(expected, abs=TOLERANCE)


def test_graph_connectivity(case):
    near = case.near.subset(K_GRAPH)
    expected = scib_metrics.graph_connectivity(theirs(near), case.labels)
    ours = connectivity.graph_connectivity(near, case.labels)
    assert ours == pytest.approx(expected, abs=TOLERANCE)


def test_silhouettes(case):
    samples = silhouette.silhouette_samples(case.x, case.labels)
    expected = scib_metrics.silhouette_label(case.x, case.labels)
    assert silhouette.silhouette_label(samples) == pytest.approx(float(expected), abs=TOLERANCE)
    expected = scib_metrics.isolated_labels(case.x, case.labels, case.batch)
    if case.name == "islands":
        with pytest.raises(UndefinedMetric, match="none is isolated"):
            silhouette.isolated_labels(samples, case.labels, case.batch)
        return
    value, isolated = silhouette.isolated_labels(samples, case.labels, case.batch)
    assert value == pytest.approx(float(expected), abs=TOLERANCE)
    assert set(case.labels[isolated]) == {max(case.labels)}


@pytest.fixture
def double_precision():
    """Let the reference compute in float64; in float32 it rounds what is nearly equal."""
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def test_bras(case):
    if case.name == "islands":
        pytest.skip("cosine distances below the reference's float32; see the next test")
    expected = scib_metrics.bras(case.x, case.labels, case.batch)
    value, _ = silhouette.bras(case.x, case.labels, case.batch)
    assert value == pytest.approx(float(expected), abs=TOLERANCE)


def test_bras_in_double_precision(case, double_precision):
    x = case.x.astype(np.float64)
    expected = scib_metrics.bras(x, case.labels, case.batch)
    value, _ = silhouette.bras(x, case.labels, case.batch)
    assert value == pytest.approx(float(expected), abs=TOLERANCE)


def pcr_of(x, pre, batch):
    before = pcr.batch_variance(pre, batch)
    return pcr.pcr_comparison(before, pcr.batch_variance(x, batch))


def test_pcr(case):
    if case.name == "islands":
        pytest.skip("a weak batch effect: the reference divides rounded numbers")
    expected = scib_metrics.pcr_comparison(case.pre, case.x, case.batch, categorical=True)
    value = pcr_of(case.x, case.pre, case.batch)
    assert value == pytest.approx(float(expected), abs=TOLERANCE)


def test_pcr_in_double_precision(case, double_precision):
    x, pre = case.x.astype(np.float64), case.pre.astype(np.float64)
    expected = scib_metrics.pcr_comparison(pre, x, case.batch, categorical=True)
    assert pcr_of(x, pre, case.batch) == pytest.approx(float(expected), abs=TOLERANCE)


def test_kmeans(case):
    expected = scib_metrics.nmi_ari_cluster_labels_kmeans(case.x, case.labels)
    nmi, ari = clustering.kmeans_nmi_ari(case.x, case.labels)
    assert (nmi, ari) == pytest.approx((expected["nmi"], expected["ari"]), abs=TOLERANCE)


@pytest.mark.parametrize("seed", [0, 1, 7, -3])
def test_kmeans_finds_the_same_clusters_for_every_seed(seed):
    from scib_metrics.utils import KMeans

    x = problem(300, 6, 5, 2, 20, spread=1.0)[0]
    reference = KMeans(6, seed=seed)
    reference.fit(x)
    np.testing.assert_array_equal(kmeans.kmeans(x, 6, seed=seed), reference.labels_)


def test_leiden(case):
    """Edges are listed once here and twice there: close, and the same where types are clear."""
    near = case.near.subset(K_GRAPH)
    expected = scib_metrics.nmi_ari_cluster_labels_leiden(theirs(near), case.labels)
    graph = connectivity.umap_connectivities(near)
    nmi, _ = clustering.leiden_nmi_ari(graph, case.labels)
    assert nmi == pytest.approx(expected["nmi"], abs=0.03)


@pytest.mark.parametrize("n", [1, 2, 5, 1000])
def test_threefry_is_the_generator_of_jax(n):
    import jax

    for seed in (0, 42, 2**31 - 1, -1):
        key, ours = jax.random.PRNGKey(seed), threefry.seed_key(seed)
        np.testing.assert_array_equal(ours, key)
        np.testing.assert_array_equal(threefry.split(ours, n), jax.random.split(key, n))
        np.testing.assert_array_equal(
            threefry.random_bits(ours, n), jax.random.bits(key, (n,), dtype="uint32")
        )
        np.testing.assert_array_equal(threefry.permutation(ours, n), jax.random.permutation(key, n))
        np.testing.assert_allclose(
            threefry.gumbel(ours, n), jax.random.gumbel(key, (n,)), rtol=1e-5, atol=1e-6
        )
        p = np.random.default_rng(n).random(n).astype(np.float32)
        draws = min(n, 4)
        np.testing.assert_array_equal(
            threefry.choice_without_replacement(ours, p, draws),
            jax.random.choice(key, n, (draws,), replace=False, p=p),
        )
