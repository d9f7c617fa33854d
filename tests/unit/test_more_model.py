"""MoRE for users: fit, embed, annotate, denoise, on AnnData and MuData."""

import subprocess
import sys
import textwrap
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import morebench
from morebench.contract import UNKNOWN as CALLED_UNKNOWN
from morebench.errors import DataError, Unsupported
from morebench.models.more import genes
from morebench.models.more.backbone import load_backbone
from morebench.models.more.cells import one_modality
from morebench.models.more.expression import normalise
from morebench.models.more.labels import UNKNOWN, label_codes, shown_labels
from morebench.models.more.model import MoRE
from morebench.models.more.settings import Settings

SETTINGS = {
    "backbone": "none", "n_components": 8, "structure": False, "n_latent": 6, "n_hidden": 16,
    "steps": 40, "batch_size": 64, "min_epochs": 1, "n_prototypes": 4, "learning_rate": 5e-3,
    "spectrum": 1.0,
}  # fmt: skip
KINDS = np.array(["B", "NK", "T"])


def planted(n=180, g=40, batches=3, seed=0):
    """AnnData of three types, whose batches have gene factors of their own."""
    rng = np.random.default_rng(seed)
    kind, batch = rng.integers(0, 3, n), np.arange(n) % batches
    rate = rng.gamma(0.6, 5, (3, g))[kind] * rng.lognormal(0, 0.5, (batches, g))[batch]
    obs = pd.DataFrame(
        {"batch": [f"b{b}" for b in batch], "cell_type": pd.Categorical(KINDS[kind])},
        index=[f"c{i}" for i in range(n)],
    )
    names = pd.DataFrame(index=[f"GENE{j}" for j in range(g)])
    return anndata.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs, var=names)


def fit(data, labels_key=None, *, seed=0, batch_key="batch", **changes):
    settings = Settings(**{**SETTINGS, **changes})
    return MoRE.fit(
        data, batch_key, labels_key, settings=settings, seed=seed, device="cpu", threads=1
    )


@pytest.fixture(scope="module")
def data():
    return planted()


@pytest.fixture(scope="module")
def fitted(data):
    return fit(data)


def nearest_kind(reference, kinds, query):
    return kinds[torch.cdist(torch.as_tensor(query), torch.as_tensor(reference)).argmin(1).numpy()]


# --- fit and embed ------------------------------------------------------------------------


def test_the_seed_decides_the_embedding(data, fitted):
    z = fitted.embed(data)
    assert z.shape == (180, 6) and z.dtype == np.float32
    assert fitted.batches.tolist() == ["b0", "b1", "b2"] and not len(fitted.classes)
    np.testing.assert_array_equal(z, fitted.embed(data))
    np.testing.assert_array_equal(z, fit(data).embed(data))
    assert not np.allclose(z, fit(data, seed=1).embed(data))


def test_the_embedding_is_given_out_along_the_axes(data, fitted):
    cells = fitted._cells(data)
    z = fitted._embed(cells, fitted._inputs(cells, None))[0]
    centre, axes = fitted.network.centre_d.numpy(), fitted.network.axes_dd.numpy()
    assert not np.allclose(axes, np.eye(6), atol=0.1)
    np.testing.assert_allclose(fitted.embed(data), (z - centre) @ axes, atol=1e-4)
    plain = fit(data, axes=False)
    np.testing.assert_allclose(plain.embed(data), z, atol=1e-6)


def test_fitting_leaves_the_data_and_the_threads_as_they_were(data):
    before, threads = data.X.copy(), torch.get_num_threads()
    given = data.copy()
    fit(given)
    assert (given.X != before).nnz == 0 and not given.obsm and list(given.obs) == list(data.obs)
    assert torch.get_num_threads() == threads


def test_without_structure_a_cell_is_embedded_as_it_is_among_others(data, fitted):
    rows = np.arange(0, 180, 7)
    np.testing.assert_allclose(fitted.embed(data[rows]), fitted.embed(data)[rows], atol=1e-6)


def test_one_batch_needs_no_column(data):
    model = fit(data, batch_key=None)
    assert model.batches.tolist() == ["all"]
    assert np.isfinite(model.embed(data)).all()
    assert fit(data, batch_key=None, structure=True).embed(data).shape == (180, 6)


