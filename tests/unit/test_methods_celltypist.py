"""The CellTypist adapter, against celltypist called directly on the cells inside scanpy."""

import dataclasses
import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from morebench.contract import MethodInput
from morebench.data import bundled
from morebench.errors import ConfigError, ContractError, DataError, Unavailable, Unsupported
from morebench.methods import celltypist
from morebench.registry import METHODS

PARAMS = dict(METHODS["celltypist"].params)
ROOT = Path(__file__).resolve().parents[2]
package = celltypist._import()


@pytest.fixture(scope="module")
def cells():
    """Return the bundled RNA and its coarse types."""
    data = bundled.pbmc68k()
    return data["rna"], data.obs["cell_type_coarse"].astype(str).to_numpy().astype(object)


@pytest.fixture
def make(tmp_path, cells):
    """Return a function that writes the cells in another order and returns the input."""

    def write(counts=None, shown=None, modality="rna", drop=0):
        rna, truth = cells
        counts = rna.X if counts is None else counts
        ids = np.array([f"c{i:06d}" for i in range(len(truth))])
        order = np.random.default_rng(1).permutation(len(ids))[: len(ids) - drop]
        part = anndata.AnnData(
            counts[order], obs=pd.DataFrame(index=ids[order]), var=rna.var[[]].copy()
        )
        path = tmp_path / "prepared.h5mu"
        mudata.MuData({modality: part}).write_h5mu(path)
        labels = truth.copy()
        labels[np.arange(len(ids)) % 3 == 0 if shown is None else ~shown] = None
        return MethodInput(
            cell_ids=ids,
            genes=np.array(["g0"]),
            counts_ng=sp.csr_matrix((len(ids), 1), dtype=np.float32),
            pca_np=np.zeros((len(ids), 2), np.float32),
            obs=pd.DataFrame({"batch": np.repeat("x", len(ids))}),
            fit_visible=np.ones(len(ids), dtype=bool),
            labels=labels,
            all_genes_file=path,
        )

    return write


def run(data, seed=0, threads=1, **params):
    return celltypist.run(data, seed=seed, threads=threads, **(PARAMS | params))


def has_label(data):
    return np.array([label is not None for label in data.labels])


def direct(cells, data, majority_voting=False, **options):
    """Call the package itself, on counts that never went through a file."""
    adata = anndata.AnnData(
        cells[0].X.copy(), obs=pd.DataFrame(index=data.cell_ids), var=cells[0].var[[]].copy()
    )
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    fitted = has_label(data)
    with celltypist._one_vs_rest():
        model = package.train(
            adata[fitted].copy(), labels=data.labels[fitted].astype(str), **options
        )
    return adata, package.annotate(adata, model=model, majority_voting=majority_voting)


def shares(found):
    return found.probability_matrix.div(found.probability_matrix.sum(axis=1), axis=0)


def test_labels_and_probabilities_are_those_of_the_package(cells, make):
    data = make()
    out = run(data)
    _, found = direct(cells, data)
    np.testing.assert_array_equal(out.labels, found.predicted_labels["predicted_labels"])
    pd.testing.assert_frame_equal(out.probabilities, shares(found), rtol=1e-5)
    assert list(out.probabilities.columns) == sorted(set(cells[1]))
    np.testing.assert_allclose(out.probabilities.sum(axis=1), 1, atol=1e-12)
    hidden = ~has_label(data)
    assert (out.labels[hidden] == cells[1][hidden]).mean() > 0.85
    assert out.parameters_trained == 5 * (out.notes["n_genes"] + 1)
    assert out.notes["n_fitted"] == (~hidden).sum() and out.notes["converged"] is True


def test_training_by_sgd_needs_no_replacement_and_follows_the_seed(cells, make):
    data = make()
    out = run(data, seed=3, use_SGD=True)
    _, found = direct(cells, data, use_SGD=True, random_state=3)
    np.testing.assert_array_equal(out.labels, found.predicted_labels["predicted_labels"])
    assert "classifier" not in out.notes
    other = run(data, seed=4, use_SGD=True)
    assert (other.probabilities.to_numpy() != out.probabilities.to_numpy()).any()


