"""The Scanorama adapter, against scanorama called directly."""

import numpy as np
import pandas as pd
import pytest
import scanorama.scanorama as package
import scipy.sparse as sp
from threadpoolctl import threadpool_info

from morebench.contract import MethodInput
from morebench.errors import DataError, Unsupported
from morebench.methods import scanorama
from morebench.registry import METHODS

PARAMS = dict(METHODS["scanorama"].params)


def make_input(sizes, g=60, n_types=3, seed=0, interleave=True):
    """Return cells of distinct types in batches of these sizes, whose genes are shifted."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(9).lognormal(0, 1.2, size=(n_types, g))
    batch = np.repeat([f"b{i}" for i in range(len(sizes))], sizes)
    shift = np.random.default_rng(8).lognormal(0, 0.5, size=(len(sizes), g))
    types = rng.integers(0, n_types, len(batch))
    counts = rng.poisson(profile[types] * np.repeat(shift, sizes, axis=0)).astype(np.float32)
    order = np.random.default_rng(7).permutation(len(batch)) if interleave else slice(None)
    data = MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(len(batch))]),
        genes=np.array([f"g{g - j}" for j in range(g)]),  # not in alphabetical order
        counts_ng=sp.csr_matrix(counts[order]),
        pca_np=np.zeros((len(batch), 2), np.float32),
        obs=pd.DataFrame({"batch": batch[order]}),
        fit_visible=np.ones(len(batch), dtype=bool),
    )
    return data, types[order]


def run(data, seed=0, threads=1, **params):
    return scanorama.run(data, seed=seed, threads=threads, **(PARAMS | params))


def direct(data, **options):
    """Scanorama's own integration, cells put back by their batch."""
    counts = data.counts_ng.toarray().astype(float)
    logged = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    rows = [np.flatnonzero(data.batch == b) for b in sorted(set(data.batch))]
    parts, _ = package.integrate(
        [sp.csr_matrix(logged[r]) for r in rows],
        [list(data.genes) for _ in rows],
        verbose=False,
        **options,
    )
    out = np.full((data.n_cells, parts[0].shape[1]), np.nan)
    for r, part in zip(rows, parts, strict=True):
        out[r] = part
    return out


def test_equals_the_package():
    data, _ = make_input([70, 90, 40])
    # approximate trees of the package take every core, so that only exact ones are its own
    expected = direct(data, approx=False, seed=3)
    out = run(data, seed=3, approx=False)
    np.testing.assert_allclose(out.embedding, expected, rtol=1e-5, atol=1e-6)
    assert out.notes == {"dimensions": 60, "neighbours": "exact"}
    given = {"dimred": 12, "knn": 8, "sigma": 3.0, "alpha": 0.2, "batch_size": 50, "hvg": 40}
    expected = direct(data, approx=False, seed=1, **given)
    out = run(data, seed=1, approx=False, **given)
    np.testing.assert_allclose(out.embedding, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(out.embedding - run(data, seed=1, approx=False, dimred=12).embedding).max() > 0.01


def test_the_default_asks_annoy_for_one_thread_and_puts_it_back(monkeypatch):
    asked = []
    original = package.AnnoyIndex

    class Recording(original):
        def build(self, n_trees, n_jobs=-1):
            asked.append((n_trees, n_jobs))
            return super().build(n_trees, n_jobs=n_jobs)

    monkeypatch.setattr(package, "AnnoyIndex", Recording)
    data, _ = make_input([70, 90, 40])
    out = run(data)
    assert asked and set(asked) == {(10, 1)} and package.AnnoyIndex is Recording
    assert out.notes["neighbours"] == "approximate: annoy, one thread"
    exact = run(data, approx=False).embedding
    assert np.corrcoef(out.embedding.ravel(), exact.ravel())[0, 1] > 0.99


def test_cells_come_back_in_their_order():
    data, types = make_input([60, 50], interleave=False)
    out = run(data, dimred=10).embedding
    # the same batches, each in its own order, shuffled into each other
    rng = np.random.default_rng(0)
    order = np.argsort(rng.random(110), kind="stable")
    order[data.batch[order] == "b0"] = np.arange(60)
    order[data.batch[order] == "b1"] = np.arange(60, 110)
    assert (np.diff(order) < 0).any() and sorted(order) == list(range(110))
    mixed = MethodInput(
        cell_ids=data.cell_ids,
        genes=data.genes,
        counts_ng=data.counts_ng[order],
        pca_np=data.pca_np,
        obs=data.obs.iloc[order],
        fit_visible=data.fit_visible,
    )
    np.testing.assert_array_equal(run(mixed, dimred=10).embedding, out[order])


def test_batches_of_a_type_come_together():
    data, types = make_input([80, 80, 60])
    out = run(data, dimred=20).embedding
    apart = run(data, dimred=20, alpha=1.0).embedding  # nothing is joined

    def distance(x):
        """Between batches' centres of a type, in units of the distance between types."""
        centre = np.array(
            [[x[(types == t) & (data.batch == b)].mean(0) for t in range(3)] for b in ("b0", "b1")]
        )
        between = np.linalg.norm(centre[0][:, None] - centre[0][None], axis=2).max()
        return np.linalg.norm(centre[0] - centre[1], axis=1).mean() / between

    assert distance(out) < 0.5 * distance(apart)


def test_seed_and_threads(monkeypatch):
    seen = []
    original = package.integrate

    def recording(*words, **options):
        seen.append(max(i["num_threads"] for i in threadpool_info()))
        return original(*words, **options)

    monkeypatch.setattr(package, "integrate", recording)
    data, _ = make_input([70, 60])
    first = run(data, seed=1, dimred=10).embedding
    np.testing.assert_array_equal(first, run(data, seed=1, dimred=10).embedding)
    again = run(data, seed=1, dimred=10, threads=2).embedding
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert seen == [1, 1, 2]
    # the randomised SVD is what is drawn; it is close to the exact one
    other = run(data, seed=2, dimred=10).embedding
    assert 0 < np.abs(first - other).max()


def test_small_batches_and_empty_cells():
    data, _ = make_input([1, 6, 60])
    data.counts_ng = sp.csr_matrix(data.counts_ng.multiply((np.arange(67) != 5)[:, None]))
    out = run(data)
    assert out.embedding.shape == (67, 60) and np.isfinite(out.embedding).all()
    with pytest.raises(DataError, match="found 20, but the first or the last batch has 1 cells"):
        run(data, approx=False)


def test_one_batch_and_hidden_cells_are_unsupported():
    data, _ = make_input([40])
    with pytest.raises(Unsupported, match="two batches; found b0"):
        run(data)
    data, _ = make_input([30, 30])
    data.fit_visible[:4] = False
    with pytest.raises(Unsupported, match="hides 4 of 60 cells"):
        run(data)
