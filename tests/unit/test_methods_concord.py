"""CONCORD adapters, against concord-sc called directly."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import morebench
from morebench.contract import MethodInput
from morebench.errors import ConfigError, ContractError, DataError
from morebench.methods import concord as adapter
from morebench.registry import METHODS

MODEL = {
    "latent_dim": 8,
    "encoder_dims": (32, 16),
    "batch_size": 64,
    "n_epochs": 3,
    "lr": 0.01,
    "schedule_ratio": 0.97,
    "element_mask_prob": 0.4,
    "feature_mask_prob": 0.3,
    "clr_temperature": 0.4,
    "clr_beta": 1.0,
}
TYPES = np.array(["", "t1", "t2"], dtype=object)  # the first is a trap


@pytest.fixture(autouse=True)
def _nothing_is_left_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def make_input(n=260, g=40, labels=False, batches=("a", "b"), seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    profile = rng.lognormal(0, 1, size=(3, g)) * np.where(rng.random((3, g)) < 0.2, 6, 1)
    shown = TYPES[kind]
    shown[rng.random(n) < 0.4] = None
    counts = rng.poisson(profile[kind]).astype(np.float32)
    counts[5] = 0  # a cell without a count
    data = MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array([f"g{i}" for i in range(g)]),
        counts_ng=sp.csr_matrix(counts),
        pca_np=np.zeros((n, 2), np.float32),
        obs=pd.DataFrame({"batch": rng.choice(batches, n)}),
        fit_visible=np.ones(n, dtype=bool),
        labels=shown if labels else None,
    )
    return data, kind


def run(data, seed=0, **changes):
    return adapter.run(data, seed=seed, threads=1, **MODEL | changes)


def run_class(data, seed=0, classifier_weight=1.0, **changes):
    given = MODEL | {"classifier_weight": classifier_weight} | changes
    return adapter.run_class(data, seed=seed, threads=1, **given)


def some(data, keep):
    """Return the input of some cells."""
    labels = None if data.labels is None else data.labels[keep]
    return MethodInput(
        data.cell_ids[keep], data.genes, data.counts_ng[keep], data.pca_np[keep],
        data.obs.iloc[keep].reset_index(drop=True), data.fit_visible[keep], labels,
    )  # fmt: skip


def direct(data, **options):
    """Return the AnnData and the model of the package, called as its documentation does."""
    import anndata
    import scanpy as sc
    import torch
    from concord import Concord

    adata = anndata.AnnData(
        data.counts_ng.astype(np.float64), obs=data.obs.set_index(data.cell_ids),
        var=pd.DataFrame(index=data.genes),
    )  # fmt: skip
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    adata.X = adata.X.astype(np.float32)  # rounded once: training makes more of another rounding
    if "class_key" in options:
        adata.obs["cell_type"] = ["none" if label is None else label for label in data.labels]
    torch.set_num_threads(1)
    given = {"preload_dense": True} | MODEL | options
    model = Concord(adata, save_dir=None, seed=0, **given)
    model.fit_transform("X_concord", save_model=False)
    return adata, model


def test_defaults_are_those_of_the_package():
    import anndata
    from concord import Concord

    found = Concord(anndata.AnnData(np.eye(3, dtype=np.float32)), save_dir=None).default_params
    for name in ("concord", "concord_class"):
        params = dict(METHODS[name].params) | {
            "encoder_dims": list(METHODS[name].params["encoder_dims"])
        }
        assert params == {key: found[key] for key in params}
    # what the adapter leaves alone
    assert (found["use_classifier"], found["use_decoder"], found["p_intra_knn"]) == (
        False,
        False,
        0,
    )
    assert (found["p_intra_domain"], found["train_frac"], found["pretrained_model"]) == (1, 1, None)


def test_concord_equals_the_package_and_is_deterministic():
    data, _ = make_input()
    out = run(data)
    adata, model = direct(data, domain_key="batch")
    np.testing.assert_allclose(out.embedding, adata.obsm["X_concord"], atol=1e-5)
    assert out.embedding.shape == (260, 8) and out.embedding.dtype == np.float32
    assert np.ptp(out.embedding, axis=0).min() > 0.01
    np.testing.assert_array_equal(out.embedding, run(data).embedding)
    assert np.abs(out.embedding - run(data, seed=1).embedding).max() > 0.1
    changed = {k for k, p in model.model.named_parameters() if p.grad is not None}
    assert {k.split(".")[0] for k in changed} == {"encoder"}
    weights = sum(p.numel() for k, p in model.model.named_parameters() if k in changed)
    assert out.parameters_trained == weights
    assert (out.labels, out.probabilities, out.notes) == (None, None, {})


def test_every_setting_reaches_the_package():
    data, _ = make_input(labels=True)
    changes = {
        "latent_dim": 5, "encoder_dims": (7,), "batch_size": 32, "n_epochs": 2, "lr": 0.02,
        "schedule_ratio": 0.5, "element_mask_prob": 0.1, "feature_mask_prob": 0.0,
        "clr_temperature": 0.9, "clr_beta": 0.0,
    }  # fmt: skip
    assert set(changes) == set(MODEL)
    plain = run(data).embedding
    for key, value in changes.items():
        found = run(data, **{key: value}).embedding
        assert found.shape != plain.shape or np.abs(found - plain).max() > 1e-3, key
    one, other = (run_class(data, classifier_weight=w).embedding for w in (1.0, 5.0))
    assert np.abs(one - other).max() > 1e-3
    adata, _ = direct(data, domain_key="batch", **changes)
    np.testing.assert_allclose(run(data, **changes).embedding, adata.obsm["X_concord"], atol=1e-5)


def test_concord_class_equals_the_package():
    data, _ = make_input(labels=True)
    out = run_class(data)
    adata, model = direct(
        data, domain_key="batch", class_key="cell_type", use_classifier=True, unlabeled_class="none"
    )
    np.testing.assert_allclose(out.embedding, adata.obsm["X_concord"], atol=1e-5)
    assert list(out.probabilities.columns) == ["", "t1", "t2"]
    names = [f"X_concord_class_prob_{name}" for name in out.probabilities.columns]
    np.testing.assert_allclose(out.probabilities, adata.obs[names], atol=1e-6)
    np.testing.assert_array_equal(out.labels, adata.obs["X_concord_class_pred"])
    head = sum(p.numel() for p in model.model.classifier.parameters())
    assert out.parameters_trained == run(data).parameters_trained + head
    assert out.notes == {}


def test_all_labels_shown_is_the_package_without_an_unlabelled_class():
    data, kind = make_input(labels=True)
    data.labels = TYPES[kind]
    adata, _ = direct(data, domain_key="batch", class_key="cell_type", use_classifier=True)
    np.testing.assert_allclose(run_class(data).embedding, adata.obsm["X_concord"], atol=1e-5)


def test_concord_class_labels_every_cell_and_learns():
    data, kind = make_input(labels=True)
    out = run_class(data, n_epochs=25)
    hidden = np.array([label is None for label in data.labels])
    assert hidden.sum() > 60
    assert (out.labels == TYPES[kind].astype(str))[hidden].mean() > 0.9
    p = out.probabilities
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert list(p.index) == list(data.cell_ids) and (p.to_numpy() >= 0).all()
    np.testing.assert_array_equal(p.idxmax(axis=1).to_numpy(), out.labels)
    again = run_class(data, n_epochs=25)
    np.testing.assert_array_equal(out.embedding, again.embedding)
    pd.testing.assert_frame_equal(p, again.probabilities)


def test_cells_of_one_type_lie_together_across_batches():
    data, kind = make_input(n=600)
    shift = np.where(np.arange(40) % 4 == 0, 4, 1)  # the second batch counts some genes more
    second = sp.diags((data.batch == "b").astype(float)) @ data.counts_ng.multiply(shift - 1)
    data.counts_ng = sp.csr_matrix(data.counts_ng + second, dtype=np.float32)
    z_nd = run(data, n_epochs=30).embedding

    def apart(groups):
        means = np.array([z_nd[groups == g].mean(axis=0) for g in np.unique(groups)])
        return np.mean([np.linalg.norm(a - b) for a in means for b in means if a is not b])

    assert apart(kind) > 2 * apart(data.batch)


def test_unseen_cells_are_embedded_and_change_nothing():
    """Cells of a new batch, and labels of cells outside the fit, leave fitted cells as they are."""
    data, _ = make_input(labels=True, batches=("a", "b", "c"))
    data.fit_visible = data.batch != "c"
    seen = np.flatnonzero(data.fit_visible)
    for method in (run, run_class):
        whole, alone = method(data), method(some(data, seen))
        np.testing.assert_allclose(whole.embedding[seen], alone.embedding, atol=1e-6)
        assert np.isfinite(whole.embedding).all() and len(whole.embedding) == data.n_cells
    plain = run_class(data)
    data.labels = np.where(data.fit_visible, data.labels, "elsewhere")
    told = run_class(data)
    np.testing.assert_array_equal(plain.embedding, told.embedding)
    pd.testing.assert_frame_equal(plain.probabilities, told.probabilities)
    assert "elsewhere" not in told.probabilities.columns


def test_a_cell_is_embedded_without_its_batch():
    data, _ = make_input(batches=("a", "b", "c"))
    data.fit_visible = data.batch != "c"
    before = run(data).embedding
    data.obs["batch"] = np.where(data.fit_visible, data.batch, "a name of its own")
    np.testing.assert_array_equal(run(data).embedding, before)


def test_one_batch_is_the_package_without_a_domain():
    data, _ = make_input(batches=("a",))
    adata, _ = direct(data)
    np.testing.assert_allclose(run(data).embedding, adata.obsm["X_concord"], atol=1e-5)


def test_a_batch_too_small_for_a_step_is_embedded_but_not_fitted_on():
    data, _ = make_input(labels=True)
    data.obs.loc[:2, "batch"] = "tiny"
    data.labels[:3] = "only there"
    rest = np.arange(3, data.n_cells)
    for method in (run, run_class):
        out = method(data)
        alone = method(some(data, rest))
        np.testing.assert_allclose(out.embedding[rest], alone.embedding, atol=1e-6)
        assert out.notes == {"not_fitted_on": "batches of fewer than 4 cells: tiny"}
    assert "only there" not in out.probabilities.columns


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"latent_dim": 0}, "latent_dim: found 0; valid: 1 or more"),
        ({"batch_size": 3}, "batch_size: found 3; valid: 4 or more"),
        ({"n_epochs": 0}, "n_epochs: found 0; valid: 1 or more"),
        ({"element_mask_prob": 1.0}, "element_mask_prob: found 1.0; valid: 0 or more, below 1"),
        ({"feature_mask_prob": -0.1}, "feature_mask_prob: found -0.1"),
    ],
)
def test_numbers_that_make_no_sense(changes, found):
    with pytest.raises(ConfigError, match=found):
        run(make_input(n=20)[0], **changes)


def test_input_that_cannot_be_fitted():
    data, _ = make_input(labels=True, n=30)
    data.obs["batch"] = [f"b{i // 3}" for i in range(30)]
    with pytest.raises(DataError, match="at most 3 cells in one that may be fitted on; .* needs 4"):
        run(data)
    data, _ = make_input(labels=True, n=30)
    data.labels = np.where(data.labels == "t1", data.labels, None)
    with pytest.raises(DataError, match="shows 1 classes .t1. .* needs at least 2"):
        run_class(data)
    data.labels = None
    with pytest.raises(ContractError, match="CONCORD's classifier needs the labels"):
        run_class(data)


def test_importing_the_adapter_loads_no_package():
    code = "import sys; import morebench.methods.concord; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(Path(morebench.__file__).parents[1])},
    )  # fmt: skip
    assert not set(done.stdout.split()) & {"torch", "anndata", "scanpy", "concord"}


@pytest.mark.slow
def test_no_pickle_no_network_no_file(tmp_path, tmp_path_factory):
    """Watched by Python itself, in a process of its own: imports too."""
    script = tmp_path_factory.mktemp("script") / "watched.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import sklearn.neighbors  # numba, joblib, matplotlib: what they do is not the package's
        import scanpy, plotly

        def watch(event, args):
            if event in ("pickle.find_class", "socket.connect", "socket.getaddrinfo"):
                print("SEEN", event, args)
            if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
                print("SEEN", event, args)

        sys.addaudithook(watch)
        import tests.unit.test_methods_concord as t
        data, _ = t.make_input(labels=True)
        t.run(data), t.run_class(data)
        print("DONE")
        import pickle
        pickle.loads(pickle.dumps(t.make_input))
        open("left_behind", "w")
        """)
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-P", "-B", str(script)], capture_output=True, text=True, check=True,
        cwd=tmp_path, env={"PYTHONPATH": f"{root}:{root / 'src'}", "HOME": str(script.parent)},
    )  # fmt: skip
    before, after = done.stdout.split("DONE")
    assert "SEEN" not in before, before
    assert "pickle.find_class" in after and "left_behind" in after  # the watch works
    (tmp_path / "left_behind").unlink()
