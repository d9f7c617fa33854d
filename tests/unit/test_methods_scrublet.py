"""The Scrublet adapter, against scrublet called directly."""

import anndata
import annoy
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scrublet as package
from sklearn.metrics import average_precision_score, roc_auc_score

from morebench.contract import MethodInput
from morebench.errors import DataError, Unsupported
from morebench.methods import scrublet
from morebench.methods.annoy_trees import one_thread
from morebench.registry import METHODS

PARAMS = dict(METHODS["scrublet"].params)


def simulate(n, seed=0, n_doublets=0, n_types=4, g=300):
    """Return (n, g) counts of distinct types, and which cells are two cells in one."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(99).lognormal(0, 1.5, size=(n_types, g))
    first, second = rng.integers(0, n_types, n), rng.integers(0, n_types, n)
    doublet = np.arange(n) < n_doublets
    second[doublet] = (first[doublet] + 1) % n_types
    mean = profile[first] + np.where(doublet[:, None], profile[second], 0)
    return rng.poisson(mean).astype(np.float32), doublet


def write(path, counts, batch, shuffle=True, drop=0):
    """Write a prepared file whose RNA is in another order, and a protein modality beside it."""
    ids = np.array([f"c{i:06d}" for i in range(len(counts))])
    order = np.random.default_rng(1).permutation(len(ids)) if shuffle else np.arange(len(ids))
    order = order[: len(ids) - drop]
    rna = anndata.AnnData(
        sp.csr_matrix(counts[order]),
        obs=pd.DataFrame(index=ids[order]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(counts.shape[1])]),
    )
    adt = anndata.AnnData(
        np.ones((len(ids), 2), np.float32),
        obs=pd.DataFrame(index=ids),
        var=pd.DataFrame(index=["p0", "p1"]),
    )
    mudata.MuData({"rna": rna, "adt": adt}).write_h5mu(path)
    return MethodInput(
        cell_ids=ids,
        genes=np.array(["g0"]),
        counts_ng=sp.csr_matrix((len(ids), 1), dtype=np.float32),
        pca_np=np.zeros((len(ids), 2), np.float32),
        obs=pd.DataFrame({"batch": batch}),
        fit_visible=np.ones(len(ids), dtype=bool),
        all_genes_file=path,
    )


def run(data, seed=0, **params):
    return scrublet.run(data, seed=seed, threads=1, **(PARAMS | params))


def direct(counts, seed, n_prin_comps=30, **more):
    scrub = package.Scrublet(sp.csc_matrix(counts), random_state=seed)
    with one_thread(annoy):
        scores, called = scrub.scrub_doublets(n_prin_comps=n_prin_comps, verbose=False, **more)
    return scrub, scores, called


def test_each_batch_equals_a_direct_run(tmp_path):
    counts, doublet = simulate(500, n_doublets=40)
    batch = np.where(np.arange(500) % 5 < 2, "a", "b")
    out = run(write(tmp_path / "d.h5mu", counts, batch), seed=7)
    for name in ("a", "b"):
        scrub, scores, called = direct(counts[batch == name], 7)
        np.testing.assert_array_equal(out.doublet_score[batch == name], scores)
        note = out.notes["batches"][name]
        assert note["n_cells"] == (batch == name).sum() and note["scored_with"] == "batch"
        assert called is not None
        assert note["threshold"] == scrub.threshold_ and note["n_called"] == called.sum()
        assert "minimum between the two modes" in note["threshold_found"]
    assert roc_auc_score(doublet, out.doublet_score) > 0.9
    again = run(write(tmp_path / "e.h5mu", counts, batch, shuffle=False), seed=7)
    np.testing.assert_array_equal(out.doublet_score, again.doublet_score)
    assert (
        np.abs(
            run(write(tmp_path / "f.h5mu", counts, batch), seed=8).doublet_score - out.doublet_score
        ).max()
        > 0
    )


def test_exact_neighbours_are_a_parameter(tmp_path):
    counts, _ = simulate(400, n_doublets=30)
    data = write(tmp_path / "d.h5mu", counts, np.repeat("a", 400))
    approximate, exact = run(data), run(data, use_approx_neighbors=False)
    _, scores, _ = direct(counts, 0, use_approx_neighbors=False)
    np.testing.assert_array_equal(exact.doublet_score, scores)
    assert exact.notes["neighbours"] == "exact"
    assert approximate.notes["neighbours"] == "approximate: annoy, one thread"
    assert 0.95 < np.corrcoef(exact.doublet_score, approximate.doublet_score)[0, 1] < 1
    assert annoy.AnnoyIndex.__name__ == "Annoy"  # the package's own, outside the run


REAL = {
    # truth by demuxlet and by hashing, where a cell without a hashtag has none
    "cellbench_lungcelllines_multitech_doublets": (lambda obs: obs["is_doublet"], None),
    "doublet_cellhashing_celllines_chcl": (lambda obs: obs["hto_class"] == "Doublet", "Negative"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_auprc_on_real_doublets_is_that_of_the_package(name, data_file, tmp_path):
    """Against the package as its user calls it, batch by batch: all cores, no guard."""
    found = anndata.read_h5ad(data_file(f"{name}.h5ad"))
    doublet, untold = REAL[name]
    truth = doublet(found.obs).to_numpy(dtype=bool)
    known = np.ones(len(truth), bool) if untold is None else found.obs["hto_class"] != untold
    batch = found.obs["batch"].astype(str).to_numpy()
    counts = sp.csr_matrix(found.X)
    data = write(tmp_path / "d.h5mu", counts.toarray(), batch)
    for seed in (0, 1, 2):
        theirs = np.empty(len(truth))
        for one in np.unique(batch):
            scrub = package.Scrublet(counts[batch == one], random_state=seed)
            theirs[batch == one] = scrub.scrub_doublets(verbose=False)[0]
        ours = run(data, seed=seed).doublet_score
        a, b = (average_precision_score(truth[known], s[known]) for s in (ours, theirs))
        print(f"{name}, seed {seed}: AUPRC {a:.4f} here, {b:.4f} by the package")
        assert abs(a - b) <= 0.02
        assert a > truth[known].mean() + 0.1


def test_no_threshold_falls_back_to_the_expected_rate(tmp_path):
    # with so few cells the simulated scores take a handful of values: no two modes
    counts, _ = simulate(25, n_types=2, g=900)
    _, scores, called = direct(counts, 2, n_prin_comps=24)
    assert called is None
    out = run(write(tmp_path / "d.h5mu", counts, np.repeat("a", 25)), seed=2)
    np.testing.assert_array_equal(out.doublet_score, scores)
    note = out.notes["batches"]["a"]
    assert note["threshold_found"].startswith("threshold: none, fallback: quantile")
    assert note["threshold"] == np.quantile(scores, 0.9)
    assert note["n_called"] == (scores > np.quantile(scores, 0.9)).sum()


def test_small_batch_takes_its_scores_from_the_whole_dataset(tmp_path):
    counts, _ = simulate(212, n_doublets=20)
    batch = np.repeat(["big", "tiny", "one"], [200, 11, 1])
    out = run(write(tmp_path / "d.h5mu", counts, batch), seed=3)
    np.testing.assert_array_equal(out.doublet_score[:200], direct(counts[:200], 3)[1])
    np.testing.assert_array_equal(out.doublet_score[200:], direct(counts, 3)[1][200:])
    assert out.notes["batches"]["big"]["scored_with"] == "batch"
    assert out.notes["batches"]["tiny"]["scored_with"].startswith("whole dataset, fallback")
    assert out.notes["batches"]["one"]["n_cells"] == 1


def test_batch_without_variable_genes_falls_back_too(tmp_path):
    counts, _ = simulate(140)
    counts[100:] = np.random.default_rng(0).random((40, 300)) < 0.05  # hardly a count
    out = run(write(tmp_path / "d.h5mu", counts, np.repeat(["a", "thin"], [100, 40])))
    assert out.notes["batches"]["thin"]["scored_with"].startswith("whole dataset, fallback")
    assert np.isfinite(out.doublet_score).all()


@pytest.mark.parametrize("n", [20, 25, 31])
def test_components_stay_below_the_number_of_cells(tmp_path, n):
    counts, _ = simulate(n, g=900)
    out = run(write(tmp_path / "d.h5mu", counts, np.repeat("a", n)))
    _, scores, _ = direct(counts, 0, n_prin_comps=min(30, n - 1))
    np.testing.assert_array_equal(out.doublet_score, scores)


def test_too_small_a_dataset(tmp_path):
    counts, _ = simulate(19)
    with pytest.raises(DataError, match="19 cells in the whole dataset.*at least 20 cells"):
        run(write(tmp_path / "d.h5mu", counts, np.repeat("a", 19)))


def test_cells_without_rna_or_counts(tmp_path):
    counts, _ = simulate(60)
    with pytest.raises(Unsupported, match="2 of 60 cells have no rna"):
        run(write(tmp_path / "d.h5mu", counts, np.repeat("a", 60), drop=2))
    counts[7] = 0
    with pytest.raises(DataError, match=r"1 cells have no rna count at all \(c000007\)"):
        run(write(tmp_path / "e.h5mu", counts, np.repeat("a", 60)))


def test_missing_file_or_modality(tmp_path):
    counts, _ = simulate(60)
    data = write(tmp_path / "d.h5mu", counts, np.repeat("a", 60))
    data.all_genes_file = None
    with pytest.raises(DataError, match="found None"):
        run(data)
    adt = anndata.AnnData(np.ones((60, 2), np.float32), obs=pd.DataFrame(index=data.cell_ids))
    mudata.MuData({"adt": adt}).write_h5mu(tmp_path / "e.h5mu")
    data.all_genes_file = tmp_path / "e.h5mu"
    with pytest.raises(Unsupported, match="no mod/rna, found adt"):
        run(data)


def test_hidden_cells_are_unsupported(tmp_path):
    counts, _ = simulate(60)
    data = write(tmp_path / "d.h5mu", counts, np.repeat("a", 60))
    data.fit_visible[3] = False
    with pytest.raises(Unsupported, match="hides 1 of 60 cells"):
        run(data)
