"""Bad input gets one clear line, from the first stage that can know."""

import os
import subprocess
import sys

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from morebench import cli
from morebench.config import load, load_file
from morebench.data.features import make_input
from morebench.data.peek import peek
from morebench.data.prepare import prepare
from morebench.data.sources import load as load_data
from morebench.errors import ConfigError, DataError
from morebench.preflight import check


def refused(error, words, call, *given):
    """Assert that a call raises exactly this error, in one line that holds the words."""
    with pytest.raises(error) as caught:
        call(*given)
    text = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"
    return text


def by_load(content, *words):
    return refused(ConfigError, words, load, content, "run.yaml")


def by_preflight(content, *words, error=DataError):
    """Refused by preflight: the configuration by itself holds."""
    return refused(error, words, check, load(content))


def by_prepare(content, *words):
    """Refused by prepare only: nothing before it could know."""
    config = load(content)
    check(config)
    return refused(DataError, words, prepare, "d", config.datasets["d"])


def accepted(content):
    config = load(content)
    check(config)
    return prepare("d", config.datasets["d"])


# --- what the configuration alone tells -------------------------------------------------

CONFIG_CASES = {
    "unknown key": (
        {"top": {"dataset": {}}},
        ["run.yaml", "unknown key 'dataset'", "did you mean 'datasets'?", "attempts, datasets"],
    ),
    "unknown key of a dataset": (
        {"lables": {"column": "x"}},
        ["unknown key 'datasets.d.lables'", "did you mean 'labels'?", "platform"],
    ),
    "unknown key of labels": (
        {"labels": {"colunm": "x", "column": "x", "source": "expert"}},
        ["unknown key 'datasets.d.labels.colunm'", "did you mean 'column'?", "rename, source"],
    ),
    "unknown key of a file of several": (
        {"path": None, "concat": [{"path": "a.h5ad", "label_colum": "x"}]},
        ["'datasets.d.concat.0.label_colum'", "did you mean 'label_column'?", "layer"],
    ),
    "unknown key of resources": (
        {"methods": {"pca": {"resources": {"thread": 2}}}},
        ["'methods.pca.resources.thread'", "did you mean 'threads'?", "mem_mb, runtime_min"],
    ),
    "a limit of no minute": (
        {"methods": {"pca": {"resources": {"runtime_min": 0.4}}}},
        ["methods.pca.resources.runtime_min", "valid integer", "found 0.4"],
    ),
    "resources of the wrong type": (
        {"methods": {"pca": {"resources": "many"}}},
        ["methods.pca.resources", "valid dictionary", "found 'many'"],
    ),
    "unknown kind of split with seeds": (
        {"top": {"seeds": {"al": [0]}}},
        ["'seeds.al'", "did you mean 'all'?", "lobo, newtype, partial, unseen"],
    ),
    "unknown method": (
        {"methods": {"scvii": {}}},
        ["methods.scvii", "unknown method 'scvii'", "did you mean 'scvi'?", "harmony, "],
    ),
    "unknown method of a variant": (
        {"methods": {"mine": {"method": "harmoni"}}},
        ["methods.mine", "unknown method 'harmoni'", "did you mean 'harmony'?", "pca, random"],
    ),
    "method of the wrong type": (
        {"methods": {"mine": {"method": ["scvi"]}}},
        ["methods.mine", "unknown method ['scvi']", "pca, random"],
    ),
    "unknown parameter": (
        {"methods": {"scvi": {"n_latents": 3}}},
        ["methods.scvi", "'n_latents' of scvi", "did you mean 'n_latent'?", "n_hidden"],
    ),
    "parameter of the wrong type": (
        {"methods": {"scvi": {"n_latent": "ten"}}},
        ["methods.scvi.n_latent", "found 'ten'", "a whole number"],
    ),
    "a number that YAML reads as text": (
        {"methods": {"scvi": {"dropout_rate": "1e-1"}}},
        ["methods.scvi.dropout_rate", "found '1e-1'", "a number"],
    ),
    "true for a number": (
        {"methods": {"pca": {"n_components": True}}},
        ["methods.pca.n_components", "found True", "a whole number"],
    ),
    "method that is not configured": (
        {"methods": {"pca": {}, "scvi": {}}, **{"dataset_methods": ["pca", "scv"]}},
        ["datasets.d.methods", "'scv' is not configured", "did you mean 'scvi'?", "pca, scvi"],
    ),
    "method twice": ({"dataset_methods": ["pca", "pca"]}, ["datasets.d.methods", "'pca'", "twice"]),
    "unknown task": (
        {"tasks": ["integartion"]},
        ["datasets.d.tasks", "unknown task 'integartion'", "did you mean 'integration'?", "doubl"],
    ),
    "task twice": (
        {"tasks": ["integration", "integration"]},
        ["datasets.d.tasks", "'integration' is listed twice"],
    ),
    "tasks of the wrong type": (
        {"tasks": "integration"},
        ["datasets.d.tasks", "valid list", "found 'integration'"],
    ),
    "batch of the wrong type": ({"batch": 3}, ["datasets.d.batch", "found 3", "valid string"]),
    "features of the wrong type": (
        {"features": {"n_top": "many"}},
        ["datasets.d.features.n_top", "valid integer", "found 'many'"],
    ),
    "label source": (
        {"labels": {"column": "x", "source": "expertise"}},
        ["datasets.d.labels.source", "'expert', 'assay', 'derived' or 'planted'", "'expertise'"],
    ),
    "label column not said": (
        {"labels": {"source": "expert"}},
        ["datasets.d.labels.column", "required"],
    ),
    "modality": (
        {"path": {"rna": "a.h5ad", "prot": "b.h5ad"}},
        ["datasets.d.path.prot", "'rna', 'adt', 'atac' or 'spatial'"],
    ),
    "name of a dataset": (
        {"top": {"datasets": {"my-set": {"path": "a.h5ad"}}}},
        ["datasets.my-set", "letters, digits and underscores", "found 'my-set'"],
    ),
    "no seeds": ({"top": {"seeds": {"all": []}}}, ["seeds.all", "at least 1", "found []"]),
    "seed twice": ({"top": {"seeds": {"all": [1, 1]}}}, ["seeds.all", "1 is listed twice"]),
    "negative seed": ({"top": {"seeds": [-1]}}, ["seeds.all.0", "found -1"]),
    "attempts": ({"top": {"attempts": 0}}, ["attempts", "greater than or equal to 1", "found 0"]),
    "no source": ({"path": None}, ["datasets.d", "bundled, path, concat", "found none"]),
    "two sources": ({"bundled": "pbmc68k"}, ["datasets.d", "found ['bundled', 'path']"]),
    "unknown bundled dataset": (
        {"path": None, "bundled": "pbmc86k"},
        ["datasets.d.bundled", "'pbmc86k'", "did you mean 'pbmc68k'?", "sim_multiome"],
    ),
    "unknown parameter of a bundled dataset": (
        {"path": None, "bundled": "sim_multiome", "params": {"n_cell": 3}},
        ["datasets.d.params", "'n_cell'", "did you mean 'n_cells'?", "n_peaks"],
    ),
    "parameter type of a bundled dataset": (
        {"path": None, "bundled": "sim_multiome", "params": {"n_cells": "all"}},
        ["datasets.d.params.n_cells", "found 'all'", "a whole number"],
    ),
    "params without bundled": ({"params": {"seed": 1}}, ["datasets.d", "params", "bundled"]),
    "modalities without h5mu": ({"modalities": {"rna": "gex"}}, ["datasets.d", ".h5mu"]),
    "exclude beside concat": (
        {"path": None, "concat": [{"path": "a.h5ad"}], "exclude": {"x": ["y"]}},
        ["datasets.d", "exclude", "concat"],
    ),
    "label map without labels": (
        {
            "path": None, "labels": None, "tasks": [],
            "concat": [{"path": "a.h5ad", "label_map": {"a": "b"}}],
        },
        ["datasets.d", "label_map", "need labels"],
    ),
    "derived labels for annotation": (
        {
            "tasks": ["annotation"], "splits": {"lobo": ["b1"]},
            "labels": {"column": "cell_type", "source": "derived"},
        },
        ["datasets.d.tasks", "'annotation'", "'derived'", "expert, assay, planted"],
    ),
    "doublets without their truth": (
        {"tasks": ["doublets"]},
        ["datasets.d.tasks", "'doublets' needs 'doublets'"],
    ),
    "integration without labels": ({"labels": None}, ["datasets.d.tasks", "needs 'labels'"]),
    "integration without batch": ({"batch": None}, ["datasets.d.tasks", "needs 'batch'"]),
    "integration of one named batch": (
        {"batch": {"value": "zheng"}},
        ["datasets.d.tasks", "'integration' needs two batches", "'zheng'"],
    ),
    "annotation without a held-out batch": (
        {"tasks": ["annotation"]},
        ["datasets.d.tasks", "'annotation'", "kind lobo"],
    ),
    "held-out batch without labels": (
        {"labels": None, "tasks": [], "splits": {"unseen": ["b1"]}},
        ["datasets.d.splits", "need 'labels'"],
    ),
    "two held-out batches of one file name": (
        {"splits": {"lobo": ["a b", "a/b"]}},
        ["datasets.d.splits.lobo", "'a/b'", "'lobo-a_b'", "twice"],
    ),
    "held-out type without a file name": (
        {"splits": {"newtype": ["+"]}},
        ["datasets.d.splits.newtype", "'+'"],
    ),
    "more components than genes": (
        {"features": {"n_top": 40, "n_pcs": 40}},
        ["datasets.d.features", "n_pcs = 40", "n_top = 40", "39 or less"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIG_CASES)
def test_the_configuration_is_refused(case, config_of):
    changes, words = CONFIG_CASES[case]
    changes = dict(changes)
    if "dataset_methods" in changes:
        chosen = changes.pop("dataset_methods")
        content = config_of(**changes)
        content["datasets"]["d"]["methods"] = chosen
    else:
        content = config_of(**changes)
    by_load(content, *words)


def test_every_mistake_of_a_configuration_is_named_in_the_one_line(config_of):
    content = config_of(batch=3, lables={}, top={"attempts": 9})
    by_load(content, "datasets.d.batch", "'datasets.d.lables'", "attempts", "found 9")


def test_a_long_value_is_shortened(config_of):
    text = by_load(config_of(tasks="x" * 5000), "datasets.d.tasks")
    assert len(text) < 300


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"datasets: [a, b\nmethods: }", ["not YAML"]),
        (b"\xff\xfe\x00binary", ["not YAML"]),
        (b"- a\n- b\n", ["list", "keys and values"]),
        (b"", ["NoneType", "keys and values"]),
        (b"datasets: {}\n", ["methods", "required"]),
    ],
)
def test_a_configuration_file_that_is_none(tmp_path, content, words):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    refused(ConfigError, [str(path), *words], load_file, path)