def test_the_fit_is_one_binary_regression_a_class(cells, make):
    data = make()
    out = run(data)
    adata, _ = direct(cells, data)
    x_ng, fitted = adata.X.toarray().astype(float), has_label(data)
    x_ng = x_ng[:, x_ng[fitted].sum(0) > 0]
    z_ng = np.minimum((x_ng - x_ng[fitted].mean(0)) / x_ng[fitted].std(0), 10)
    binary = LogisticRegression(C=1.0, max_iter=1000)
    p_nk = np.stack(
        [
            binary.fit(z_ng[fitted], data.labels[fitted] == c).predict_proba(z_ng)[:, 1]
            for c in out.probabilities
        ],
        axis=1,
    )
    p_nk /= p_nk.sum(1, keepdims=True)
    np.testing.assert_allclose(out.probabilities.to_numpy(), p_nk, atol=0.02)
    assert (out.labels == out.probabilities.columns.to_numpy()[p_nk.argmax(1)]).mean() > 0.995


@pytest.mark.slow  # numba compiles the neighbour search
def test_majority_voting_is_that_of_the_package(cells, make):
    data = make()
    out = run(data, majority_voting=True)
    _, found = direct(cells, data, majority_voting=True)
    np.testing.assert_array_equal(out.labels, found.predicted_labels["majority_voting"])
    assert (out.labels != found.predicted_labels["predicted_labels"]).any()
    data.fit_visible[0] = False
    with pytest.raises(Unsupported, match="hides 1 of 700 cells"):
        run(data, majority_voting=True)


def test_few_cells_are_not_voted_on_and_the_notes_say_so(make):
    data = make()
    rows = np.r_[
        np.flatnonzero([v is not None for v in data.labels])[:30],
        np.flatnonzero([v is None for v in data.labels])[:10],
    ]
    few = dataclasses.replace(
        data, cell_ids=data.cell_ids[rows], counts_ng=data.counts_ng[rows],
        pca_np=data.pca_np[rows], obs=data.obs.iloc[rows], fit_visible=data.fit_visible[rows],
        labels=data.labels[rows],
    )  # fmt: skip
    out = run(few, majority_voting=True)
    np.testing.assert_array_equal(out.labels, run(few).labels)
    assert out.notes["labels"].startswith("no votes")


def test_parameters_reach_the_package(make):
    data = make()
    default = run(data)
    chosen = run(data, feature_selection=True, top_genes=20)
    assert chosen.notes["n_genes"] <= 5 * 20 < default.notes["n_genes"]
    assert run(data, max_iter=2).notes["converged"] is False
    weak = run(data, C=1e-4).probabilities.max(axis=1)
    assert weak.mean() < default.probabilities.max(axis=1).mean() - 0.1
    np.testing.assert_array_equal(run(data, threads=2).labels, default.labels)


def test_cells_without_a_label_or_hidden_from_fitting_change_nothing(cells, make):
    data = make()
    data.fit_visible[1:60] = False
    before = run(data)
    counts = cells[0].X.copy().tolil()
    counts[:60] = counts[60:120].toarray()[:, ::-1]
    changed = make(counts.tocsr())
    changed.fit_visible[1:60] = False
    after = run(changed)
    assert after.notes["n_fitted"] == before.notes["n_fitted"] == (np.arange(60, 700) % 3 > 0).sum()
    np.testing.assert_array_equal(after.probabilities[60:], before.probabilities[60:])
    assert (after.labels[:60] != before.labels[:60]).any()


def test_two_classes_share_one_fit(cells, make):
    shown = np.isin(cells[1], ["B cell", "T cell"])
    out = run(make(shown=shown))
    assert list(out.probabilities.columns) == ["B cell", "T cell"]
    assert out.parameters_trained == out.notes["n_genes"] + 1
    assert (out.labels[shown] == cells[1][shown]).all()


