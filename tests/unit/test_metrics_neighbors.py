"""Exact neighbours: against sorting all distances, and what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from morebench.errors import DataError
from morebench.metrics.neighbors import exact_neighbors


def by_sorting(x, k):
    distances = cdist(x, x)
    np.fill_diagonal(distances, -1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.maximum(np.take_along_axis(distances, order, axis=1), 0)


@pytest.mark.parametrize(("n", "d", "k"), [(300, 12, 90), (50, 2, 15), (40, 60, 40)])
def test_equal_to_sorting_all_distances(n, d, k):
    x = np.random.default_rng(n).normal(size=(n, d))
    found = exact_neighbors(x, k)
    indices, distances = by_sorting(x, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-6)
    assert found.distances.dtype == np.float32


def test_far_tight_clusters_keep_their_order():
    """A matrix product in float32 would lose the distances inside these clusters."""
    rng = np.random.default_rng(0)
    x = 1000 * rng.normal(size=(5, 10))[rng.choice(5, 200)] + rng.normal(size=(200, 10))
    np.testing.assert_array_equal(exact_neighbors(x, 20).indices, by_sorting(x, 20)[0])


def test_fewer_cells_than_k_gives_all_cells():
    found = exact_neighbors(np.random.default_rng(0).normal(size=(7, 3)), 90)
    assert found.k == 7
    np.testing.assert_array_equal(np.sort(found.indices, axis=1), np.tile(np.arange(7), (7, 1)))
    assert found.subset(90).k == 7


@given(
    st.integers(1, 60), st.integers(1, 4), st.integers(1, 30), st.integers(1, 5), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_self_first_sorted_and_distinct_even_among_duplicates(n, d, k, levels, seed):
    x = np.random.default_rng(seed).integers(levels, size=(n, d)).astype(float)
    found = exact_neighbors(x, k)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(n))
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert all(len(set(row)) == found.k for row in found.indices)
    np.testing.assert_allclose(found.distances, by_sorting(x, found.k)[1], rtol=1e-6, atol=1e-7)


def test_subset_is_the_search_with_smaller_k():
    x = np.random.default_rng(1).normal(size=(120, 8))
    few, many = exact_neighbors(x, 15), exact_neighbors(x, 90).subset(15)
    np.testing.assert_array_equal(few.indices, many.indices)
    np.testing.assert_array_equal(few.distances, many.distances)


def test_threads_change_nothing_and_the_setting_is_restored():
    import faiss

    x = np.random.default_rng(2).normal(size=(400, 8))
    before = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    one, two = exact_neighbors(x, 30, threads=1), exact_neighbors(x, 30, threads=2)
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.distances, two.distances)
    assert (faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold) == before


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([[1.0, np.nan], [0, 1], [np.inf, 1]]), "2 cells hold NaN"),
    ],
)
def test_bad_embeddings_are_refused(x, message):
    with pytest.raises(DataError, match=message):
        exact_neighbors(x, 2)