def test_a_batch_never_seen_comes_to_the_cells_of_its_types():
    everything = planted(n=500, batches=5)
    known = everything.obs["batch"].to_numpy() != "b4"
    kinds = everything.obs["cell_type"].astype(str).to_numpy()
    model = fit(everything[known], steps=100, batch_size=256, n_latent=8)
    seen, unseen = model.embed(everything[known]), model.embed(everything[~known])
    found = nearest_kind(seen, kinds[known], unseen)
    assert (found == kinds[~known]).mean() > 0.95
    # the planted shift is there in the expression branch: what refinement is for
    own = model.transforms.expression["rna"].transform
    raw_seen, raw_new = own(everything[known].X), own(everything[~known].X)

    def apart(seen, new):
        """Distance of a type's unseen cells to its seen ones, over that to the other types."""
        own, other = [], []
        for kind in KINDS:
            centre = new[kinds[~known] == kind].mean(0)
            for to in KINDS:
                gap = np.linalg.norm(centre - seen[kinds[known] == to].mean(0))
                (own if to == kind else other).append(gap)
        return np.mean(own) / np.mean(other)

    assert apart(seen, unseen) < 0.8 * apart(raw_seen, raw_new)


def test_an_unseen_batch_gets_the_estimate_of_its_mean(data, fitted):
    query = data[:40].copy()
    query.obs["batch"] = ["new"] * 25 + ["b1"] * 15
    with torch.no_grad():
        inputs = fitted._inputs(fitted._cells(query), None)
        x, present = torch.as_tensor(inputs.x_np), torch.as_tensor(inputs.present_nm)
        fused, _ = fitted.network.fuse(x, present)
        guess = fitted.network.refine.estimate(fused[:25].mean(0, keepdim=True))
        b = torch.cat([guess.expand(25, -1), fitted.network.refine.b_kd[[1] * 15]])
        expected = fitted.network.along_axes(fitted.network.refine(fused, b))
    np.testing.assert_allclose(fitted.embed(query), expected, atol=1e-5)


# --- genes of a query -----------------------------------------------------------------------


def test_order_of_genes_and_further_genes_do_not_matter(data, fitted):
    order = np.random.default_rng(0).permutation(40)
    extra = anndata.AnnData(
        sp.csr_matrix(np.full((180, 5), 9, dtype=np.float32)),
        obs=data.obs.copy(), var=pd.DataFrame(index=[f"OTHER{j}" for j in range(5)]),
    )  # fmt: skip
    both = anndata.concat([extra, data[:, order]], axis=1, merge="first")
    np.testing.assert_array_equal(fitted.embed(both), fitted.embed(data))


def test_missing_genes_count_as_zero_and_half_of_them_are_needed(data, fitted):
    zeroed = data.copy()
    x = zeroed.X.toarray()
    x[:, 20:] = 0
    zeroed.X = sp.csr_matrix(x)
    np.testing.assert_allclose(fitted.embed(data[:, :20]), fitted.embed(zeroed), atol=1e-6)
    with pytest.raises(DataError, match="rna: 21 of the model's 40 features are missing"):
        fitted.embed(data[:, :19])


def test_the_most_variable_genes_are_read(data, monkeypatch):
    monkeypatch.setitem(genes.N_TOP, "rna", 25)
    model = fit(data)
    assert len(model.names["rna"]) == 25
    np.testing.assert_array_equal(model.embed(data[:, model.names["rna"]]), model.embed(data))


# --- labels ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def supervised(data):
    given = data.copy()
    types = given.obs["cell_type"].astype(object).to_numpy()
    types[::4] = None
    types[1::4] = "unassigned"
    given.obs["cell_type"] = types
    return MoRE.fit(
        given, "batch", "cell_type", unlabeled="unassigned", settings=Settings(**SETTINGS),
        device="cpu", threads=1,
    )  # fmt: skip


def test_missing_labels_and_the_word_for_them_are_hidden(data, supervised):
    assert supervised.classes.tolist() == ["B", "NK", "T"]
    found = supervised.annotate(data)
    hidden = np.arange(180) % 4 < 2
    truth = data.obs["cell_type"].astype(str).to_numpy()
    assert (np.asarray(found.labels)[hidden] == truth[hidden]).mean() > 0.9
    assert found.probabilities.shape == (180, 3)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-5)


def test_shown_labels_are_those_that_are_known():
    obs = pd.DataFrame({"t": pd.Categorical(["a", None, "None", "?"])}, index=list("wxyz"))
    data = anndata.AnnData(np.ones((4, 3), dtype=np.float32), obs=obs)
    assert shown_labels(data, "t", None).tolist() == ["a", None, "None", "?"]
    assert shown_labels(data, "t", "?").tolist() == ["a", None, "None", None]
    classes, codes = label_codes(shown_labels(data, "t", "?"), 4)
    assert classes.tolist() == ["None", "a"] and codes.tolist() == [1, -1, 0, -1]
    with pytest.raises(DataError, match="a class is called 'unknown'"):
        label_codes(np.array(["a", UNKNOWN, None, "b"], dtype=object), 4)
    assert UNKNOWN == CALLED_UNKNOWN  # the workflow's word