def test_a_configuration_file_that_is_not_there(tmp_path):
    refused(ConfigError, ["no.yaml", "no such file"], load_file, tmp_path / "no.yaml")
    refused(ConfigError, [str(tmp_path), "cannot be read"], load_file, tmp_path)


# --- what the files' columns and names tell ---------------------------------------------


def test_a_missing_file(config_of, tmp_path):
    by_preflight(config_of(str(tmp_path / "no.h5ad")), "datasets.d", "no file", "no.h5ad")


def test_an_unset_environment_variable(config_of, monkeypatch):
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    content = config_of("${NO_SUCH_FOLDER}/a.h5ad")
    by_preflight(
        content, "datasets.d", "NO_SUCH_FOLDER", "not set", "NO_SUCH_FOLDER=/", error=ConfigError
    )


def test_a_set_environment_variable(config_of, h5ad, tmp_path, monkeypatch):
    h5ad("a.h5ad")
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    assert accepted(config_of("${SOME_FOLDER}/a.h5ad")).data.n_obs == 60


def test_a_path_that_is_a_directory(config_of, tmp_path):
    (tmp_path / "data.h5ad").mkdir()
    by_preflight(config_of(str(tmp_path / "data.h5ad")), "datasets.d", "is a directory")


def test_a_file_of_another_kind(config_of, tmp_path):
    (tmp_path / "data.csv").write_text("a,b\n")
    by_preflight(config_of(str(tmp_path / "data.csv")), "datasets.d", "data.csv", "no .h5ad file")


