"""scVI and scANVI adapters, against scvi-tools called directly."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from safetensors.numpy import save_file
from tests.seal import seal

from morebench.contract import MethodInput
from morebench.errors import ContractError, DataError, Unsupported
from morebench.methods import scvi as adapter

MODEL = {
    "n_hidden": 16,
    "n_latent": 4,
    "n_layers": 1,
    "dropout_rate": 0.1,
    "dispersion": "gene",
    "gene_likelihood": "zinb",
}
TYPES = np.array(["unlabelled", "t1", "t2"], dtype=object)  # the first is a trap


@pytest.fixture(autouse=True)
def _nothing_is_left_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


def make_input(n=220, g=40, labels=False, seed=0):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    profile = rng.lognormal(0, 1, size=(3, g)) * np.where(rng.random((3, g)) < 0.2, 6, 1)
    shown = TYPES[kind]
    shown[rng.random(n) < 0.4] = None
    data = MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array([f"g{i}" for i in range(g)]),
        counts_ng=sp.csr_matrix(rng.poisson(profile[kind]).astype(np.float32)),
        pca_np=np.zeros((n, 2), np.float32),
        obs=pd.DataFrame({"batch": rng.choice(["a", "b"], n)}),
        fit_visible=np.ones(n, dtype=bool),
        labels=shown if labels else None,
    )
    return data, kind


def scvi_run(data, seed=0, epochs=3):
    return adapter.run(data, seed=seed, threads=1, max_epochs=epochs, batch_size=128, **MODEL)


def scanvi_run(data, seed=0, pretrain=3, epochs=3):
    return adapter.run_scanvi(
        data,
        seed=seed,
        threads=1,
        pretrain_max_epochs=pretrain,
        max_epochs=epochs,
        batch_size=128,
        **MODEL,
    )


def direct_scvi(data, epochs):
    import anndata
    import scvi
    import torch

    torch.set_num_threads(1)
    scvi.settings.seed = 0
    adata = anndata.AnnData(
        data.counts_ng, obs=data.obs.set_index(data.cell_ids), var=pd.DataFrame(index=data.genes)
    )
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch")
    model = scvi.model.SCVI(adata, **MODEL)
    model.train(max_epochs=epochs, enable_progress_bar=False)
    return model, adata


def test_scvi_equals_the_package_and_is_deterministic():
    data, _ = make_input()
    first = scvi_run(data)
    model, _ = direct_scvi(data, 3)
    np.testing.assert_array_equal(first.embedding, model.get_latent_representation())
    np.testing.assert_array_equal(first.embedding, scvi_run(data).embedding)
    assert np.abs(first.embedding - scvi_run(data, seed=1).embedding).max() > 0
    weights = sum(p.numel() for p in model.module.parameters())
    assert first.parameters_trained == weights
    assert first.notes == {"epochs": 3}
    assert (first.labels, first.probabilities) == (None, None)


def test_epochs_left_to_the_package():
    data, _ = make_input(n=60, labels=True)
    assert scvi_run(data, epochs=None).notes["epochs"] == 400
    assert scanvi_run(data, pretrain=2, epochs=None).notes["epochs"] == 10


def test_scanvi_equals_the_package():
    import scvi

    data, _ = make_input(labels=True)
    out = scanvi_run(data)
    model, adata = direct_scvi(data, 3)
    unlabelled = "unlabelled_"  # "unlabelled" is the name of a class here
    adata.obs["cell_type"] = [unlabelled if label is None else label for label in data.labels]
    scanvi = scvi.model.SCANVI.from_scvi_model(
        model, unlabeled_category=unlabelled, labels_key="cell_type"
    )
    scanvi.train(max_epochs=3, enable_progress_bar=False)
    np.testing.assert_array_equal(out.embedding, scanvi.get_latent_representation())
    assert list(out.probabilities.columns) == ["t1", "t2", "unlabelled"]
    soft = scanvi.predict(soft=True)[out.probabilities.columns]
    np.testing.assert_allclose(out.probabilities, soft, atol=1e-6)
    np.testing.assert_array_equal(out.labels, scanvi.predict())
    weights = sum(p.numel() for p in scanvi.module.parameters())
    assert out.parameters_trained == weights - scanvi.module.y_prior.numel()  # a fixed prior
    assert out.notes == {"pretrain_epochs": 3, "epochs": 3}


def test_scanvi_from_a_fitted_scvi_is_the_same_as_with_its_own(tmp_path_factory):
    data, _ = make_input(labels=True)
    own = scanvi_run(data)
    weights = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_file(scvi_run(data).model, weights)
    data.pretrained_file = seal(weights)
    read = scanvi_run(data)
    np.testing.assert_array_equal(read.embedding, own.embedding)
    pd.testing.assert_frame_equal(read.probabilities, own.probabilities)
    assert "read, not fitted" in read.notes["pretrained"] and "pretrain_epochs" not in read.notes


def test_scanvi_labels_every_cell_and_learns():
    data, kind = make_input(labels=True)
    out = scanvi_run(data, pretrain=40, epochs=20)
    hidden = np.array([label is None for label in data.labels])
    assert hidden.sum() > 50
    assert (out.labels == TYPES[kind].astype(str))[hidden].mean() > 0.9
    p = out.probabilities
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert list(p.index) == list(data.cell_ids) and (p.to_numpy() >= 0).all()
    np.testing.assert_array_equal(p.idxmax(axis=1).to_numpy(), out.labels)
    again = scanvi_run(data, pretrain=40, epochs=20)
    np.testing.assert_array_equal(out.embedding, again.embedding)
    pd.testing.assert_frame_equal(p, again.probabilities)


def test_cells_of_a_new_type_are_embedded_but_not_fitted_on():
    data, kind = make_input()
    data.fit_visible = kind != 2
    out = scvi_run(data).embedding
    alone, _ = make_input()
    keep = np.flatnonzero(kind != 2)
    alone = MethodInput(
        alone.cell_ids[keep],
        alone.genes,
        alone.counts_ng[keep],
        alone.pca_np[keep],
        alone.obs.iloc[keep],
        np.ones(len(keep), dtype=bool),
    )
    np.testing.assert_allclose(out[keep], scvi_run(alone).embedding, atol=1e-5)
    assert np.isfinite(out).all() and out.shape == (220, 4)


def test_scanvi_uses_no_label_outside_the_fit():
    data, kind = make_input(labels=True)
    data.fit_visible = kind != 2
    data.labels[kind == 2] = "t2"  # a split shows none; the adapter must not rely on that
    out = scanvi_run(data)
    assert list(out.probabilities.columns) == ["t1", "unlabelled"]
    assert out.embedding.shape == (220, 4)


def test_unseen_batch_is_unsupported():
    data, _ = make_input(labels=True)
    data.fit_visible = (data.obs["batch"] != "b").to_numpy()
    for run in (scvi_run, scanvi_run):
        with pytest.raises(Unsupported, match="batch b is not among the fitted a"):
            run(data)


def test_cells_without_counts_are_embedded_but_not_fitted_on():
    data, _ = make_input()
    counts = data.counts_ng.toarray()
    counts[5:8] = 0
    data.counts_ng = sp.csr_matrix(counts)
    out = scvi_run(data)
    assert np.isfinite(out.embedding).all()
    assert out.notes["not_fitted_on"] == "3 cells without a count in the split's genes"


@pytest.mark.parametrize("classes", [0, 1])
def test_scanvi_needs_two_classes(classes):
    data, _ = make_input(labels=True)
    data.labels = np.array(["t1" if classes else None] * data.n_cells, dtype=object)
    with pytest.raises(DataError, match=rf"shows {classes} classes"):
        scanvi_run(data)


def test_scanvi_needs_labels():
    with pytest.raises(ContractError, match="found None"):
        scanvi_run(make_input()[0])


def test_scanvi_survives_a_last_batch_of_one_cell():
    data, _ = make_input(n=143, labels=True)
    # ceil(.9 * 31) + ceil(.9 * 112) = 129 cells to train on
    data.labels = np.array(["t1"] * 20 + ["t2"] * 11 + [None] * 112, dtype=object)
    out = scanvi_run(data)
    assert out.notes["batch_size"] == "127 instead of 128: a last batch of one cell fails"
    assert np.isfinite(out.embedding).all()


@pytest.mark.parametrize(
    ("labelled", "hidden", "asked", "expected"),
    [(100, 100, 128, 128), (31, 111, 128, 128), (31, 112, 128, 127), (143, 0, 128, 127)],
)
def test_batch_size_for_scanvi(labelled, hidden, asked, expected):
    mask = np.repeat([True, False], [labelled, hidden])
    assert adapter._scanvi_batch_size(mask, asked) == expected