def test_labels_that_cannot_be_used_are_named(data, fitted):
    with pytest.raises(Unsupported, match="fitted without labels"):
        fitted.annotate(data)
    with pytest.raises(DataError, match="no column 'type'; valid: batch, cell_type"):
        fit(data, "type")
    given = data.copy()
    given.obs["cell_type"] = "T"
    with pytest.raises(DataError, match=r"found 1 classes \(T\); valid: 2 or more"):
        fit(given, "cell_type")


# --- denoised expression ----------------------------------------------------------------------


def test_denoised_values_are_log_values_nearer_to_the_truth_than_counts():
    rng = np.random.default_rng(0)
    kind = np.arange(200) % 2
    rate = rng.gamma(0.6, 2, (2, 50))[kind]
    obs = pd.DataFrame(index=[f"c{i}" for i in range(200)])
    data = anndata.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)), obs=obs)
    model = fit(data, batch_key=None, steps=150, mask=0.3)
    found = model.denoise(data)
    noisy = normalise(data.X, "rna", np.ones(50)).toarray()
    truth = np.stack([noisy[kind == k].mean(0) for k in (0, 1)])[kind]  # of 100 cells each
    assert found.shape == (200, 50) and (found >= 0).all()
    assert np.abs(found - truth).mean() < 0.7 * np.abs(noisy - truth).mean()


def test_denoised_counts_sum_to_the_library(data):
    model = fit(data, likelihood="nb")
    found = model.denoise(data)
    np.testing.assert_allclose(found.sum(1), np.asarray(data.X.sum(1)).ravel(), rtol=1e-4)
    assert (found >= 0).all()
    with pytest.raises(DataError, match="found 'adt'; valid: rna"):
        model.denoise(data, "adt")


# --- modalities -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(data):
    """RNA of all but the first 20 cells; proteins, which tell the types, of all but the last."""
    rng = np.random.default_rng(5)
    kind = data.obs["cell_type"].cat.codes.to_numpy()
    rate = rng.gamma(0.6, 20, (3, 6))[kind]
    adt = anndata.AnnData(
        sp.csr_matrix(rng.poisson(rate).astype(np.float32)),
        obs=pd.DataFrame(index=data.obs_names),
        var=pd.DataFrame(index=[f"CD{j}" for j in range(6)]),
    )  # fmt: skip
    with mudata.set_options(pull_on_update=False):
        made = mudata.MuData({"rna": data[20:].copy(), "adt": adt[:160].copy()})
        made.obs = data.obs.loc[made.obs_names]
    return made


@pytest.mark.parametrize("likelihood", ["gaussian", "nb"])
def test_cells_of_a_mudata_may_lack_modalities(both, likelihood):
    model = fit(both, likelihood=likelihood, batch_size=256, steps=60)
    assert list(model.names) == ["rna", "adt"]
    z = model.embed(both)
    assert z.shape == (180, 6) and np.isfinite(z).all()
    kinds = both.obs["cell_type"].astype(str).to_numpy()
    whole = np.isin(both.obs_names, both.mod["rna"].obs_names) & np.isin(
        both.obs_names, both.mod["adt"].obs_names
    )
    assert whole.sum() == 140
    assert (nearest_kind(z[whole], kinds[whole], z[~whole]) == kinds[~whole]).mean() > 0.8
    only = mudata.MuData({"rna": both.mod["rna"].copy()})
    only.obs["batch"] = both.obs.loc[only.obs_names, "batch"]
    assert model.embed(only).shape == (160, 6)
    if likelihood == "gaussian":
        assert model.denoise(only, "adt").shape == (160, 6)
    else:
        with pytest.raises(DataError, match="'adt' is not in the data.*valid: rna"):
            model.denoise(only, "adt")


def test_types_are_told_by_one_modality(both):
    model = fit(both, "cell_type")
    adt = mudata.MuData({"adt": both.mod["adt"].copy()})
    adt.obs["batch"] = both.obs.loc[adt.obs_names, "batch"]
    found = model.annotate(adt)
    assert len(found.labels) == 160 and set(found.labels) <= {*KINDS, "unknown"}


def test_texts_are_one_a_feature_of_a_modality_that_is_there(data):
    with pytest.raises(DataError, match=r"texts\['rna'\]: found 2; valid: one a feature, 40"):
        MoRE.fit(data, "batch", texts={"rna": ["a", "b"]}, settings=Settings(**SETTINGS))
    with pytest.raises(DataError, match="texts: found 'adt'; valid: rna"):
        MoRE.fit(data, "batch", texts={"adt": []}, settings=Settings(**SETTINGS))