def test_empty_cells_are_not_fitted_on(cells, make):
    counts = cells[0].X.copy().tolil()
    counts[:3] = 0
    out = run(make(counts.tocsr(), shown=np.ones(700, dtype=bool)))
    assert out.notes["n_fitted"] == 697 and out.notes["not_fitted_on"].startswith("3 cells")
    assert np.isfinite(out.probabilities.to_numpy()).all()


def test_shares_of_scores_whose_sigmoids_are_all_zero():
    scores = pd.DataFrame([[-2000.0, -2000.0, -5000.0], [1.0, -1.0, 0.0]], columns=["c", "a", "b"])
    assert expit(scores.to_numpy()[0]).sum() == 0
    found = celltypist.row_shares(scores)
    assert list(found) == ["a", "b", "c"]
    p = expit(np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, [[0.5, 0, 0.5], p / p.sum()])


def test_the_package_is_left_as_it_was():
    module = importlib.import_module("celltypist.train")
    original = module.LogisticRegression
    with pytest.raises(KeyError), celltypist._one_vs_rest() as replaced:
        assert (module.LogisticRegression is original) == (not replaced)
        raise KeyError
    assert module.LogisticRegression is original
    before, filters = dict(os.environ), list(warnings.filters)
    celltypist._import()
    assert dict(os.environ) == before and list(warnings.filters) == filters


