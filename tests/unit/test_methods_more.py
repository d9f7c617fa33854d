"""MoRE as a method: in the real child process, with frozen features and hidden cells."""

import importlib
import inspect
import re

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tests.seal import seal

from morebench import runner
from morebench.config import Method, backbone_of, backbones_of, load, methods_of
from morebench.contract import MethodInput
from morebench.errors import ContractError, Unsupported
from morebench.io.inputs import write_input
from morebench.io.outputs import Status, read_output
from morebench.methods import more
from morebench.models.more.annotate import UNKNOWN
from morebench.models.more.cache import frozen_features
from morebench.models.more.frozen import Backbone
from morebench.models.more.settings import Settings
from morebench.registry import METHODS
from morebench.runner import Limits

N, G = 120, 30
IDS = np.array([f"c{i + 1:06d}" for i in range(N)], dtype=object)
KIND = np.arange(N) % 3
BATCH = np.array(["a", "b", "c", "d"])[np.arange(N) // 30]
VISIBLE = BATCH != "d"
TYPES = np.array(["B cell", "NK cell", "T cell"], dtype=object)[KIND]
SMALL = {
    "n_components": 6, "n_latent": 6, "n_hidden": 16, "steps": 40, "batch_size": 128,
    "min_epochs": 1, "learning_rate": 5e-3, "n_tokens": 4,
}  # fmt: skip
ZEROSHOT = {
    **METHODS["more_zeroshot"].params, "backbone": "none", "n_tokens": 4, "n_components": 6,
}  # fmt: skip


def counts(g=G, seed=0):
    rng = np.random.default_rng(seed)
    shift = rng.lognormal(0, 0.4, (4, g))[np.arange(N) // 30]
    return sp.csr_matrix(rng.poisson(rng.gamma(0.6, 6, (3, g))[KIND] * shift).astype(np.float32))


GENES = [f"g{j}" for j in range(G)]


def tiny_backbone():
    """An encoder of one layer and width 16."""
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, initializer_range=0.3,
        )  # fmt: skip
        model = BertModel(config)
    return Backbone(
        "random", model, None, weights_sha256="w", tokeniser_sha256="t", wanted="float32"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of a split: its input, all genes of two modalities, frozen features."""
    made = tmp_path_factory.mktemp("more")
    x = counts()
    obs = pd.DataFrame({"batch": pd.Categorical(BATCH), "fit_visible": VISIBLE}, index=IDS)
    pca = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    write_input(
        made / "input.h5ad",
        anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=GENES), obsm={"X_pca": pca}),
    )
    wide = sp.hstack([x, counts(10, seed=2)]).tocsr()
    rna = anndata.AnnData(
        wide, obs=pd.DataFrame(index=IDS),
        var=pd.DataFrame(index=[*GENES, *(f"h{j}" for j in range(10))]),
    )  # fmt: skip
    for name, parts in (("one", {"rna": rna}), ("two", {"rna": rna, "adt": proteins()})):
        with mudata.set_options(pull_on_update=False):
            data = mudata.MuData(parts)
            data.obs["batch"] = BATCH
            data.write(made / f"{name}.h5mu")
        seal(made / f"{name}.h5mu")
    frozen_features(
        x, GENES, GENES, fit_visible=VISIBLE, backbone=tiny_backbone(), k=4,
        directory=made / "features",
    )  # fmt: skip
    seal(made / "features")
    return made


def proteins():
    """Proteins of every third cell not, and in an order of cells of their own."""
    rows = np.flatnonzero(np.arange(N) % 4 > 0)[::-1]
    return anndata.AnnData(
        counts(7, seed=3)[rows], obs=pd.DataFrame(index=IDS[rows]),
        var=pd.DataFrame(index=[f"CD{j}" for j in range(7)]),
    )  # fmt: skip


def given(folder=None, file=None, labels=None, visible=VISIBLE):
    return MethodInput(
        cell_ids=IDS, genes=np.array(GENES, dtype=object), counts_ng=counts(),
        pca_np=np.zeros((N, 5), np.float32), obs=pd.DataFrame({"batch": BATCH}, index=IDS),
        fit_visible=visible, labels=labels,
        all_genes_file=folder / file if file else None,
        features_dir=folder / "features" if folder else None,
    )  # fmt: skip


def params(**changes):
    return {**METHODS["more"].params, "backbone": "none", **SMALL, **changes}


def run(data, **changes):
    return more.run(data, seed=0, threads=1, **params(**changes))


# --- the registry ---------------------------------------------------------------------------


def test_the_untrained_path_takes_what_is_registered_and_no_more():
    module, function = METHODS["more_zeroshot"].entry.split(":")
    taken = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    assert set(taken) == {"data", "seed", "threads", *METHODS["more_zeroshot"].params}
    default = Settings()
    for key, value in METHODS["more_zeroshot"].params.items():
        assert getattr(default, key) == value, key


def test_methods_share_frozen_features_unless_they_are_made_otherwise():
    content = {
        "datasets": {"d": {"path": "d.h5ad", "batch": "batch"}},
        "methods": {
            "more": {}, "more_sup": {"n_latent": 8}, "more_zeroshot": {},
            "fewer": {"method": "more", "n_tokens": 8},
            "blind": {"method": "more", "backbone": "none"},
            "plain": {"method": "more", "features": False},
            "local": {"method": "more", "backbone": "some/encoder"},
        },
    }  # fmt: skip
    config = load(content)
    slugs = {name: backbone_of(method) for name, method in methods_of(config).items()}
    assert slugs["more"] == slugs["more_sup"] == slugs["more_zeroshot"] == "minilm.16"
    assert slugs["fewer"] == "minilm.8" and slugs["blind"] is slugs["plain"] is None
    assert re.fullmatch(r"some_encoder_[0-9a-f]{6}\.16", slugs["local"])
    made = backbones_of(config)
    assert set(made) == {"minilm.16", "minilm.8", slugs["local"]}
    assert (made["minilm.8"]["backbone"], made["minilm.8"]["n_tokens"]) == ("minilm", 8)


# --- in the child process -------------------------------------------------------------------


def child(folder, tmp_path, name, *, labels=None, features=True, file="two", **changes):
    spec = METHODS[name]
    own = {k: v for k, v in {**SMALL, "backbone": "random"}.items() if k in spec.params}
    method = Method(name, spec, {**spec.params, **own, **changes})
    files = {
        runner.INPUT_NAMES["input"]: folder / "input.h5ad",
        runner.INPUT_NAMES["all_genes"]: folder / f"{file}.h5mu",
    }
    if features:
        files[runner.INPUT_NAMES["features"]] = folder / "features"
    status = Status("d", "lobo-d", name, 0, "failed", log=str(tmp_path / "log.txt"))
    return runner.run(
        method.settings(), status, files=files, labels=labels, output=tmp_path / "out",
        limits=Limits(1, 4000, 200),
    )  # fmt: skip


def test_unseen_cells_are_embedded_and_annotated_in_the_child_process(folder, tmp_path):
    shown = np.where(VISIBLE & (np.arange(N) % 5 > 0), TYPES, None)
    status = child(folder, tmp_path, "more_sup", labels=(IDS, shown))
    assert status.state == "ok", (tmp_path / "log.txt").read_text()
    frozen = tiny_backbone().n_parameters
    assert status.parameters_frozen == frozen and status.parameters_trained > 1000
    assert status.notes["features_precision"] == "float32"
    found = read_output(tmp_path / "out", IDS, G, METHODS["more_sup"].outputs)
    assert found.embedding.shape == (N, 6) and np.isfinite(found.embedding).all()
    assert list(found.probabilities) == ["B cell", "NK cell", "T cell"]
    assert set(found.labels) <= {*TYPES, UNKNOWN}
    assert (found.labels[~VISIBLE] == TYPES[~VISIBLE]).mean() > 0.9


def test_steps_of_the_annotation_are_switched_by_the_configuration(folder, tmp_path):
    shown = np.where(VISIBLE, TYPES, None)
    strict = {"annotate_unknown": 0.0, "annotate_usual_share": 0.0}
    status = child(folder, tmp_path, "more_sup", labels=(IDS, shown), **strict)
    assert status.state == "ok", (tmp_path / "log.txt").read_text()
    found = read_output(tmp_path / "out", IDS, G, METHODS["more_sup"].outputs)
    assert (found.labels == UNKNOWN).mean() > 0.5  # newer than the least new of those shown


def test_features_that_are_missing_fail_with_the_reason(folder, tmp_path):
    status = child(folder, tmp_path, "more", features=False)
    assert status.state == "failed"
    assert "ContractError: features: found none; MoRE with a backbone needs" in status.reason


# --- what is used, and what is not ----------------------------------------------------------


def test_hidden_cells_change_nothing_of_the_fit(folder):
    """Other counts of hidden cells: the embedding of visible ones stays, bit for bit."""
    data = given()
    first = run(data)
    x = data.counts_ng.toarray()
    x[~VISIBLE] = x[~VISIBLE][::-1] * 3
    data.counts_ng = sp.csr_matrix(x)
    second = run(data)
    np.testing.assert_array_equal(second.embedding[VISIBLE], first.embedding[VISIBLE])
    assert not np.allclose(second.embedding[~VISIBLE], first.embedding[~VISIBLE])
    assert first.parameters_trained > 0 and first.parameters_frozen == 0


def test_labels_of_hidden_cells_stay_hidden():
    shown = np.where(VISIBLE, TYPES, None)
    leaked = np.where(VISIBLE, TYPES, "of hidden cells only")
    first, second = (
        more.run_supervised(given(labels=labels), seed=0, threads=1, **params())
        for labels in (shown, leaked)
    )
    np.testing.assert_array_equal(first.embedding, second.embedding)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert list(second.probabilities) == ["B cell", "NK cell", "T cell"]


def test_labels_change_the_semi_supervised_model_only():
    shown = np.where(VISIBLE, TYPES, None)
    plain = run(given()).embedding
    np.testing.assert_array_equal(run(given(labels=shown)).embedding, plain)
    supervised = more.run_supervised(given(labels=shown), seed=0, threads=1, **params())
    assert not np.allclose(supervised.embedding, plain)
    with pytest.raises(ContractError, match="labels: found None"):
        more.run_supervised(given(), seed=0, threads=1, **params())


def test_frozen_features_are_of_every_cell_and_take_part(folder, tmp_path):
    settings = {"backbone": "random"}
    found = run(given(folder, "one.h5mu"), **settings)
    assert found.parameters_frozen == tiny_backbone().n_parameters
    assert not np.allclose(found.embedding, run(given(folder, "one.h5mu")).embedding)
    off = run(given(folder, "one.h5mu"), features=False, **settings)
    np.testing.assert_array_equal(off.embedding, run(given(folder, "one.h5mu")).embedding)
    assert off.parameters_frozen == 0
    frozen_features(
        counts()[:50], GENES, GENES, fit_visible=VISIBLE[:50], backbone=tiny_backbone(), k=4,
        directory=tmp_path / "features",
    )  # fmt: skip
    with pytest.raises(ContractError, match="features of 50 cells; valid: 120"):
        run(given(tmp_path), **settings)


def test_other_modalities_are_read_in_the_order_of_the_cells(folder):
    cells = more._cells(given(folder, "two.h5mu"))
    assert list(cells.modalities) == ["rna", "adt"]
    assert list(cells.modalities["rna"].names) == GENES  # the split's genes, not all
    adt, part = cells.modalities["adt"], proteins()
    assert adt.present.tolist() == (np.arange(N) % 4 > 0).tolist()
    for i in (1, 2, 119):
        np.testing.assert_array_equal(adt.counts_ng[i].toarray(), part[IDS[i]].X.toarray())
    assert not adt.counts_ng[0].toarray().any()
    found = run(given(folder, "two.h5mu")).embedding
    assert np.isfinite(found).all()
    assert not np.allclose(found, run(given(folder, "one.h5mu")).embedding)


def test_a_modality_that_no_visible_cell_has_is_unsupported(folder):
    visible = np.arange(N) % 4 == 0
    with pytest.raises(Unsupported, match="adt: no fit-visible cell has this modality"):
        run(given(folder, "two.h5mu", visible=visible))


def test_the_modality_of_the_splits_features_is_found(folder):
    data = given(folder, "two.h5mu")
    data.genes = np.array([f"CD{j}" for j in range(7)], dtype=object)
    assert more._main_modality(data) == "adt"
    data.genes = np.array(["CD0", "g0"], dtype=object)
    with pytest.raises(ContractError, match="no modality of .*'rna'.* has the input's features"):
        more._main_modality(data)


def test_nothing_is_trained_in_the_untrained_path():
    found = more.run_zeroshot(given(), seed=0, threads=1, **ZEROSHOT)
    assert found.parameters_trained == 0 and found.embedding.shape == (N, 6)
    again = more.run_zeroshot(given(), seed=0, threads=1, **ZEROSHOT)
    np.testing.assert_array_equal(found.embedding, again.embedding)
    x = torch.as_tensor(found.embedding)
    near = torch.cdist(x, x).fill_diagonal_(1e9).argmin(1).numpy()
    assert (KIND[near] == KIND).mean() > 0.9