# --- the frozen backbone ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def backboned(data):
    """Fitted with a backbone of random weights; what training did to it is noted."""
    given, seen = data[:48].copy(), []
    settings = Settings(**{**SETTINGS, "backbone": "random", "n_tokens": 4, "steps": 4})

    def noted(done, total):
        seen.append(torch.is_grad_enabled())

    model = MoRE.fit(given, "batch", settings=settings, device="cpu", threads=1, progress=noted)
    assert seen == [True] * 4
    return given, model


def test_no_parameter_of_the_backbone_has_a_gradient_or_changes_by_a_bit(backboned):
    given, model = backboned
    backbone = model.source._backbone
    fresh = load_backbone("random", seed=0)
    assert backbone.weights_sha256 == fresh.weights_sha256
    before, after = fresh.model.state_dict(), backbone.model.state_dict()
    assert before.keys() == after.keys() and len(before) > 90
    assert all(torch.equal(before[k], after[k]) for k in before)
    parameters = list(backbone.parameters())
    assert len(parameters) > 90
    assert all(p.grad is None and not p.requires_grad for p in parameters)
    backbone.train()
    assert not any(m.training for m in backbone.modules())
    trained = {id(p) for p in model.network.parameters()}
    assert not trained & {id(p) for p in parameters}
    found = model.embed(given)
    assert np.isfinite(found).all()


def test_parameters_trained_and_frozen_are_counted(backboned, fitted):
    _, model = backboned
    frozen = sum(p.numel() for p in model.source._backbone.model.parameters())
    trained = sum(p.numel() for p in model.network.parameters() if p.requires_grad)
    assert (model.parameters_frozen, model.parameters_trained) == (frozen, trained)
    assert frozen > 22_000_000 and trained / (trained + frozen) < 0.05
    told = model.summary()
    assert (
        f"{trained:,} trained, {frozen:,} frozen ({100 * trained / (trained + frozen):.2f} %"
        in told
    )
    assert "40 rna features to 6 dimensions" in told and "batches: b0, b1, b2" in told
    assert fitted.parameters_frozen == 0
    assert "backbone: none" in fitted.summary() and "0 frozen (100.00 %" in fitted.summary()


def test_given_features_are_used_and_asked_for_again():
    data = planted(60)
    cells = one_modality(data.X, data.var_names, data.obs["batch"])
    rng = np.random.default_rng(0)
    features = {"rna": rng.normal(size=(60, 12)).astype(np.float16)}
    settings = Settings(**{**SETTINGS, "backbone": "random", "steps": 4})
    model = MoRE.fit_cells(cells, None, settings, features=features, device="cpu", threads=1)
    z = model.embed(cells, features=features)
    other = {"rna": features["rna"][::-1]}
    assert not np.allclose(z, model.embed(cells, features=other))
    with pytest.raises(DataError, match="rna: frozen features are missing"):
        model.embed(cells)


# --- where scanpy is absent -------------------------------------------------------------------

ALONE = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.split(".")[0] in {"scanpy", "anndata", "mudata", "pandas", "h5py", "faiss"}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
import numpy as np
from morebench.models.more.cells import one_modality
from morebench.models.more.labels import label_codes, shown_labels
from morebench.models.more.model import MoRE
from morebench.models.more.settings import Settings

rng = np.random.default_rng(0)
kind = np.arange(60) % 2
x = rng.poisson(1 + 5 * (kind[:, None] == np.arange(20) % 2))
cells = one_modality(x, [f"g{j}" for j in range(20)], np.arange(60) // 30)
shown = np.where(np.arange(60) % 3 == 0, None, np.array(["even", "odd"], dtype=object)[kind])
settings = Settings(backbone="none", steps=4, n_components=5, n_latent=4, structure=True)
model = MoRE.fit_cells(cells, shown, settings, device="cpu", threads=1)
model.save(sys.argv[1])
again = MoRE.load(sys.argv[1], device="cpu")
assert np.array_equal(again.embed(cells), model.embed(cells))
found = again.annotate(cells)
assert np.mean(np.asarray(found.labels) == np.array(["even", "odd"])[kind]) > 0.9
assert not {"anndata", "pandas", "scanpy", "mudata", "faiss"} & set(sys.modules)
print("fitted")
"""


def test_it_runs_where_scanpy_anndata_and_pandas_are_absent(tmp_path):
    source = str(Path(morebench.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ALONE), str(tmp_path / "model")],
        env={"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "PATH": ""},
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "fitted"
