"""Scrublet, then Harmony: against the two packages called one after the other."""

import anndata
import annoy
import harmonypy
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scrublet as package

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ConfigError, DataError, Unsupported
from morebench.methods import scrublet_harmony
from morebench.methods.annoy_trees import one_thread
from morebench.registry import METHODS

PARAMS = dict(METHODS["scrublet_harmony"].params)


def make_input(path, sizes=(200, 160), n_doublets=40, g=300, p=8, drop=0, seed=0):
    """Return cells of four types, every so many of which is two in one, with a PCA of them."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    batch = rng.permutation(np.repeat([f"b{i}" for i in range(len(sizes))], sizes))
    profile = np.random.default_rng(99).lognormal(0, 1.5, size=(4, g))
    first = rng.integers(0, 4, n)
    doublet = np.isin(np.arange(n), rng.permutation(n)[:n_doublets])
    mean = profile[first] + np.where(doublet[:, None], profile[(first + 1) % 4], 0)
    counts = rng.poisson(mean).astype(np.float32)
    logged = np.log1p(1e4 * counts / counts.sum(1, keepdims=True)) + (batch == "b0")[:, None]
    u, s, _ = np.linalg.svd(logged - logged.mean(0), full_matrices=False)
    ids = np.array([f"c{i:06d}" for i in range(n)])
    rna = anndata.AnnData(
        sp.csr_matrix(counts)[: n - drop],
        obs=pd.DataFrame(index=ids[: n - drop]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(g)]),
    )
    adt = anndata.AnnData(
        np.ones((n, 2), np.float32),
        obs=pd.DataFrame(index=ids),
        var=pd.DataFrame(index=["p0", "p1"]),
    )
    mudata.MuData({"rna": rna, "adt": adt}).write_h5mu(path)
    data = MethodInput(
        cell_ids=ids,
        genes=np.array(["g0"]),
        counts_ng=sp.csr_matrix(counts[:, :1]),
        pca_np=(u * s)[:, :p].astype(np.float32),
        obs=pd.DataFrame({"batch": batch}),
        fit_visible=np.ones(n, dtype=bool),
        all_genes_file=path,
    )
    return data, counts, doublet


def run(data, seed=0, threads=1, **params):
    return scrublet_harmony.run(
        data, seed=seed, threads=threads, **(PARAMS | {"n_components": 6} | params)
    )


def test_equals_the_two_packages_and_the_projection_by_hand(tmp_path):
    data, counts, doublet = make_input(tmp_path / "d.h5mu")
    called = np.zeros(360, dtype=bool)
    for name in ("b0", "b1"):
        cells = data.batch == name
        scrub = package.Scrublet(sp.csc_matrix(counts[cells]), random_state=4)
        with one_thread(annoy):
            _, found = scrub.scrub_doublets(verbose=False)
        called[cells] = found
    assert 20 < called.sum() < 60 and (called & doublet).sum() > 0.5 * called.sum()
    z = data.pca_np[:, :6].astype(float)
    expected = z.copy()
    expected[~called] = harmonypy.run_harmony(
        z[~called].T,
        pd.DataFrame({"batch": data.batch[~called]}),
        "batch",
        random_state=4,
        verbose=False,
    ).Z_corr
    for i in np.flatnonzero(called):
        near = np.flatnonzero(~called & (data.batch == data.batch[i]))
        near = near[np.argsort(((z[near] - z[i]) ** 2).sum(1))[:15]]
        expected[i] = z[i] + (expected[near] - z[near]).mean(0)
    out = run(data, seed=4)
    np.testing.assert_allclose(out.embedding, expected, rtol=1e-4, atol=1e-4)
    assert out.notes["n_called"] == called.sum()
    assert out.notes["n_called"] == sum(b["n_called"] for b in out.notes["scrublet"].values())
    assert out.notes["harmony"] == {"harmonypy": "2.1.0"}
    assert "kept_though_called" not in out.notes


def test_called_cells_do_not_shape_the_fit(tmp_path):
    data, _, _ = make_input(tmp_path / "d.h5mu")
    out = run(data)
    found = scrublet_harmony.scrublet.run(
        data, seed=0, threads=1, **{k: PARAMS[k] for k in METHODS["scrublet"].params}
    )
    called, _ = scrublet_harmony.called_cells(found, data.batch)
    data.pca_np = data.pca_np.copy()
    data.pca_np[called] += 50
    moved = run(data)
    np.testing.assert_array_equal(moved.embedding[~called], out.embedding[~called])
    assert np.abs(moved.embedding[called] - out.embedding[called]).min() > 10


def test_settings_and_seed(tmp_path):
    data, _, _ = make_input(tmp_path / "d.h5mu")
    first = run(data, seed=1).embedding
    np.testing.assert_array_equal(first, run(data, seed=1, threads=2).embedding)
    assert np.abs(first - run(data, seed=2).embedding).max() > 0
    for change in ({"theta": 0.0}, {"n_neighbors": 1}, {"sim_doublet_ratio": 4.0}):
        assert np.abs(first - run(data, seed=1, **change).embedding).max() > 1e-3, change
    assert run(data, n_components=3).embedding.shape == (360, 3)


def test_projection_is_a_mean_of_shifts_in_the_batch():
    z = np.array([[0.0], [1.0], [2.0], [0.4], [0.5]])
    batch = np.array(["a", "a", "b", "a", "b"])
    kept = np.array([True, True, True, False, False])
    corrected = np.array([[1.0], [4.0], [-3.0]])  # shifts 1, 3 and -5
    one = scrublet_harmony.projected(z, corrected, kept, batch, 1)
    np.testing.assert_allclose(one.ravel(), [1, 4, -3, 0.4 + 1, 0.5 - 5])
    # more neighbours than the batch has: all of them
    many = scrublet_harmony.projected(z, corrected, kept, batch, 15)
    np.testing.assert_allclose(many.ravel(), [1, 4, -3, 0.4 + 2, 0.5 - 5])
    none = scrublet_harmony.projected(z[:3], corrected, kept[:3], batch[:3], 15)
    np.testing.assert_allclose(none, corrected)


def test_a_batch_that_is_called_whole_stays_in_the_fit():
    found = MethodOutput(
        doublet_score=np.array([0.1, 0.9, 0.8, 0.2]),
        notes={"batches": {"a": {"threshold": 0.5}, "b": {"threshold": 0.15}}},
    )
    called, whole = scrublet_harmony.called_cells(found, np.array(["a", "a", "b", "b"]))
    assert called.tolist() == [False, True, False, False] and whole == ["b"]


def test_small_batch_takes_its_calls_from_the_whole_dataset(tmp_path):
    data, _, _ = make_input(tmp_path / "d.h5mu", sizes=(200, 12))
    out = run(data)
    assert out.notes["scrublet"]["b1"]["scored_with"].startswith("whole dataset, fallback")
    assert out.embedding.shape == (212, 6) and np.isfinite(out.embedding).all()


def test_what_cannot_be_done(tmp_path):
    data, _, _ = make_input(tmp_path / "d.h5mu", sizes=(60,))
    with pytest.raises(Unsupported, match="two batches; found b0"):
        run(data)
    data, _, _ = make_input(tmp_path / "e.h5mu", sizes=(60, 50), drop=3)
    with pytest.raises(Unsupported, match="3 of 110 cells have no rna"):
        run(data)
    data, _, _ = make_input(tmp_path / "f.h5mu", sizes=(60, 50))
    with pytest.raises(ConfigError, match="n_neighbors: found 0"):
        run(data, n_neighbors=0)
    with pytest.raises(DataError, match="n_components: found 9"):
        run(data, n_components=9)
    data.fit_visible[:5] = False
    with pytest.raises(Unsupported, match="hides 5 of 110 cells"):
        run(data)
    data.all_genes_file = None
    data.fit_visible[:] = True
    with pytest.raises(DataError, match="found None"):
        run(data)
