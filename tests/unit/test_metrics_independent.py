"""Metrics against versions written here from the papers, with numpy, scipy and sklearn only.

``test_metrics_reference.py`` compares with scib-metrics and ``test_metrics_integration.py``
with closed forms and sklearn; what only scib-metrics had confirmed so far stands here.
"""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from scipy.stats import chisquare
from sklearn.metrics import silhouette_score

from morebench.metrics import clustering, connectivity, kbet, lisi, silhouette
from morebench.metrics.neighbors import K_KBET, exact_neighbors


def planted(n, n_types, n_batches, seed, *, spread=3.0, shift=1.0, d=8):
    """Make types of unequal size in batches that are shifted; all in all batches."""
    rng = np.random.default_rng(seed)
    weights = np.linspace(0.5, 1.0, n_types)
    kind = rng.choice(n_types, n, p=weights / weights.sum())
    batch = rng.choice(n_batches, n)
    x = spread * rng.normal(size=(n_types, d))[kind] + rng.normal(size=(n, d))
    x = x + shift * rng.normal(size=(n_batches, d))[batch]
    return x, kind.astype(str), np.array(list("pqrs"))[batch]


CASES = {
    "random": planted(360, 3, 2, 0, spread=0.0, shift=0.0),
    "types": planted(360, 4, 3, 1, shift=0.0),
    "types and batches": planted(360, 3, 3, 2, spread=2.0),
    "strong batches": planted(360, 3, 2, 3, shift=3.0),
    "four batches": planted(360, 2, 4, 4, spread=1.0, shift=0.5),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


# --- LISI (Korsunsky et al. 2019): inverse Simpson index under weights of a set perplexity -------


def weights_of_perplexity(distances, perplexity):
    """exp(-b d), b such that the entropy of the weights is the log of the perplexity."""

    def gap(b):
        p = np.exp(-b * (distances - distances.min()))
        p = p / p.sum()
        return -(p * np.log(np.maximum(p, 1e-300))).sum() - np.log(perplexity)

    b = brentq(gap, 0.0, 1e4, xtol=1e-12)
    p = np.exp(-b * (distances - distances.min()))
    return p / p.sum()


def median_lisi(x, groups, k=90):
    """Over each cell's k - 1 nearest others, at a perplexity of a third of k."""
    distances = cdist(x, x)
    found = []
    for i, row in enumerate(distances):
        near = [j for j in np.argsort(row, kind="stable") if j != i][: k - 1]
        p = weights_of_perplexity(row[near], k // 3)
        shares = [p[groups[near] == g].sum() for g in np.unique(groups)]
        found.append(1 / np.square(shares).sum())
    return np.median(found)


def test_lisi_is_the_inverse_simpson_index_of_weighted_neighbours(case):
    """To 1e-5: the bisection of the reference's code stops at an entropy that close."""
    x, labels, batch = case
    near = exact_neighbors(x)
    b, t = len(np.unique(batch)), len(np.unique(labels))
    expected = (median_lisi(x, batch) - 1) / (b - 1)
    assert lisi.ilisi(near, batch) == pytest.approx(expected, abs=1e-5)
    expected = (t - median_lisi(x, labels)) / (t - 1)
    assert lisi.clisi(near, labels) == pytest.approx(expected, abs=1e-5)


def test_cilisi_is_the_plain_inverse_simpson_index_inside_types(case):
    x, labels, batch = case
    found = []
    for kind in np.unique(labels):
        inside = np.flatnonzero(labels == kind)
        names = np.unique(batch[inside])
        for i in inside:
            others = inside[inside != i]
            near = others[np.argsort(cdist(x[[i]], x[others])[0], kind="stable")[:30]]
            shares = [np.mean(batch[near] == g) for g in names]
            found.append((1 / np.square(shares).sum() - 1) / (len(names) - 1))
    assert lisi.cilisi(x, labels, batch)[0] == pytest.approx(np.mean(found), abs=1e-9)


# --- kBET (Buttner et al. 2019) inside types, as of Luecken et al. 2022 ---------------------------


def diffusion_coordinates(w, n_components):
    """Eigenvectors of density-normalised transitions, e / (1 - e) each; the constant one by 1."""
    density = w.sum(axis=0)
    kernel = w / np.outer(density, density)
    root = np.sqrt(kernel.sum(axis=0))
    values, vectors = np.linalg.eigh(kernel / np.outer(root, root))
    kept = np.argsort(-np.abs(values))[:n_components]
    values, vectors = values[kept], vectors[:, kept]
    scale = [1.0 if abs(e - 1) < 1e-7 else e / (1 - e) for e in values]
    return vectors * np.array(scale)


def kbet_of_types(graph, batch, labels):
    """Share of cells whose neighbours a chi-square test accepts, by type; the mean."""
    found = []
    for kind in np.unique(labels):
        inside = np.flatnonzero(labels == kind)
        w = graph[inside][:, inside].toarray().astype(float)
        assert connected_components(w)[0] == 1, "this version takes whole types only"
        names, sizes = np.unique(batch[inside], return_counts=True)
        k = int(np.clip(sizes.mean() // 4, 10, 70))
        near = np.argsort(cdist(*[diffusion_coordinates(w, min(100, len(inside) - 1))] * 2), axis=1)
        accepted = []
        for row in near[:, : k + 1]:
            counts = [(batch[inside][row] == g).sum() for g in names]
            p = chisquare(counts, sizes / sizes.sum() * (k + 1)).pvalue
            accepted.append(p >= 0.05)
        found.append(np.mean(accepted))
    return np.mean(found)


def test_kbet_is_the_chi_square_test_on_diffusion_neighbours(case):
    """To 0.01: in float32 a near tie may swap a neighbour, which may turn a cell's test."""
    x, labels, batch = case
    graph = connectivity.umap_connectivities(exact_neighbors(x, K_KBET))
    value, tested = kbet.kbet(graph, batch, labels)
    assert tested.all()
    assert value == pytest.approx(kbet_of_types(graph, batch, labels), abs=0.01)


def test_kbet_cases_are_not_all_alike():
    values = []
    for x, labels, batch in CASES.values():
        graph = connectivity.umap_connectivities(exact_neighbors(x, K_KBET))
        values.append(kbet.kbet(graph, batch, labels)[0])
    assert max(values) > 0.85 and min(values) < 0.5


# --- BRAS (Rautenstrauch and Ohler 2025) ----------------------------------------------------------


def test_bras_is_the_silhouette_against_all_other_batches(case):
    """Cosine distance; b is the mean distance to the cells of all other batches."""
    x, labels, batch = case
    found = []
    for kind in np.unique(labels):
        inside = labels == kind
        distances, mine = cdist(x[inside], x[inside], "cosine"), batch[inside]
        scores = []
        for i in range(len(mine)):
            same = mine == mine[i]
            a = distances[i, same].sum() / (same.sum() - 1)
            b = distances[i, ~same].mean()
            scores.append(1 - abs((b - a) / max(a, b)))
        found.append(np.mean(scores))
    assert silhouette.bras(x, labels, batch)[0] == pytest.approx(np.mean(found), abs=1e-9)


def test_isolated_labels_is_the_silhouette_of_the_type_of_one_batch():
    x, labels, batch = planted(300, 4, 3, 7)
    batch = np.where(labels == "2", "p", batch)
    samples = silhouette.silhouette_samples(x, labels)
    value, _ = silhouette.isolated_labels(samples, labels, batch)
    distances = cdist(x, x)
    inside = labels == "2"
    expected = []
    for i in np.flatnonzero(inside):
        a = distances[i, inside].sum() / (inside.sum() - 1)
        b = min(distances[i, labels == g].mean() for g in "013")
        expected.append(((b - a) / max(a, b) + 1) / 2)
    assert value == pytest.approx(np.mean(expected), abs=1e-9)
    overall = silhouette.silhouette_label(samples)
    assert overall == pytest.approx((silhouette_score(x, labels) + 1) / 2, abs=1e-9)


# --- NMI and ARI of given clusters ----------------------------------------------------------------


def nmi_ari(labels, clusters):
    """From the contingency table; NMI by the arithmetic mean, ARI of Hubert and Arabie 1985."""
    table = np.array(
        [
            [((labels == t) & (clusters == c)).sum() for c in np.unique(clusters)]
            for t in np.unique(labels)
        ]
    )
    p = table / table.sum()
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    full = p > 0
    mutual = (p[full] * np.log(p[full] / np.outer(rows, columns)[full])).sum()
    entropy = [-(q[q > 0] * np.log(q[q > 0])).sum() for q in (rows, columns)]

    def pairs(counts):
        return (counts * (counts - 1) / 2).sum()

    together, by_row, by_column = (pairs(c) for c in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = by_row * by_column / pairs(table.sum())
    ari = (together - expected) / ((by_row + by_column) / 2 - expected)
    return 2 * mutual / sum(entropy), ari


@pytest.mark.parametrize("seed", range(5))
def test_nmi_and_ari_from_the_contingency_table(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(list("abcd"), 120, p=[0.5, 0.3, 0.15, 0.05])
    clusters = np.where(rng.random(120) < 0.2 * seed, rng.choice(6, 120), (labels > "b") * 1)
    assert clustering.nmi_ari(labels, clusters) == pytest.approx(
        nmi_ari(labels, clusters), abs=1e-9
    )


def test_leiden_score_is_that_of_its_own_clusters(case):
    """Each resolution's clusters, scored by the formulas above: the best NMI and its ARI."""
    x, labels, _ = case
    graph = connectivity.umap_connectivities(exact_neighbors(x, 15))
    scores = [nmi_ari(labels, c) for c in clustering.leiden_clusters(graph)]
    expected = max(scores, key=lambda pair: pair[0])
    assert clustering.leiden_nmi_ari(graph, labels) == pytest.approx(expected, abs=1e-9)
