"""scGraph: against the definition written out, invariances, what it must tell apart."""

import numpy as np
import pytest
from scipy.stats import ortho_group, spearmanr

from morebench.metrics.scgraph import consensus, scgraph, structure, type_distances
from morebench.metrics.undefined import UndefinedMetric

TYPES, BATCHES = "abcdef", "pqr"


def planted(seed=0, *, n=600, d=12, spread=4.0, shift=5.0):
    """Make types with a geometry, in batches that are shifted as a whole; 'f' lacks in r."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.choice(len(TYPES), n), rng.choice(len(BATCHES), n)
    batch[(kind == 5) & (batch == 2)] = 0
    x = spread * rng.normal(size=(len(TYPES), d))[kind] * np.linspace(2, 0.2, d)
    x = x + rng.normal(size=(n, d))
    pca = x + shift * rng.normal(size=(len(BATCHES), d))[batch]
    return x, pca, np.array(list(TYPES))[kind], np.array(list(BATCHES))[batch]


def trimmed(values, share=0.05):
    """Mean of sorted values without ``int(share * n)`` at each end."""
    values = sorted(values)
    cut = int(share * len(values))
    return sum(values[cut : len(values) - cut]) / (len(values) - 2 * cut)


def principal(x, k=None):
    """Cells on their principal axes, by the covariance's eigenvectors."""
    x = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x)
    return x @ vectors[:, np.argsort(-values)][:, :k]


def distances_by_name(x, labels, names):
    """{(a, b): distance}, each divided by the largest of b."""
    centre = {t: np.array([trimmed(v) for v in x[labels == t].T]) for t in names}
    raw = {(a, b): np.sqrt(((centre[a] - centre[b]) ** 2).sum()) for a in names for b in names}
    return {(a, b): raw[a, b] / max(raw[c, b] for c in names) for a, b in raw}


def brute_force(x, pca, labels, batch):
    """The score as the paper tells it, one pair of types at a time."""
    seen = {}
    for name in set(batch):
        inside = batch == name
        names = [t for t in set(labels) if (labels[inside] == t).sum() >= 10]
        axes = principal(pca[inside], 10)
        for pair, value in distances_by_name(axes, labels[inside], names).items():
            seen.setdefault(pair, []).append(value)
    mean = {pair: np.mean(values) for pair, values in seen.items()}
    mean = {
        (a, b): v / max(w for (_, c), w in mean.items() if c == b) for (a, b), v in mean.items()
    }
    found = distances_by_name(principal(x), labels, sorted(set(labels)))
    weighted, rank = [], []
    for b in sorted(set(labels)):
        others = [a for a in sorted(set(labels)) if a != b and (a, b) in mean]
        if len(others) < 2:
            continue
        u, v = (np.array([table[a, b] for a in others]) for table in (found, mean))
        cov = np.cov(u, v, aweights=1 / v)
        weighted.append(cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]))
        rank.append(spearmanr(u, v).statistic)
    return np.mean(weighted), np.mean(rank)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_definition_written_out(seed):
    _, pca, labels, batch = planted(seed)
    rng = np.random.default_rng(seed + 100)
    # Any embedding will do: here one that bends the geometry.
    x = np.tanh(pca / 8) @ rng.normal(size=(12, 7)) + 0.1 * rng.normal(size=(len(pca), 7))
    found = structure(x, pca, labels, batch)
    weighted, rank = brute_force(x, pca, labels, batch)
    assert found.weighted == pytest.approx(weighted, abs=1e-9)
    assert found.rank == pytest.approx(rank, abs=1e-9)
    assert abs(weighted) < 0.99, "an embedding on which all versions agree tells nothing"
    assert scgraph(x, pca, labels, batch)[0] == found.weighted
    assert found.tested.all()


def test_a_batch_with_few_cells_of_a_type_does_not_count_for_it():
    x, pca, labels, batch = planted(n=900)
    few = np.flatnonzero((labels == "a") & (batch == "p"))
    batch = batch.copy()
    batch[few[9:]] = "q"
    pca[few[:9]] += 1e3  # nine outlying cells: below the ten that a type needs
    expected = brute_force(x, pca, labels, batch)
    assert structure(x, pca, labels, batch)[:2] == pytest.approx(expected, abs=1e-9)
    wanted = consensus(pca, labels, batch, sorted(TYPES))
    assert np.isfinite(wanted).all()
    wanted = consensus(pca[batch == "p"], labels[batch == "p"], batch[batch == "p"], list("abc"))
    assert np.isnan(wanted[0]).all() and np.isfinite(wanted[1:, 1:]).all()


