"""Labels of the nearest shown cells, and majority voting."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.neighbors import KNeighborsClassifier

from morebench.contract import MethodOutput
from morebench.tasks.contract import Candidate, TaskData
from morebench.tasks.transfer import K_TRANSFER, distance_to_shown, with_labels
from morebench.tasks.voting import over_clusters, vote

X, KIND = make_blobs(300, n_features=6, centers=4, cluster_std=2.0, random_state=0)
TYPES = np.array(["a", "b", "c", "d"], dtype=object)[KIND]


def data(shown=None):
    hidden = np.arange(300) % 3 == 0
    shown = np.where(hidden, None, TYPES) if shown is None else shown
    batch = np.where(hidden, "query", "reference")
    return TaskData("d", "lobo-query", batch, TYPES, np.full(300, np.nan), hidden, shown, X)


def candidate(**output):
    return Candidate("m", "unsupervised", 0, "ok", MethodOutput(**output))


def test_labels_are_those_of_the_nearest_shown_cells():
    found = with_labels(candidate(embedding=X), data()).output
    shown = np.arange(300) % 3 > 0
    model = KNeighborsClassifier(K_TRANSFER).fit(X[shown], TYPES[shown].astype(str))
    np.testing.assert_array_equal(found.labels, model.predict(X))
    np.testing.assert_allclose(found.probabilities, model.predict_proba(X))
    assert list(found.probabilities) == ["a", "b", "c", "d"]


def test_hidden_labels_have_no_part_in_it():
    other = data()
    other.cell_type = other.cell_type[::-1].copy()
    first = with_labels(candidate(embedding=X), data()).output.labels
    np.testing.assert_array_equal(first, with_labels(candidate(embedding=X), other).output.labels)


def test_what_a_method_says_itself_stays():
    own = candidate(embedding=X, labels=TYPES)
    assert with_labels(own, data()) is own
    failed = Candidate("m", "unsupervised", 0, "failed", None, "why")
    assert with_labels(failed, data()) is failed


def test_few_shown_cells_are_neighbours_all():
    shown = np.full(300, None, dtype=object)
    shown[:3] = ["a", "b", "b"]
    assert set(with_labels(candidate(embedding=X), data(shown)).output.labels) == {"b"}
    mean = np.linalg.norm(X[:, None] - X[:3], axis=2).mean(axis=1)
    np.testing.assert_allclose(distance_to_shown(X, data(shown)), mean)


def test_distance_is_the_mean_to_the_nearest_shown_cells():
    # shown at 0, 1, ..., 19 on a line; a cell at 30 is 11 to 25 away from the nearest 15
    given = data(np.where(np.arange(300) < 20, TYPES, None))
    line = np.arange(300.0)[:, None]
    found = distance_to_shown(line, given)
    assert found[30] == pytest.approx((11 + 25) / 2)
    np.testing.assert_allclose(np.diff(found[20:]), 1)
    assert found[0] == pytest.approx(7) and found.min() == found[10] == pytest.approx(56 / 15)


def test_an_embedding_of_other_cells_is_refused():
    with pytest.raises(ValueError, match="found 10 rows; valid: 300"):
        with_labels(candidate(embedding=X[:10]), data())


def test_votes_are_majorities_and_equals_go_by_name():
    labels = np.array(["b", "a", "b", "z", "y", "x"])
    clusters = np.array([7, 7, 7, 2, 2, 5])
    assert vote(labels, clusters).tolist() == ["b", "b", "b", "y", "y", "x"]
    np.testing.assert_array_equal(vote(labels, np.arange(6)), labels)


def test_over_clusters_are_small_pure_and_seeded():
    x, kind = make_blobs(600, n_features=6, centers=4, cluster_std=0.5, random_state=1)
    found = over_clusters(x, seed=0, threads=1)
    np.testing.assert_array_equal(found, over_clusters(x, seed=0, threads=1))
    assert 12 < len(np.unique(found)) < 200
    assert all(len(set(kind[found == c])) == 1 for c in np.unique(found))
    noisy = np.where(np.random.default_rng(0).random(600) < 0.2, 3 - kind, kind)
    voted = vote(noisy.astype(str), found)
    assert (noisy == kind).mean() < 0.85 and (voted == kind.astype(str)).mean() > 0.97
    assert over_clusters(x[:10], seed=0, threads=1).tolist() == [0] * 10