@pytest.mark.faults
def test_a_file_that_is_not_hdf5(config_of, tmp_path):
    path = tmp_path / "data.h5ad"
    path.write_text("these are\nno counts\n")
    by_preflight(config_of(str(path)), "datasets.d", str(path), "cannot be read as h5ad")
    refused(
        DataError, ["datasets.d", "h5ad"], load_data, "d", load(config_of(str(path))).datasets["d"]
    )


@pytest.mark.faults
def test_a_truncated_file(config_of, h5ad):
    path = h5ad()
    size = os.path.getsize(path)
    os.truncate(path, size // 2)
    by_preflight(config_of(path), "datasets.d", path, "cannot be read as h5ad", "truncated")


def test_hdf5_that_holds_something_else(config_of, tmp_path):
    path = tmp_path / "data.h5ad"
    with h5py.File(path, "w") as file:
        file["matrix"] = np.zeros(3)
    by_preflight(config_of(str(path)), "datasets.d", str(path), "obs")


def test_one_kind_of_file_under_the_name_of_the_other(config_of, h5ad, h5mu, make_adata, tmp_path):
    os.rename(h5ad("a.h5ad"), tmp_path / "a.h5mu")
    by_preflight(config_of(str(tmp_path / "a.h5mu")), "datasets.d", "a.h5mu", "h5mu")
    data = make_adata()
    os.rename(h5mu({"rna": data}, data.obs, name="b.h5mu"), tmp_path / "b.h5ad")
    content = config_of(str(tmp_path / "b.h5ad"))
    by_preflight(content, "datasets.d", "b.h5ad", "several modalities", ".h5mu")


@pytest.mark.parametrize("key", ["batch", "donor", "platform"])
def test_a_missing_column(key, config_of, h5ad):
    path = h5ad(batch_id=["x", "y"] * 30)
    text = by_preflight(
        config_of(path, **{key: "batchid"}), f"datasets.d, {key}", "'batchid'", "cell_type"
    )
    assert "did you mean 'batch_id'?" in text


def test_a_missing_label_column(config_of, h5ad):
    content = config_of(h5ad(), labels={"column": "celltype", "source": "expert"})
    by_preflight(content, "datasets.d, labels", "'celltype'", "did you mean 'cell_type'?", "donor")


def test_a_missing_doublet_column(config_of, h5ad):
    content = config_of(h5ad(), doublets={"column": "doublet"})
    by_preflight(content, "datasets.d, doublets", "'doublet'", "did you mean 'is_doublet'?")


def test_a_constant_batch(config_of, h5ad):
    content = config_of(h5ad(batch=["only"] * 60))
    by_preflight(content, "datasets.d", "'integration'", "two batches", "['only']")
    content["datasets"]["d"]["tasks"] = []
    assert accepted(content).facts["batches"] == 1


def test_cells_without_a_batch(config_of, h5ad):
    batch = ["b1", "b2", None] + ["b1", "b2", "b3"] * 19
    by_preflight(config_of(h5ad(batch=batch)), "datasets.d, batch", "1 cells", "'batch'")


def test_cells_without_a_label_are_unlabelled(config_of, h5ad):
    types = [None, np.nan, "T cell"] + ["T cell", "B cell", "NK cell"] * 19
    prepared = accepted(config_of(h5ad(cell_type=types)))
    assert prepared.facts["unlabelled"] == 2
    assert prepared.truth["cell_type"].isna().sum() == 2


def test_no_label_at_all(config_of, h5ad):
    content = config_of(
        h5ad(cell_type=["unknown"] * 60),
        labels={"column": "cell_type", "source": "expert", "missing": ["unknown"]},
    )
    by_preflight(content, "datasets.d, labels", "no cell has a usable label")


@pytest.mark.parametrize(
    ("kind", "item", "valid"),
    [
        ("lobo", "b4", "b1, b2, b3"),
        ("unseen", "b4", "b1, b2, b3"),
        ("newtype", "Basophil", "B cell, Monocyte, NK cell, T cell"),
    ],
)
def test_a_held_out_item_that_does_not_exist(kind, item, valid, config_of, h5ad):
    content = config_of(h5ad(), splits={kind: [item]})
    by_preflight(content, f"datasets.d, splits.{kind}", repr(item), "does not exist", valid)


def test_a_held_out_item_that_is_the_only_one(config_of, h5ad):
    content = config_of(h5ad(batch=["b1"] * 60), tasks=[], splits={"lobo": ["b1"]})
    by_preflight(content, "datasets.d, splits.lobo", "'b1'", "only batch")
    content = config_of(h5ad(cell_type=["T"] * 60), splits={"newtype": ["T"]})
    by_preflight(content, "datasets.d, splits.newtype", "'T'", "only type")


def test_a_held_out_batch_without_labels(config_of, h5ad):
    types = [None if i % 3 == 0 else ["T", "B"][i % 2] for i in range(60)]
    content = config_of(h5ad(cell_type=types), splits={"lobo": ["b1"]})
    by_preflight(content, "datasets.d, splits.lobo", "of the batch 'b1'", "usable label")
    types = [["T", "B"][i % 2] if i % 3 == 0 else None for i in range(60)]
    content = config_of(h5ad(cell_type=types), splits={"lobo": ["b1"]})
    by_preflight(content, "datasets.d, splits.lobo", "outside the batch 'b1'", "usable label")


@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_duplicated_names(config_of, h5ad):
    cells = ["twin", "twin", *(f"c{i}" for i in range(58))]
    by_preflight(config_of(h5ad(cells=cells)), "datasets.d", "1 duplicated cell ids", "'twin'")
    genes = ["ACTB", *(f"g{i}" for i in range(38)), "ACTB"]
    content = config_of(h5ad(genes=genes))
    by_preflight(content, "datasets.d", "1 duplicated gene names", "'ACTB'")
    dataset = load(content).datasets["d"]
    refused(DataError, ["datasets.d", "'ACTB'"], load_data, "d", dataset)


def test_an_empty_dataset(config_of, h5ad):
    content = config_of(h5ad(cells=[]))
    by_preflight(content, "datasets.d", "is empty", "0 cells x 40 genes")
    content = config_of(h5ad(genes=[]))
    by_preflight(content, "datasets.d", "is empty", "60 cells x 0 genes")


def test_exclude_that_leaves_no_cell(config_of, h5ad):
    content = config_of(h5ad(), exclude={"batch": ["b1", "b2", "b3"]})
    by_preflight(content, "datasets.d", "'exclude'", "no cell")


def test_fewer_cells_than_dimensions(config_of, h5ad):
    features = {"n_top": 39, "n_pcs": 20}
    content = config_of(h5ad(n_cells=18), features=features)
    by_preflight(content, "datasets.d", "18 cells x 40 genes", "n_pcs = 20", "17 or less")
    content = config_of(h5ad(n_genes=12), features=features)
    by_preflight(content, "datasets.d", "60 cells x 12 genes", "n_pcs = 20", "11 or less")


def test_exclusions_count_for_the_dimensions(config_of, h5ad):
    content = config_of(
        h5ad(), features={"n_top": 39, "n_pcs": 30}, exclude={"batch": ["b1", "b2"]}, tasks=[]
    )
    by_preflight(content, "datasets.d", "20 cells", "n_pcs = 30")


@pytest.mark.parametrize(
    ("changes", "where", "value", "valid"),
    [
        (
            {"labels": {"column": "cell_type", "source": "expert", "missing": ["Mis"]}},
            "labels.missing", "'Mis'", "B cell, Monocyte",
        ),
        (
            {"labels": {"column": "cell_type", "source": "expert", "exclude": ["T-cell"]}},
            "labels.exclude", "'T-cell'", "B cell, Monocyte",
        ),
        ({"exclude": {"donor": ["d9"]}}, "exclude.donor", "'d9'", "d0, d1, d2"),
        ({"exclude": {"clinic": ["d9"]}}, "exclude", "'clinic'", "batch, donor"),
        (
            {"doublets": {"column": "is_doublet", "positive": ["doublet"]}},
            "doublets.positive", "'doublet'", "False, True",
        ),
        (
            {"doublets": {"column": "is_doublet", "positive": [1]}},
            "doublets.positive", "1", "False, True",
        ),
    ],
)  # fmt: skip
def test_a_value_that_no_cell_has(changes, where, value, valid, config_of, h5ad):
    by_preflight(config_of(h5ad(), **changes), f"datasets.d, {where}", value, valid)


def test_integers_and_booleans_are_values(config_of, h5ad):
    path = h5ad(demuxlet=[i % 10 == 0 for i in range(60)], cluster=[i % 4 for i in range(60)])
    content = config_of(path, doublets={"column": "demuxlet"}, exclude={"cluster": [1]})
    prepared = accepted(content)
    assert prepared.data.n_obs == 45
    assert prepared.facts["doublets_by_truth"] == sum(i % 10 == 0 and i % 4 != 1 for i in range(60))


@pytest.mark.parametrize(
    ("key", "renamed"),
    [("batch", "cell_type"), ("donor", "cluster"), ("platform", "state")],
)
def test_a_column_that_spells_the_truth(key, renamed, config_of, h5ad, make_adata):
    types = make_adata().obs["cell_type"]
    path = h5ad(
        cluster=types.map({t: str(i) for i, t in enumerate(types.unique())}).to_list(),
        state=[f"{'doublet' if i % 10 == 0 else 'singlet'}" for i in range(60)],
    )
    content = config_of(path, doublets={"column": "is_doublet"}, **{key: renamed})
    level = "is_doublet" if renamed == "state" else "cell_type"
    by_preflight(content, f"datasets.d, {key}", "spell the truth", level)


def test_a_missing_layer(config_of, h5ad, make_adata):
    data = make_adata()
    data.layers["raw"] = data.X.copy()
    path = h5ad(data=data)
    by_preflight(config_of(path, layer="counts"), "datasets.d", "no layer 'counts'", "it has raw")
    assert accepted(config_of(path, layer="raw")).data.n_obs == 60


def test_no_counts_but_in_a_layer(config_of, h5ad, make_adata):
    data = make_adata()
    data.layers["raw"] = data.X.copy()
    data.X = None
    path = h5ad(data=data)
    by_preflight(config_of(path), "datasets.d", "no X", "layer", "it has raw")
    assert accepted(config_of(path, layer="raw")).data.n_obs == 60


# --- several modalities -----------------------------------------------------------------


def test_a_modality_whose_cells_do_not_match(config_of, h5ad, h5mu, make_adata):
    rna, adt = h5ad("rna.h5ad"), h5ad("adt.h5ad", cells=[f"x{i}" for i in range(60)])
    content = config_of({"rna": rna, "adt": adt})
    by_preflight(content, "datasets.d", "'adt'", "no cell", "'x0'", "'cell-0'")
    parts = {"rna": make_adata(), "adt": make_adata(cells=[f"x{i}" for i in range(60)])}
    obs = pd.concat([p.obs for p in parts.values()])
    content = config_of(h5mu(parts, obs))
    by_preflight(content, "datasets.d", "'adt'", "no cell", "'x0'", "'cell-0'")


def test_a_modality_that_the_file_lacks(config_of, h5mu, make_adata):
    data = make_adata()
    path = h5mu({"rna": data}, data.obs)
    by_preflight(
        config_of(path, modalities={"rna": "rna", "adt": "prot"}),
        "datasets.d", "no modality 'prot'", "it has rna",
    )  # fmt: skip


def test_a_modality_under_another_name(config_of, h5mu, make_adata):
    data = make_adata()
    path = h5mu({"gex": data}, data.obs)
    by_preflight(config_of(path), "datasets.d", "'gex'", "rna, adt, atac, spatial", "modalities:")
    assert list(accepted(config_of(path, modalities={"rna": "gex"})).data.mod) == ["rna"]


def test_few_proteins_do_not_limit_the_dimensions_of_rna(config_of, h5mu, make_adata):
    parts = {"adt": make_adata(genes=["CD3", "CD4"]), "rna": make_adata()}
    prepared = accepted(config_of(h5mu(parts, parts["rna"].obs)))
    assert prepared.facts["features"] == {"adt": 2, "rna": 40}


@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_duplicated_names_in_the_second_modality(config_of, h5ad):
    content = config_of({"rna": h5ad("a.h5ad"), "adt": h5ad("b.h5ad", genes=["CD3", "CD3"])})
    by_preflight(content, "datasets.d, adt", "duplicated gene names", "'CD3'")


def test_a_column_that_only_one_modality_has(config_of, h5ad):
    rna, atac = h5ad("a.h5ad", cell_type=None), h5ad("b.h5ad", batch=None)
    prepared = accepted(config_of({"rna": rna, "atac": atac}))
    assert prepared.facts["types"] == 4
    assert prepared.facts["unlabelled"] == 0
    assert prepared.facts["batches"] == 3


def test_columns_of_an_h5mu_modality(config_of, h5mu, make_adata):
    data = make_adata()
    content = config_of(
        h5mu({"rna": data}), batch="rna:batch",
        labels={"column": "rna:cell_type", "source": "expert"},
    )  # fmt: skip
    assert accepted(content).facts["types"] == 4


def test_cells_of_a_modality_that_is_left_out(config_of, h5mu, make_adata):
    parts = {
        "rna": make_adata(cells=[f"c{i}" for i in range(40)]),
        "adt": make_adata(cells=[f"c{i}" for i in range(20, 60)], genes=["CD3", "CD4"]),
    }
    obs = make_adata(cells=[f"c{i}" for i in range(60)]).obs
    content = config_of(h5mu(parts, obs), modalities={"rna": "rna"})
    assert accepted(content).data.n_obs == 40
    content["datasets"]["d"]["modalities"]["adt"] = "adt"
    prepared = accepted(content)
    assert prepared.data.n_obs == 60
    assert prepared.data.obs["has_rna"].sum() == prepared.data.obs["has_adt"].sum() == 40


def test_three_modalities_that_each_lack_cells(config_of, h5mu, make_adata):
    members = {"rna": range(0, 40), "adt": range(30, 60), "atac": [*range(0, 10), *range(45, 80)]}
    parts = {m: make_adata(cells=[f"c{i}" for i in r], seed=3) for m, r in members.items()}
    obs = make_adata(cells=[f"c{i}" for i in range(80)]).obs
    prepared = accepted(config_of(h5mu(parts, obs)))
    original = prepared.truth["original_id"].to_numpy()
    for name, cells in members.items():
        assert set(original[prepared.data.obs[f"has_{name}"]]) == {f"c{i}" for i in cells}
        own = prepared.data.mod[name]
        source = parts[name][prepared.truth.set_index("cell_id").loc[own.obs_names, "original_id"]]
        np.testing.assert_array_equal(own.X.toarray(), source.X.toarray())


# --- several files ----------------------------------------------------------------------


@pytest.fixture
def two_files(h5ad):
    """A reference with sorted labels, and a query."""
    reference = h5ad("a.h5ad", sort=["CD19+ B", "CD56+ NK", "debris"] * 20, cell_type=None)
    query = h5ad("b.h5ad", cell_type=["B cell", "NK cell", "doubtful"] * 20, seed=1)
    return [
        {
            "path": reference, "batch": {"value": "sorted"}, "label_column": "sort",
            "label_map": {"CD19+ B": "B cell", "CD56+ NK": "NK cell"},
        },
        {"path": query, "batch": {"value": "query"}},
    ]  # fmt: skip


def labelled(**more):
    return {"column": "cell_type", "source": "expert", **more}


def test_several_files_are_one_dataset(two_files, config_of):
    content = config_of(
        None, concat=two_files, batch=None,
        labels=labelled(missing=["doubtful"], exclude=["debris"]),
    )  # fmt: skip
    prepared = accepted(content)
    assert prepared.data.n_obs == 100
    assert prepared.truth["cell_type"].value_counts(dropna=False).to_dict() == {
        "B cell": 40, "NK cell": 40, None: 20,
    }  # fmt: skip
    assert set(prepared.data.obs["batch"]) == {"sorted", "query"}


@pytest.mark.parametrize("key", ["missing", "exclude"])
def test_a_label_that_none_of_several_files_has(key, two_files, config_of):
    content = config_of(None, concat=two_files, batch=None, labels=labelled(**{key: ["CD19+ B"]}))
    by_preflight(content, f"datasets.d, labels.{key}", "'CD19+ B'", "B cell, NK cell, debris")
    dataset = load(content).datasets["d"]
    refused(DataError, [f"labels.{key}", "'CD19+ B'"], load_data, "d", dataset)


def test_types_are_renamed_and_stand_in_several_columns(two_files, config_of):
    content = config_of(
        None, concat=two_files, batch=None,
        labels=labelled(rename={"NK cell": "NK", "debris": "B cell"}, exclude=["NK"]),
    )  # fmt: skip
    plain = accepted(config_of(None, concat=two_files, batch=None, labels=labelled()))
    had = plain.truth["cell_type"].value_counts()
    found = accepted(content).truth["cell_type"].value_counts()
    assert found["B cell"] == had["B cell"] + had["debris"]
    assert set(found.index) == set(had.index) - {"NK cell", "debris"}
    content["datasets"]["d"]["labels"]["rename"] = {"T cell": "T"}
    by_preflight(content, "datasets.d, labels.rename", "'T cell'", "B cell, NK cell, debris")


def test_the_first_of_several_columns_that_has_a_type_gives_it(h5ad, config_of):
    first = ["B" if i % 3 else None for i in range(60)]
    second = ["T" if i % 2 else "NK" for i in range(60)]
    path = h5ad(one=first, other=second)
    labels = {"column": ["one", "other"], "source": "expert"}
    truth = accepted(config_of(path, labels=labels)).truth
    expected = ["B" if i % 3 else "T" if i % 2 else "NK" for i in range(60)]
    assert sorted(truth["cell_type"]) == sorted(expected)
    labels["column"] = ["one", "absent"]
    by_preflight(config_of(path, labels=labels), "datasets.d, labels", "'absent'", "other")


def test_no_type_may_have_the_name_of_what_cannot_be_named(h5ad, config_of):
    path = h5ad(cell_type=[("T", "unknown", "B")[i // 2 % 3] for i in range(60)])
    content = config_of(path, labels=labelled())
    by_preflight(content, "datasets.d, labels", "'unknown'", "missing", "rename")
    content["datasets"]["d"]["labels"]["missing"] = ["unknown"]
    assert accepted(content).truth["cell_type"].isna().sum() == 20
    del content["datasets"]["d"]["labels"]["missing"]
    content["datasets"]["d"]["labels"]["rename"] = {"unknown": "unassigned"}
    assert (accepted(content).truth["cell_type"] == "unassigned").sum() == 20


def test_a_label_map_of_unknown_labels(two_files, config_of):
    two_files[0]["label_map"]["CD3+ T"] = "T cell"
    content = config_of(None, concat=two_files, batch=None)
    by_preflight(content, "datasets.d.concat[0], label_map", "'CD3+ T'", "CD19+ B, CD56+ NK")


def test_files_without_a_common_gene(two_files, config_of, h5ad):
    two_files[1]["path"] = h5ad("c.h5ad", genes=[f"ENSG{i}" for i in range(40)])
    content = config_of(None, concat=two_files, batch=None)
    by_preflight(content, "datasets.d", "concat", "no gene name in common")


def test_files_with_few_common_genes(two_files, config_of, h5ad):
    genes = [f"gene{i}" if i < 4 else f"other{i}" for i in range(40)]
    two_files[1]["path"] = h5ad("c.h5ad", genes=genes)
    content = config_of(None, concat=two_files, batch=None)
    by_preflight(content, "datasets.d", "4 genes", "n_pcs = 5", "3 or less")


def test_a_missing_file_of_several(two_files, config_of):
    two_files[1]["path"] += ".h5ad"
    content = config_of(None, concat=two_files, batch=None)
    by_preflight(content, "datasets.d.concat[1]", "no file")


def test_an_h5mu_among_several_files(two_files, config_of, h5mu, make_adata):
    two_files[1]["path"] = h5mu({"rna": make_adata()}, make_adata().obs)
    content = config_of(None, concat=two_files, batch=None)
    by_preflight(content, "datasets.d.concat[1]", "data.h5mu", "no .h5ad file")


def test_several_files_with_one_batch(two_files, config_of):
    for part in two_files:
        part["batch"] = {"value": "same"}
    by_preflight(config_of(None, concat=two_files, batch=None), "two batches", "['same']")


def test_doublets_in_one_of_several_files(config_of, h5ad):
    parts = [
        {"path": h5ad("a.h5ad", is_doublet=[False] * 60), "batch": {"value": "a"}},
        {"path": h5ad("b.h5ad"), "batch": {"value": "b"}},
    ]
    content = config_of(None, concat=parts, batch=None, doublets={"column": "is_doublet"})
    assert accepted(content).facts["doublets_by_truth"] == 6
    parts[1]["path"] = parts[0]["path"]
    content = config_of(None, concat=parts, batch=None, doublets={"column": "is_doublet"})
    by_preflight(content, "datasets.d, doublets.positive", "[True]")


# --- what only the counts tell ----------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-1.0, ["1 negative values", "-1.0"]),
        (0.5, ["1 non-integer values", "0.5"]),
        (np.nan, ["1 NaN or infinite values", "nan"]),
        (np.inf, ["1 NaN or infinite values", "inf"]),
    ],
)
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_values_that_are_no_counts(value, words, form, config_of, h5ad, make_adata):
    data = make_adata()
    dense = data.X.toarray()
    dense[7, 3] = value
    data.X = form(dense)
    content = config_of(h5ad(data=data))
    by_prepare(content, "datasets.d", *words, "row 7, column 3", "integers >= 0", "layer")


def test_values_that_are_no_numbers(config_of, h5ad, make_adata):
    data = make_adata()
    data.X = data.X.toarray().astype(complex)
    by_prepare(config_of(h5ad(data=data)), "datasets.d", "complex128", "integer counts")


def test_no_counts_in_the_second_modality(config_of, h5ad, h5mu, make_adata):
    bad = make_adata(genes=["CD3", "CD4"])
    bad.X[2, 1] = -4.0
    content = config_of({"rna": h5ad("a.h5ad"), "adt": h5ad("b.h5ad", data=bad)})
    by_prepare(content, "datasets.d, adt", "negative", "-4.0", "row 2, column 1")
    content = config_of(h5mu({"rna": make_adata(), "adt": bad}, bad.obs))
    by_prepare(content, "datasets.d[adt]", "negative", "-4.0", "row 2, column 1")


def test_no_counts_in_the_second_file(config_of, h5ad, make_adata):
    bad = make_adata()
    bad.X = bad.X.toarray()
    bad.X[2, 1] = 1.25
    parts = [
        {"path": h5ad("a.h5ad"), "batch": {"value": "a"}},
        {"path": h5ad("b.h5ad", data=bad), "batch": {"value": "b"}},
    ]
    content = config_of(None, concat=parts, batch=None)
    by_prepare(content, "datasets.d.concat[1]", "non-integer", "1.25", "row 2, column 1")


def test_cut_offs_that_leave_too_little(config_of, h5ad):
    path = h5ad()
    content = config_of(path, qc={"min_genes": 1000})
    by_prepare(content, "datasets.d.qc", "no cell passes", "n_genes", "1000")
    content = config_of(path, qc={"min_cells": 61})
    by_prepare(content, "datasets.d.qc", "no gene", "min_cells = 61")


def test_cut_offs_that_leave_fewer_cells_than_dimensions(config_of, h5ad, make_adata):
    data = make_adata()
    low = sp.diags((np.arange(60) < 12).astype(np.float32))
    data.X = (low @ data.X).tocsr()
    content = config_of(h5ad(data=data), qc={"min_counts": 1}, features={"n_top": 39, "n_pcs": 20})
    prepared = accepted(content)
    features = load(content).datasets["d"].features
    given = (prepared.data, np.ones(12, dtype=bool), features, "d.h5mu")
    refused(DataError, ["d.h5mu", "12 cells", "n_pcs = 20", "11 or less"], make_input, *given)


def test_cut_offs_that_remove_a_held_out_batch(config_of, h5ad, make_adata):
    data = make_adata()
    low = sp.diags((data.obs["batch"] != "b1").to_numpy(dtype=np.float32))
    data.X = (low @ data.X).tocsr()
    content = config_of(h5ad(data=data), qc={"min_counts": 1}, splits={"lobo": ["b1"]})
    by_prepare(content, "datasets.d after QC, splits.lobo", "'b1'", "valid: b2, b3")


def test_a_held_out_batch_that_a_bundled_dataset_lacks(config_of):
    content = config_of(
        None, bundled="sim_multiome", splits={"lobo": ["batch9"]},
        labels={"column": "cell_type", "source": "planted"},
    )  # fmt: skip
    by_prepare(content, "datasets.d, splits.lobo", "'batch9'", "batch1")


# --- both looks at the data agree -------------------------------------------------------


@pytest.mark.parametrize("source", ["h5ad", "h5mu", "dict", "concat"])
def test_the_look_before_a_run_maps_what_prepare_maps(
    source, config_of, h5ad, h5mu, make_adata, two_files
):
    labels = labelled(missing=["NK cell"], exclude=["Monocyte"])
    common = {"labels": labels, "donor": "donor", "exclude": {"donor": ["d1"]}}
    parts = {
        "rna": make_adata(cells=[f"c{i}" for i in range(40)]),
        "adt": make_adata(cells=[f"c{i}" for i in range(20, 60)], genes=["CD3"]),
    }
    if source == "h5ad":
        content = config_of(h5ad(), **common)
    elif source == "h5mu":
        obs = make_adata(cells=[f"c{i}" for i in range(60)]).obs
        content = config_of(h5mu(parts, obs), **common)
    elif source == "dict":
        paths = {m: h5ad(f"{m}.h5ad", data=p) for m, p in parts.items()}
        content = config_of(paths, **common)
    else:
        content = config_of(None, concat=two_files, batch=None, labels=labelled(missing=["debris"]))
    dataset = load(content).datasets["d"]
    found, n_features = peek("d", dataset)
    raw = load_data("d", dataset)
    pd.testing.assert_frame_equal(found, raw.obs)
    assert n_features == raw.modalities["rna"].counts_mg.shape[1] == 40
    for part in raw.modalities.values():
        assert list(part.cells) == [c for c in raw.obs.index if c in set(part.cells)]


# --- through the real commands ----------------------------------------------------------


def write_config(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_check_command_prints_one_line(tmp_path, config_of, h5ad, monkeypatch, capsys):
    path = write_config(tmp_path, config_of(h5ad(), methods={"scvii": {}}))
    monkeypatch.setattr(sys, "argv", ["morebench", "check", "--configfile", str(path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    text = str(caught.value)
    assert text.startswith(f"error: {path}: methods.scvii: unknown method 'scvii'; did you mean")
    assert "\n" not in text
    path = write_config(tmp_path, config_of(h5ad(), splits={"lobo": ["b9"]}))
    with pytest.raises(SystemExit, match="^error: datasets.d, splits.lobo: 'b9' does not exist"):
        cli.main()


def test_the_check_command_says_what_a_run_holds(tmp_path, config_of, h5ad, monkeypatch, capsys):
    path = write_config(tmp_path, config_of(h5ad(), splits={"partial": {}}))
    monkeypatch.setattr(sys, "argv", ["morebench", "check", "--configfile", str(path)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert "1 datasets, 1 methods, 1 runs, 2 expected cells" in capsys.readouterr().out


@pytest.mark.workflow
@pytest.mark.parametrize("case", ["configuration", "data"])
def test_snakemake_stops_before_any_job_with_one_line(case, tmp_path, config_of, h5ad, repository):
    changes = {"tasks": ["integartion"]} if case == "configuration" else {"batch": "bacth"}
    line = {
        "configuration": "config: datasets.d.tasks: unknown task 'integartion'; did you mean "
        "'integration'? valid: ",
        "data": "datasets.d, batch: there is no obs column 'bacth'; did you mean 'batch'? it has ",
    }[case]
    path = write_config(tmp_path, config_of(h5ad(), **changes))
    done = subprocess.run(
        [
            sys.executable, "-m", "snakemake", "--snakefile", str(repository / "Snakefile"),
            "--directory", str(tmp_path), "--configfile", str(path), "-n", "--cores", "1",
        ],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    printed = done.stdout + done.stderr
    assert sum(row.startswith(line) for row in printed.splitlines()) == 1, printed
    assert "Traceback" not in printed
    assert not (tmp_path / "results").exists()


def test_the_small_files_of_these_tests_are_valid(h5ad, h5mu, make_adata, config_of):
    """Else a test above could see the right error for a wrong reason."""
    data = make_adata()
    for path in (h5ad(), h5mu({"rna": data}, data.obs)):
        prepared = accepted(config_of(path))
        assert prepared.data.n_obs == 60
    assert isinstance(mudata.read_h5mu(path), mudata.MuData)
    assert isinstance(anndata.read_h5ad(h5ad()), anndata.AnnData)