def test_consensus_geometry_itself_scores_one():
    """One batch: the consensus is the geometry of its ten components."""
    _, pca, labels, _ = planted()
    one = np.full(len(pca), "p")
    found = structure(principal(pca, 10), pca, labels, one)
    assert found[:2] == pytest.approx((1, 1), abs=1e-9)


def test_batch_free_cells_score_near_one_and_shifts_of_batches_do_not_enter_the_consensus():
    x, pca, labels, batch = planted()
    assert structure(x, pca, labels, batch).weighted > 0.97
    moved = pca + np.where(batch == "p", 50.0, 0.0)[:, None]
    first, again = (consensus(p, labels, batch, list(TYPES)) for p in (pca, moved))
    np.testing.assert_allclose(first, again, atol=1e-9)
    np.testing.assert_allclose(first.max(axis=0), 1)
    np.testing.assert_array_equal(np.diag(first), 0)


def test_rotation_scale_shift_and_order_change_nothing():
    x, pca, labels, batch = planted()
    x = np.tanh(x)
    expected = structure(x, pca, labels, batch)
    turn = ortho_group.rvs(12, random_state=0)
    turned = structure(7 * x @ turn - 3, pca @ turn, labels, batch)
    assert turned[:2] == pytest.approx(expected[:2], abs=1e-9)
    order = np.random.default_rng(0).permutation(len(x))
    shuffled = structure(x[order], pca[order], labels[order], batch[order])
    assert shuffled[:2] == pytest.approx(expected[:2], abs=1e-9)


def test_permuted_packed_and_merged_types_score_lower():
    x, pca, labels, batch = planted()
    good = structure(x, pca, labels, batch).weighted
    centre = np.stack([x[labels == t].mean(axis=0) for t in TYPES])
    code = np.array([TYPES.index(t) for t in labels])
    permuted = structure(x + centre[(code + 1) % 6] - centre[code], pca, labels, batch).weighted
    assert permuted < good - 0.5
    # Islands: all types equally far from each other, however alike they are.
    islands = structure(1000 * np.eye(6)[code] + 0.01 * x[:, :6], pca, labels, batch).weighted
    assert islands < good - 0.2
    merged = structure(x - centre[code], pca, labels, batch).weighted
    assert merged < good - 0.3


def test_types_that_are_equally_far_in_the_embedding_count_as_zero():
    _, pca, labels, batch = planted()
    code = np.array([TYPES.index(t) for t in labels])
    found = structure(np.eye(6)[code], pca, labels, batch)
    assert found[:2] == pytest.approx((0, 0), abs=1e-9)


def test_types_in_too_few_cells_show_in_the_coverage():
    x, pca, labels, batch = planted()
    labels = labels.astype("U4")
    labels[:5] = "rare"
    value, tested = scgraph(x, pca, labels, batch)
    np.testing.assert_array_equal(tested, labels != "rare")
    alone = scgraph(x[5:], pca[5:], labels[5:], batch[5:])[0]
    assert value == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, p, k, b: (x, p, np.where(k == "a", "a", "b"), b), "0 cell types have 10 cells"),
        (lambda x, p, k, b: (x[:25], p[:25], k[:25], b[:25]), "0 cell types have 10 cells"),
        (lambda x, p, k, b: (0 * x + 3, p, k, b), "centres of all cell types lie on one point"),
        (
            lambda x, p, k, b: (x, np.eye(6)[[TYPES.index(t) for t in k]], k, np.full(len(k), "p")),
            "equally far",
        ),
    ],
)
def test_where_there_is_no_structure_it_says_so(change, message):
    with pytest.raises(UndefinedMetric, match=message):
        structure(*change(*planted()))


def test_type_distances_of_points_on_a_line():
    found = type_distances(np.array([[0.0], [1.0], [4.0]]))
    np.testing.assert_allclose(found, [[0, 1 / 3, 1], [1 / 4, 0, 3 / 4], [1, 1, 0]])
