"""The commands of MoRE: what they write, and what they refuse before any work."""

import shutil
import sys
from dataclasses import fields
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
from tests.seal import names
from typer.testing import CliRunner

from morebench import cli
from morebench.cli_more import settings as tables
from morebench.cli_more.commands import Device
from morebench.errors import ConfigError, DataError, MorebenchError
from morebench.io.tables import read_tsv
from morebench.models.more.annotate_settings import AnnotateSettings
from morebench.models.more.devices import DEVICES
from morebench.models.more.model import MoRE
from morebench.models.more.settings import Settings

CARD = Path(__file__).resolve().parents[2] / "docs/methods/more.md"
QUICK = ("--set", "backbone=none", "--set", "steps=20", "--threads", "1", "--device", "cpu")


def call(*words):
    return CliRunner().invoke(cli.app, [str(w) for w in words])


def ok(*words):
    found = call(*words)
    assert found.exit_code == 0, (found.output, found.exception)
    return found


def refused(*words):
    """Return the message of an error that is meant for the user; main makes one line of it."""
    found = call(*words)
    assert isinstance(found.exception, MorebenchError), (found.output, found.exception)
    assert "\n" not in str(found.exception)
    return str(found.exception)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Cells of two types that differ in ten genes each, in two batches; models of them."""
    folder = tmp_path_factory.mktemp("more")
    rng = np.random.default_rng(0)
    kind, batch = np.arange(120) % 2, np.arange(120) // 60
    rate = np.ones((120, 40))
    rate[kind == 0, :10] = rate[kind == 1, 10:20] = 8
    obs = pd.DataFrame(
        {"sample": np.array(["s1", "s2"])[batch], "type": np.array(["T", "B"])[kind]},
        index=[f"cell{i}" for i in range(120)],
    )
    obs["shown"] = np.where(np.arange(120) % 3 == 0, "?", obs["type"])
    var = pd.DataFrame(index=[f"gene{j}" for j in range(40)])
    data = anndata.AnnData(rng.poisson(rate).astype(np.float32), obs, var)
    data.write_h5ad(folder / "cells.h5ad")
    common = ("fit", folder / "cells.h5ad", "--batch-key", "sample", *QUICK)
    ok(*common, "--model", folder / "plain")
    ok(*common, "--model", folder / "labelled", "--labels-key", "shown", "--unlabeled", "?")
    return folder


@pytest.fixture
def cells(made):
    return made / "cells.h5ad"


# --- what is written ------------------------------------------------------------------------


def test_fit_writes_the_model_that_the_library_fits(made, cells):
    data = anndata.read_h5ad(cells)
    quick = Settings(backbone="none", steps=20)
    wanted = MoRE.fit(data, "sample", settings=quick, seed=0, threads=1, device="cpu")
    found = MoRE.load(made / "plain", device="cpu")
    assert found.settings == quick and found.batch_key == "sample"
    np.testing.assert_array_equal(found.embed(data), wanted.embed(data))
    assert list(MoRE.load(made / "labelled").classes) == ["B", "T"]


def test_fit_says_what_was_trained(cells, tmp_path):
    found = ok("fit", cells, "--model", tmp_path / "m", *QUICK)
    trained = MoRE.load(tmp_path / "m").parameters_trained
    assert f"{trained:,} trained, 0 frozen" in found.stdout
    assert "none (fitted without labels)" in found.stdout


def test_seed_and_settings_reach_the_model(cells, tmp_path):
    given = ("--set", "steps=2", "--set", "learning_rate=2e-3", "--set", "structure_steps=[1, 2]")
    ok("fit", cells, "--model", tmp_path / "m", "--seed", 7, "--set", "backbone=none", *given)
    model = MoRE.load(tmp_path / "m")
    assert model.seed == 7 and model.settings.learning_rate == 0.002
    assert model.settings.structure_steps == (1, 2)


def test_embed_adds_the_embedding_to_a_copy(made, cells, tmp_path):
    before = cells.read_bytes()
    ok("embed", cells, "--model", made / "plain", "--output", tmp_path / "out.h5ad", "--threads", 1)
    data, found = anndata.read_h5ad(cells), anndata.read_h5ad(tmp_path / "out.h5ad")
    z_nd = MoRE.load(made / "plain", device="cpu").embed(data)
    np.testing.assert_array_equal(found.obsm["X_more"], z_nd)
    np.testing.assert_array_equal(found.X, data.X)
    pd.testing.assert_frame_equal(found.obs, data.obs)
    assert cells.read_bytes() == before
    assert names(tmp_path) == ["out.h5ad"]


@pytest.mark.parametrize(("name", "read"), [("z.tsv", read_tsv), ("z.parquet", pd.read_parquet)])
def test_embed_writes_tables(made, cells, tmp_path, name, read):
    ok("embed", cells, "--model", made / "plain", "--output", tmp_path / name)
    data, found = anndata.read_h5ad(cells), read(tmp_path / name)
    assert list(found) == ["cell_id", *(f"more_{i}" for i in range(1, Settings().n_latent + 1))]
    assert list(found["cell_id"]) == list(data.obs_names)
    z_nd = MoRE.load(made / "plain", device="cpu").embed(data)
    np.testing.assert_allclose(found.iloc[:, 1:], z_nd, rtol=1e-5, atol=1e-7)


def test_annotate_adds_types_and_probabilities(made, cells, tmp_path):
    ok("annotate", cells, "--model", made / "labelled", "--output", tmp_path / "out.h5ad")
    found = anndata.read_h5ad(tmp_path / "out.h5ad")
    hidden = (found.obs["shown"] == "?").to_numpy()
    right = found.obs["more_label"].astype(str) == found.obs["type"].astype(str)
    assert right[hidden].mean() > 0.95  # the types differ in 20 of 40 genes
    p_nk = found.obsm["more_probabilities"]
    assert list(found.uns["more_classes"]) == ["B", "T"]
    np.testing.assert_allclose(p_nk.sum(1), 1)
    np.testing.assert_allclose(found.obs["more_probability"], p_nk.max(1))
    wanted = MoRE.load(made / "labelled", device="cpu").annotate(anndata.read_h5ad(cells)).novelty
    np.testing.assert_allclose(found.obs["more_novelty"], wanted, rtol=1e-5)
    assert wanted[~hidden].std() == pytest.approx(1, abs=0.2)  # in units of the cells shown
    named = found.uns["more_classes"][p_nk.argmax(1)]
    assert (found.obs["more_label"].astype(str) == named).all()


def test_annotate_writes_a_table(made, cells, tmp_path):
    ok("annotate", cells, "--model", made / "labelled", "--output", tmp_path / "types.tsv")
    found = read_tsv(tmp_path / "types.tsv")
    assert list(found) == [
        "cell_id", "more_label", "more_probability", "more_novelty", "p_B", "p_T",
    ]  # fmt: skip
    np.testing.assert_allclose(found["p_B"] + found["p_T"], 1, atol=1e-5)
    wanted = MoRE.load(made / "labelled", device="cpu").annotate(anndata.read_h5ad(cells))
    assert list(found["more_label"]) == list(wanted.labels)


def test_several_modalities_go_in_and_out(made, cells, tmp_path):
    rna = anndata.read_h5ad(cells)
    rng = np.random.default_rng(1)
    proteins = pd.DataFrame(index=[f"p{j}" for j in range(8)])
    adt = anndata.AnnData(
        rng.poisson(4, (90, 8)).astype(np.float32), pd.DataFrame(index=rna.obs_names[:90]), proteins
    )
    with mudata.set_options(pull_on_update=False):
        both = mudata.MuData({"rna": rna, "adt": adt})
        both.obs = rna.obs.loc[both.obs_names]
        both.write(tmp_path / "both.h5mu")
        data, model = tmp_path / "both.h5mu", tmp_path / "m"
        ok("fit", data, "--model", model, "--batch-key", "sample", *QUICK)
        ok("embed", data, "--model", model, "--output", tmp_path / "out.h5mu")
        found = mudata.read_h5mu(tmp_path / "out.h5mu")
    assert set(found.mod) == {"rna", "adt"} and list(found.obs_names) == list(both.obs_names)
    z_nd = MoRE.load(model, device="cpu").embed(both)
    np.testing.assert_array_equal(found.obsm["X_more"], z_nd)
    kinds = refused("embed", data, "--model", model, "--output", tmp_path / "out.h5ad")
    assert "'.h5ad'; valid for" in kinds and ".h5mu, .tsv, .parquet" in kinds


def test_batches_that_the_fit_has_not_seen_are_named(made, cells, tmp_path):
    data = anndata.read_h5ad(cells)[60:].copy()
    data.obs["lane"] = np.where(np.arange(60) < 30, "s1", "lane9")
    data.write_h5ad(tmp_path / "new.h5ad")
    given = ("embed", tmp_path / "new.h5ad", "--model", made / "plain")
    found = ok(*given, "--output", tmp_path / "z.tsv", "--batch-key", "lane")
    assert "not seen, served by estimates: lane9\n" in found.stdout
    assert "estimates" not in ok(*given, "--output", tmp_path / "y.tsv").stdout


# --- what is refused ------------------------------------------------------------------------


def test_an_error_is_one_line_and_exit_code_1(made, tmp_path, monkeypatch, capsys):
    words = ["embed", tmp_path / "no.h5ad", "--model", made / "plain", "--output", "z.tsv"]
    monkeypatch.setattr(sys, "argv", ["morebench", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    line = str(stop.value.code)  # text: Python prints it on standard error and exits with 1
    assert line == f"error: {tmp_path / 'no.h5ad'}: there is no such file"
    assert capsys.readouterr().out == ""


def test_too_few_known_genes_are_refused_with_their_number(made, cells, tmp_path):
    data = anndata.read_h5ad(cells)
    data.var_names = [*data.var_names[:15], *(f"other{j}" for j in range(25))]
    data.write_h5ad(tmp_path / "other.h5ad")
    given = ("--model", made / "plain", "--output", tmp_path / "z.tsv")
    found = refused("embed", tmp_path / "other.h5ad", *given)
    assert "25 of the model's 40 features are missing" in found and "at least 50%" in found
    assert not (tmp_path / "z.tsv").exists()


def test_an_output_is_replaced_by_force_only(made, cells, tmp_path):
    own = tmp_path / "own.h5ad"
    shutil.copy(cells, own)
    given = ("embed", own, "--model", made / "plain", "--output")
    assert "is the input; --force" in refused(*given, own)
    (tmp_path / "link.h5ad").symlink_to(own)
    assert "is the input; --force" in refused(*given, tmp_path / "link.h5ad")
    table = tmp_path / "z.tsv"
    table.write_text("mine")
    assert "is there already; --force" in refused(*given, table)
    assert table.read_text() == "mine"
    assert "there is no folder" in refused(*given, tmp_path / "none" / "z.tsv")
    assert "is of kind '.csv'" in refused(*given, tmp_path / "z.csv")
    ok(*given, table, "--force")
    assert len(read_tsv(table)) == 120
    ok(*given, own, "--force")
    assert "X_more" in anndata.read_h5ad(own).obsm


def test_a_model_replaces_nothing_else(cells, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    given = ("fit", cells, *QUICK, "--set", "min_epochs=1", "--model")
    assert "holds other files" in refused(*given, folder, "--force")
    (folder / "thesis.txt").unlink()
    ok(*given, folder)
    assert "a model is there already; --force" in refused(*given, folder)
    before = (folder / "model.safetensors").read_bytes()
    ok(*given, folder, "--force", "--seed", 1)
    assert (folder / "model.safetensors").read_bytes() != before
    assert "is a file" in refused(*given, cells)
    assert "there is no folder" in refused(*given, tmp_path / "no" / "m")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--batch-key", "sampel"),
            "--batch-key: obs has no column 'sampel'; did you mean 'sample'?",
        ),
        (
            ("--labels-key", "types"),
            "--labels-key: obs has no column 'types'; did you mean 'type'?",
        ),
        (("--unlabeled", "?"), "--unlabeled: says nothing without --labels-key"),
        (
            ("--labels-key", "type", "--unlabeled", "unknown"),
            "--unlabeled: obs['type'] has no value 'unknown'; valid: B, T",
        ),
        (("--layer", "counts"), "there is no layer 'counts'"),
        (("--set", "stepps=3"), "--set: 'stepps' is no setting; did you mean 'steps'?"),
        (("--set", "steps"), "--set: found 'steps'; valid: key=value"),
    ],
)
def test_mistakes_of_fit_are_found_before_any_work(cells, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr(MoRE, "fit", lambda *a, **k: pytest.fail("the work has begun"))
    found = refused("fit", cells, "--model", tmp_path / "m", *words)
    assert message in found
    assert not (tmp_path / "m").exists()


def test_broken_files_are_refused(made, cells, tmp_path):
    broken = tmp_path / "broken.h5ad"
    broken.write_bytes(cells.read_bytes()[:2000])
    given = ("--output", tmp_path / "z.tsv", "--model")
    assert "cannot be read as h5ad" in refused("embed", broken, *given, made / "plain")
    assert "'.loom'; valid: .h5ad, .h5mu" in refused("embed", "a.loom", *given, made / "plain")
    shutil.copytree(made / "plain", tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"no")
    assert "model.safetensors: its SHA-256 is" in refused("embed", cells, *given, tmp_path / "m")
    assert "is no saved model" in refused("embed", cells, *given, tmp_path / "none")
    (tmp_path / "file").write_text("")
    cache = ("--cache", tmp_path / "file")
    assert "is a file; valid: a folder" in refused("embed", cells, *given, made / "plain", *cache)


def test_annotate_needs_a_model_with_labels(made, cells, tmp_path):
    given = ("--model", made / "plain", "--output", tmp_path / "t.tsv")
    assert "was fitted without labels" in refused("annotate", cells, *given)


def test_devices_are_those_of_the_library(cells, tmp_path):
    assert tuple(d.value for d in Device) == DEVICES
    assert call("fit", cells, "--model", tmp_path / "m", "--device", "tpu").exit_code == 2


# --- settings -------------------------------------------------------------------------------


def test_values_are_read_by_the_type_of_their_setting():
    found = tables.settings_of(
        ["structure=false", "mask=0", "w_dense=1e-2", "fusion=mean", "structure_steps=3", "steps=9"]
    )
    assert found == Settings(
        structure=False, mask=0.0, w_dense=0.01, fusion="mean", structure_steps=(3,), steps=9
    )
    assert type(found.mask) is float
    assert tables.settings_of([]) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps=many", "steps: found 'many'; valid: int"),
        ("steps=2.5", "steps: found 2.5; valid: int"),
        ("steps=true", "steps: found True; valid: int"),
        ("mask=much", "mask: found 'much'; valid: float"),
        ("mask=true", "mask: found True; valid: float"),
        ("mask=nan", "mask: found nan; valid: 0 or more"),
        ("structure=1", "structure: found 1; valid: bool"),
        ("fusion=[", r"fusion: found '\['; valid: adaptive, mean"),
        ("structure_steps=[1, a]", r"structure_steps: found .*; valid: one or more numbers"),
        ("structure_steps=two", r"structure_steps: found .*; valid: one or more numbers"),
        ("fusion=sum", "fusion: found 'sum'; valid: adaptive, mean"),
        ("mask=1.5", "mask: found 1.5; valid: a share below 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        tables.settings_of([text])


def test_a_setting_is_set_once():
    with pytest.raises(ConfigError, match="'steps' is set twice"):
        tables.settings_of(["steps=3", "steps=4"])


@pytest.mark.parametrize(("name", "of"), [("settings", Settings), ("annotation", AnnotateSettings)])
def test_the_tables_hold_every_setting_once(name, of):
    rows = [line.split(" | ") for line in tables.table(name).splitlines()[2:]]
    found = [k.strip("`| ") for row in rows for k in row[0].split(", ")]
    assert sorted(found) == sorted(f.name for f in fields(of))
    assert all(row[2].strip(" |") for row in rows)
    assert tables.table(name) in ok("settings").stdout


def test_the_method_card_holds_the_tables(tmp_path):
    wanted = tables.with_tables(CARD.read_text(), "card")
    assert CARD.read_text() == wanted, "run: morebench settings --page docs/methods/more.md"
    page = tmp_path / "page.md"
    page.write_text(CARD.read_text().replace("| `steps`", "| `stepz`").replace("500", "501"))
    ok("settings", "--page", page)
    assert page.read_text() == wanted
    page.write_text("no marks")
    assert "lacks the marks" in refused("settings", "--page", page)
    with pytest.raises(DataError, match="card: lacks the marks"):
        tables.with_tables("", "card")