def test_importing_it_writes_nothing_at_home(tmp_path):
    code = (
        "import os, warnings; from morebench.methods import celltypist; "
        "celltypist._import(); print(os.environ.keys() & {'CELLTYPIST_FOLDER', 'MPLCONFIGDIR'}); "
        "print([f for f in warnings.filters if f[0] == 'ignore' and f[2] is UserWarning])"
    )
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    env = {"PYTHONPATH": str(ROOT / "src"), "HOME": str(home), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["set()", "[]"]
    assert [*home.rglob("*"), *temporary.rglob("*")] == []


def test_labels_that_cannot_be_learnt(make):
    data = make()
    data.fit_visible = data.labels == "B cell"
    with pytest.raises(DataError, match=r"1 classes \(B cell\) .* celltypist needs at least 2"):
        run(data)
    data.labels = None
    with pytest.raises(ContractError, match="found None; celltypist needs"):
        run(data)


def test_counts_that_are_not_there(make):
    with pytest.raises(Unsupported, match=r"prepared.h5mu: no mod/rna, found adt"):
        run(make(modality="adt"))
    with pytest.raises(Unsupported, match="4 of 700 cells have no rna"):
        run(make(drop=4))
    data = make()
    data.all_genes_file = None
    with pytest.raises(DataError, match="all_genes_file: found None"):
        run(data)


# --- a model that was trained before -----------------------------------------------------


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cells):
    """Return the path of a model that the package trained on other names for two types."""
    rna, truth = cells
    adata = anndata.AnnData(rna.X.copy(), obs=rna.obs[[]].copy(), var=rna.var[[]].copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    half = np.arange(700) % 2 == 0
    labels = np.array([f"their {t}" for t in truth])
    # a classifier of scikit-learn's own, as in the published files
    model = package.train(adata[half].copy(), labels=labels[half], use_SGD=True, random_state=0)
    path = tmp_path_factory.mktemp("model") / "immune.pkl"
    model.write(str(path))
    return path


@pytest.fixture
def trap(tmp_path):
    """Return a pickle whose loading makes a file, and that file."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "trap.pkl"
    path.write_bytes(pickle.dumps({"Model": Trap(), "Scaler_": None, "description": {}}))
    return path, tmp_path / "sprung"


def test_a_model_labels_in_its_own_words_and_needs_no_label(cells, make, trained):
    data = make()
    data.labels = None
    data.fit_visible[:50] = False
    out = run(data, model=str(trained), model_sha256=sha256(trained).upper())
    adata, _ = direct(cells, make())
    found = package.annotate(adata, model=package.models.Model.load(str(trained)))
    np.testing.assert_array_equal(out.labels, found.predicted_labels["predicted_labels"])
    pd.testing.assert_frame_equal(out.probabilities, shares(found), rtol=1e-5)
    assert list(out.probabilities.columns) == [f"their {t}" for t in sorted(set(cells[1]))]
    odd = np.arange(700) % 2 == 1
    assert np.mean(out.labels[odd] == np.array([f"their {t}" for t in cells[1]])[odd]) > 0.85
    size = out.notes["n_genes"]
    assert (out.parameters_trained, out.parameters_frozen) == (0, 5 * (size + 1))
    assert out.notes["model"] == "immune.pkl"
    assert out.notes["model_sha256"] == sha256(trained)
    assert out.notes["genes_known"] == f"{size} of {size} of the model"
    assert "model's own words" in out.notes["names"]
    assert not {"n_fitted", "iterations", "classifier"} & set(out.notes)
    labelled = run(make(), model=str(trained), model_sha256=sha256(trained), C=7.0)
    np.testing.assert_array_equal(labelled.probabilities, out.probabilities)


def test_genes_that_the_data_lack_are_left_out_of_the_model(cells, make, trained, monkeypatch):
    rna = cells[0]
    data = make()
    options = {"model": str(trained), "model_sha256": sha256(trained)}
    every = run(data, **options)
    names = rna.var_names.to_numpy().astype(object).copy()
    features = package.models.Model.load(str(trained)).features
    unknown = np.isin(names, features[:100])
    original = celltypist.read_log_counts

    def renamed(rename):
        def read(data):
            adata = original(data)
            adata.var_names = rename(names)
            return adata

        monkeypatch.setattr(celltypist, "read_log_counts", read)

    renamed(lambda names: np.where(unknown, "ENSG" + names, names))
    part = run(data, **options)
    n = len(features)
    assert part.notes["genes_known"] == f"{n - 100} of {n} of the model"
    assert (part.probabilities.to_numpy() != every.probabilities.to_numpy()).any()
    renamed(lambda names: "ENSG" + names)
    with pytest.raises(DataError, match=rf"immune.pkl: 0 of its {n} genes .*such as ENSG"):
        run(data, **options)
    few = np.isin(names, features[:49])
    renamed(lambda names: np.where(few, names, "ENSG" + names))
    with pytest.raises(DataError, match=rf"immune.pkl: 49 of its {n} genes .*at least 50 genes"):
        run(data, **options)


@pytest.mark.faults
def test_a_file_of_another_hash_is_refused_before_it_is_unpickled(make, trap):
    path, sprung = trap
    wanted = "0" * 64
    with pytest.raises(ConfigError) as error:
        run(make(), model=str(path), model_sha256=wanted)
    assert wanted in str(error.value) and sha256(path) in str(error.value)
    assert not sprung.exists()
    # the trap works: by its own hash the file is opened, and then it is no model
    with pytest.raises(DataError, match="trap.pkl: no CellTypist model"):
        run(make(), model=str(path), model_sha256=sha256(path))
    assert sprung.is_dir()


@pytest.mark.faults
@pytest.mark.parametrize("found", [None, "abc", 7, "g" * 64, "0" * 65])
def test_a_model_without_a_hash_is_refused(make, trap, found):
    path, sprung = trap
    with pytest.raises(ConfigError, match=f"model_sha256: found {found!r}; valid: the SHA-256"):
        run(make(), model=str(path), model_sha256=found)
    assert not sprung.exists()


def test_a_model_that_is_not_there(make, tmp_path):
    path = tmp_path / "none.pkl"
    for missing in (path, tmp_path):
        with pytest.raises(Unavailable, match=f"there is no file {missing};"):
            run(make(), model=str(missing), model_sha256="0" * 64)
    with pytest.raises(ConfigError, match="model: found 'none.pkl'; valid: an absolute path"):
        run(make(), model="none.pkl", model_sha256="0" * 64)
    with pytest.raises(ConfigError, match="model_sha256: given without 'model:'"):
        run(make(), model_sha256="0" * 64)


def test_a_file_that_is_no_model(make, tmp_path):
    path = tmp_path / "text.pkl"
    path.write_text("not a pickle")
    with pytest.raises(DataError, match="text.pkl: no CellTypist model"):
        run(make(), model=str(path), model_sha256=sha256(path))
