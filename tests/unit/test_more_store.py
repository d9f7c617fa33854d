"""A fitted model on disk: bit for bit what it was, and no pickle."""

import json

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.seal import names, seal

from morebench.errors import ConfigError, ContractError, Damaged
from morebench.models.more.model import MoRE
from morebench.models.more.settings import Settings

SETTINGS = {
    "backbone": "none", "n_components": 6, "structure": True, "n_latent": 5, "n_hidden": 8,
    "steps": 6, "batch_size": 32, "min_epochs": 1,
}  # fmt: skip
BACKBONE = {"backbone": "random", "n_tokens": 3, "steps": 2}


def planted(adt=False, n=72, g=24, seed=0):
    """Counts of two types, with labels; proteins of all but ten cells where asked for."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    obs = pd.DataFrame(
        {"batch": np.where(np.arange(n) < 30, "p", "q"), "type": np.where(kind, "odd", "even")},
        index=[f"c{i}" for i in range(n)],
    )

    def part(g, prefix):
        rate = rng.gamma(0.8, 4, (2, g))[kind]
        names = pd.DataFrame(index=[f"{prefix}{j}" for j in range(g)])
        counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
        return anndata.AnnData(counts, obs=obs.copy(), var=names)

    if not adt:
        return part(g, "GENE")
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"rna": part(g, "GENE"), "adt": part(8, "CD")[10:].copy()})
        data.obs = obs.loc[data.obs_names]
    return data


def fit(data, labels=None, **changes):
    settings = Settings(**{**SETTINGS, **changes})
    return MoRE.fit(data, "batch", labels, settings=settings, seed=3, device="cpu", threads=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    data = planted()
    model = fit(data, "type")
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return data, model, folder


@pytest.mark.parametrize("likelihood", ["gaussian", "nb"])
@pytest.mark.parametrize("adt", [False, True])
def test_what_is_loaded_gives_the_same_bits(tmp_path, adt, likelihood):
    data = planted(adt)
    model = fit(data, likelihood=likelihood, loss_weights="learned", structure_steps=(1, 2))
    model.save(tmp_path / "m")
    again = MoRE.load(tmp_path / "m", device="cpu")
    query = planted(adt, seed=1)
    query.obs["batch"] = query.obs["batch"].astype(str).str.replace("q", "unseen")
    for given in (data, query):
        np.testing.assert_array_equal(again.embed(given), model.embed(given))
        for name in model.names:
            np.testing.assert_array_equal(again.denoise(given, name), model.denoise(given, name))
    assert again.settings == model.settings and again.summary() == model.summary()
    assert (again.seed, again.batch_key, again.layer) == (3, "batch", None)
    assert not again.network.training


def test_annotation_is_loaded_too(saved):
    data, model, folder = saved
    again = MoRE.load(folder, device="cpu")
    one, two = model.annotate(data), again.annotate(data)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert again.classes.tolist() == ["even", "odd"]


def test_frozen_features_are_made_again_of_the_same_background(tmp_path):
    data = planted()
    model = fit(data, **BACKBONE)
    model.save(tmp_path / "m")
    again = MoRE.load(tmp_path / "m", device="cpu")
    query = planted(seed=1)[:12].copy()
    np.testing.assert_array_equal(again.embed(query), model.embed(query))
    assert again.parameters_frozen == model.parameters_frozen > 22_000_000


def test_weights_of_a_backbone_that_changed_are_refused(tmp_path):
    model = fit(planted(), **BACKBONE)
    model.save(tmp_path / "m")
    file = tmp_path / "m" / "model.json"
    content = json.loads(file.read_text())
    content["source"]["weights_sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    seal(file)
    again = MoRE.load(tmp_path / "m", device="cpu")
    with pytest.raises(ContractError, match="backbone random: weights .* valid: 0000"):
        again.embed(planted())


@pytest.mark.faults
def test_there_is_no_pickle_in_the_folder(saved):
    _, _, folder = saved
    assert names(folder) == ["model.json", "model.safetensors"]
    whole = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    assert {v["dtype"] for k, v in header.items() if k != "__metadata__"} <= {"F32", "F64", "I64"}
    json.loads((folder / "model.json").read_text())


def copied(folder, tmp_path):
    made = tmp_path / "copy"
    made.mkdir()
    for file in folder.iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    return made


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, tmp_path, name):
    folder = copied(saved[2], tmp_path)
    (folder / name).unlink()
    with pytest.raises(ContractError, match=f"is no saved model: {name} is missing"):
        MoRE.load(folder, device="cpu")


@pytest.mark.faults
def test_damaged_arrays_are_refused(saved, tmp_path):
    folder = copied(saved[2], tmp_path)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(Damaged, match="model.safetensors: its SHA-256 is .* model.json says"):
        MoRE.load(folder, device="cpu")


@pytest.mark.faults
@pytest.mark.parametrize("cut", [0, 100, -20])
def test_a_cut_json_is_refused(saved, tmp_path, cut):
    folder = copied(saved[2], tmp_path)
    file = folder / "model.json"
    file.write_text(file.read_text()[:cut])
    with pytest.raises(Damaged, match="model.json: its SHA-256"):
        MoRE.load(folder, device="cpu")
    seal(file)
    with pytest.raises(ContractError, match="not JSON"):
        MoRE.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 9, "format 9; valid: 4"),
        ("scales", None, "lacks 'scales'"),
        ("names", None, "lacks 'names'"),
    ],
)
def test_another_format_and_missing_entries_are_refused(saved, tmp_path, key, value, message):
    folder = copied(saved[2], tmp_path)
    file = folder / "model.json"
    content = json.loads(file.read_text())
    if value is None:
        del content[key]
    else:
        content[key] = value
    file.write_text(json.dumps(content))
    seal(file)
    with pytest.raises(ContractError, match=message):
        MoRE.load(folder, device="cpu")


def test_settings_of_another_version_are_named(saved, tmp_path):
    folder = copied(saved[2], tmp_path)
    file = folder / "model.json"
    content = json.loads(file.read_text())
    content["settings"]["n_layers"] = 3
    file.write_text(json.dumps(content))
    seal(file)
    with pytest.raises(ConfigError, match="unknown setting 'n_layers'"):
        MoRE.load(folder, device="cpu")


def test_saving_again_replaces_the_model(saved, tmp_path):
    data, model, _ = saved
    other = fit(data, n_latent=3)
    model.save(tmp_path / "m")
    other.save(tmp_path / "m")
    again = MoRE.load(tmp_path / "m", device="cpu")
    np.testing.assert_array_equal(again.embed(data), other.embed(data))
    assert len(names(tmp_path / "m")) == 2
