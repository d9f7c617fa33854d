"""Derived datasets: what is lost, what is left, what nothing may touch; bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from morebench import plan
from morebench.config import config_hash, load, load_file, resolved
from morebench.data.derive import derive_cells, lose_counts, titration
from morebench.data.derive_labels import degrade_labels
from morebench.data.prepare import prepare
from morebench.data.sources import Modality, Raw
from morebench.data.spec import Derive, Partial
from morebench.data.splits import make_split
from morebench.errors import ConfigError, DataError
from morebench.io.splits import write_split
from morebench.preflight import check

CONFIG = Path(__file__).parents[2] / "config"


def change(**keys):
    return Derive.model_validate({"from": "base", **keys})


def within(found, n, p, sigmas=5):
    """Assert that a count is one that n draws of chance p can give."""
    assert abs(found - n * p) <= sigmas * np.sqrt(n * p * (1 - p)) + 1e-9


def counts_of(n=200, g=100, mean=4.0, seed=0):
    rng = np.random.default_rng(seed)
    return sp.csr_matrix(rng.poisson(mean, (n, g)).astype(np.float32))


# --- counts --------------------------------------------------------------------------------


@given(
    dropout=st.floats(0, 0.95), depth=st.floats(0.02, 1), seed=st.integers(0, 99)
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_counts_only_go_down_and_stay_whole(dropout, depth, seed):
    given = counts_of(20, 15)
    kept = given.copy()
    keys = {"dropout": dropout, "depth": depth, "seed": seed}
    found = lose_counts(given, change(**keys))
    assert found.dtype == given.dtype and found.shape == given.shape
    difference = (given - found).toarray()
    assert (difference >= 0).all() and (found.data > 0).all()
    np.testing.assert_array_equal(found.data, np.round(found.data))
    np.testing.assert_array_equal(given.toarray(), kept.toarray())
    np.testing.assert_array_equal(found.toarray(), lose_counts(given, change(**keys)).toarray())


@pytest.mark.parametrize("rate", [0.3, 0.6, 0.9])
def test_dropout_sets_that_share_of_the_counts_to_0_and_leaves_the_others(rate):
    given = counts_of()
    found = lose_counts(given, change(dropout=rate))
    within(given.nnz - found.nnz, given.nnz, rate)
    rows, columns = found.nonzero()
    np.testing.assert_array_equal(found[rows, columns], given[rows, columns])


@pytest.mark.parametrize("depth", [0.25, 0.0625])
def test_depth_keeps_that_share_of_the_molecules_as_a_binomial_does(depth):
    given = sp.csr_matrix(np.full((300, 100), 20, np.float32))
    found = lose_counts(given, change(depth=depth)).toarray()
    within(found.sum(), 300 * 100 * 20, depth)
    variance = 20 * depth * (1 - depth)
    assert found.var() == pytest.approx(variance, rel=5 * np.sqrt(3 / 30_000))


def test_no_loss_changes_nothing_and_a_larger_loss_holds_the_smaller_one():
    given = counts_of()
    same = lose_counts(given, change(dropout=0.0, depth=1.0))
    np.testing.assert_array_equal(same.toarray(), given.toarray())
    less, more = (lose_counts(given, change(dropout=p)).toarray() > 0 for p in (0.3, 0.6))
    assert (less | ~more).all() and less.sum() > more.sum()
    other = lose_counts(given, change(dropout=0.3, seed=1)).toarray() > 0
    assert (other != less).any()
    # both together: what is thinned is what thinning alone leaves, and then lost alike
    both = lose_counts(given, change(depth=0.5, dropout=0.3)).toarray()
    thin = lose_counts(given, change(depth=0.5)).toarray()
    np.testing.assert_array_equal(both, np.where(less, thin, 0))


def test_modalities_lose_their_own_counts():
    given = counts_of()
    first, second = (lose_counts(given, change(dropout=0.5), place).toarray() for place in (0, 1))
    assert (first != second).any()


# --- cells of a type -----------------------------------------------------------------------


def types_of(n_others=950, n_rare=50):
    values = ["T cell"] * n_others + ["NK cell"] * n_rare
    return pd.Series(np.random.default_rng(0).permutation(np.array(values, dtype=object)))


@pytest.mark.parametrize(("share", "left"), [(0.05, 50), (0.01, 10), (0.002, 2), (0.001, 1)])
def test_a_type_makes_up_the_share_of_all_cells_that_are_left(share, left):
    types = types_of()
    keep = titration(types, change(titrate={"type": "NK cell", "share": share}), "d")
    assert keep[types == "T cell"].all()
    assert keep[types == "NK cell"].sum() == left
    assert left / keep.sum() == pytest.approx(share, abs=0.5 / keep.sum())


def test_the_same_seed_leaves_the_same_cells_and_a_smaller_share_some_of_them():
    types = types_of()

    def keep(share, seed=0):
        return titration(types, change(titrate={"type": "NK cell", "share": share}, seed=seed), "d")

    np.testing.assert_array_equal(keep(0.02), keep(0.02))
    assert (keep(0.02) | ~keep(0.01)).all()
    assert (keep(0.02, seed=1) != keep(0.02)).any()


def test_titration_says_what_is_wrong():
    def refuse(words, **titrate):
        with pytest.raises(DataError, match=words):
            titration(types_of(), change(titrate=titrate), "datasets.d.derive")

    refuse(
        "datasets.d.derive.titrate.type: no cell is of type 'NK'; valid: NK cell, T cell",
        type="NK", share=0.01,
    )  # fmt: skip
    refuse(
        "titrate.share: found 0.06, above the share 0.05 that 'NK cell' makes up",
        type="NK cell", share=0.06,
    )  # fmt: skip
    refuse("found 0.0001, less than one cell beside 950 others", type="NK cell", share=1e-4)


def test_a_cell_that_loses_all_its_counts_is_left_out():
    counts = counts_of(60, 30).toarray()
    counts[:5] = 0
    counts[:5, 0] = 1  # one molecule each: most of them go
    cells = pd.Index([f"x{i}" for i in range(60)])
    obs = pd.DataFrame({"cell_type": "t"}, index=cells)
    raw = Raw(obs, {"rna": Modality(sp.csr_matrix(counts), cells, pd.DataFrame(index=range(30)))})
    changed, keep, facts = derive_cells(raw, change(dropout=0.8), "d")
    left = np.asarray(changed.modalities["rna"].counts_mg.sum(1)).ravel()
    np.testing.assert_array_equal(keep, left > 0)
    assert facts["cells_emptied"] == (left == 0).sum() >= 1
    assert facts["counts"]["rna"] == [int(counts.sum()), int(left.sum())]
    few = Raw(obs, {"rna": Modality(sp.csr_matrix(np.eye(60, 30)), cells, raw.obs)})
    with pytest.raises(DataError, match="every cell has lost all its counts"):
        derive_cells(
            Raw(
                obs.iloc[:2], {"rna": Modality(few.modalities["rna"].counts_mg[:2], cells[:2], obs)}
            ),
            change(depth=1e-6),
            "d",
        )


# --- labels --------------------------------------------------------------------------------


def truth_of(n=600, seed=0):
    rng = np.random.default_rng(seed)
    types = rng.choice(np.array(["t0", "t1", "t2", None], dtype=object), n, p=[0.6, 0.2, 0.1, 0.1])
    doublet = rng.choice([0.0, 1.0, np.nan], n, p=[0.3, 0.1, 0.6])
    truth = pd.DataFrame(
        {
            "cell_id": [f"c{i + 1:06d}" for i in range(n)],
            "cell_type": types,
            "is_doublet": doublet,
        }
    )
    return truth, rng.choice(["b0", "b1"], n)


SPLITS = {"partial": None, "lobo-b1": "b1", "unseen-b1": "b1", "newtype-t2": "t2"}


@pytest.mark.parametrize("split", SPLITS)
@given(
    noise=st.floats(0, 0.9), missing=st.floats(0, 0.9), seed=st.integers(0, 50)
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_labels_change_among_the_shown_ones_only(split, noise, missing, seed):
    truth, batch = truth_of()
    before = truth.copy()
    derive = change(label_noise=noise, label_missing=missing, seed=seed)
    base, base_facts = make_split(split, SPLITS[split], truth, batch, Partial())
    table, facts = make_split(split, SPLITS[split], truth, batch, Partial(), derive)
    again, _ = make_split(split, SPLITS[split], truth, batch, Partial(), derive)
    pd.testing.assert_frame_equal(table, again)
    pd.testing.assert_frame_equal(truth, before)
    for column in ("cell_id", "fit_visible", "scored"):
        pd.testing.assert_series_equal(table[column], base[column])
    was, shown = base["label"].notna(), table["label"].notna()
    assert not (shown & ~was).any()  # a hidden label never becomes visible
    assert not (was & table["scored"]).any()  # nor is one scored that was shown
    assert was.sum() - shown.sum() == facts["n_label_missing"] == round(missing * was.sum())
    wrong = shown & (table["label"] != base["label"])
    assert wrong.sum() == facts["n_label_noise"] == round(noise * shown.sum())
    assert facts["n_shown"] == shown.sum()
    # wrong labels are types that the split shows: a held-out type is never named
    assert set(table.loc[shown, "label"]) <= set(base_facts["types_shown"])
    if split.startswith("newtype"):
        assert "t2" not in facts["types_shown"]


def test_wrong_labels_are_drawn_uniformly_from_the_other_types():
    labels = np.repeat(np.array(["a", "b", "c", "d"], dtype=object), [12_000, 300, 200, 100])
    found, facts = degrade_labels(labels, change(label_noise=0.5), "d")
    wrong = found != labels
    assert facts == {"n_label_missing": 0, "n_label_noise": 6300} and wrong.sum() == 6300
    of_a = found[wrong & (labels == "a")]
    within(len(of_a), 12_000, 0.5)
    for name in "bcd":
        within((of_a == name).sum(), len(of_a), 1 / 3)


def test_larger_changes_of_a_seed_hold_the_smaller_ones():
    labels = np.repeat(np.array(["a", "b", None], dtype=object), 300)
    few, _ = degrade_labels(labels, change(label_missing=0.5), "d")
    fewer, _ = degrade_labels(labels, change(label_missing=0.9), "d")
    assert all(f is not None for f, g in zip(few, fewer, strict=True) if g is not None)
    some, _ = degrade_labels(labels, change(label_noise=0.2), "d")
    more, _ = degrade_labels(labels, change(label_noise=0.4), "d")
    assert (some != labels).sum() == 120 and (more[some != labels] == some[some != labels]).all()
    other, _ = degrade_labels(labels, change(label_noise=0.2, seed=1), "d")
    assert (other != some).any()


def test_labels_that_cannot_be_changed():
    with pytest.raises(DataError, match="label_noise needs two types, the split shows a only"):
        degrade_labels(np.array(["a", "a", None], dtype=object), change(label_noise=0.5), "d")
    truth, batch = truth_of(40)
    with pytest.raises(DataError, match="'partial': no label would be shown"):
        make_split(
            "partial", None, truth, batch, Partial(fraction=0.05), change(label_missing=0.99)
        )


# --- in a configuration --------------------------------------------------------------------


@pytest.fixture
def derived(config_of):
    """Return a function that gives a configuration of ``d`` and of ``e``, derived from it."""

    def make(file, derive, base=None, **entry):
        content = config_of(file, splits={"partial": {}}, **(base or {}))
        content["datasets"]["e"] = {"derive": {"from": "d", **derive}, **entry}
        return content

    return make


def test_a_derived_dataset_has_all_of_its_base_but_its_own_keys(derived):
    content = derived("x.h5ad", {"dropout": 0.5}, {"title": "base"}, tasks=[], title="half")
    config = load(content)
    base, own = config.datasets["d"], config.datasets["e"]
    assert (own.title, own.tasks, own.derive.base) == ("half", [], "d")
    left = {"title", "tasks", "derive"}
    assert own.model_dump(exclude=left) == base.model_dump(exclude=left)
    assert load(derived("x.h5ad", {"dropout": 0.5}, {"title": "base"})).datasets["e"].title is None
    again = load(json.loads(json.dumps(resolved(config), default=list)))
    assert again.datasets == config.datasets and config_hash(again) == config_hash(config)
    assert content["datasets"]["e"] == {
        "derive": {"from": "d", "dropout": 0.5}, "tasks": [], "title": "half",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("derive", "words"),
    [
        ({"dropouts": 0.5}, "unknown key 'datasets.e.derive.dropouts'; did you mean 'dropout'"),
        ({"frm": "d", "dropout": 0.1}, "valid: depth, dropout, from, label_missing"),
        ({}, "datasets.e.derive: says nothing to change; valid: one or more of dropout, depth"),
        ({"dropout": 1.0}, "datasets.e.derive.dropout: .*less than 1.*found 1.0"),
        ({"depth": 0}, "datasets.e.derive.depth: .*greater than 0.*found 0"),
        ({"titrate": {"type": "a"}}, "datasets.e.derive.titrate.share: Field required"),
        ({"titrate": {"type": "a", "share": 0}}, "titrate.share: .*greater than 0"),
        ({"titrate": {"typ": "a", "share": 0.1}}, "unknown key 'datasets.e.derive.titrate.typ'"),
        ({"from": "f", "dropout": 0.1}, "derive.from: 'f' is not a configured dataset; .*valid: d"),
        ({"from": "e", "dropout": 0.1}, "derive.from: 'e' is derived itself"),
        ({"from": 3, "dropout": 0.1}, "datasets.e.derive.from: .*found 3"),
    ],
)
def test_what_a_derived_dataset_cannot_say(derived, derive, words):
    with pytest.raises(ConfigError, match=f"run.yaml: .*{words}") as caught:
        load(derived("x.h5ad", derive), "run.yaml")
    assert "\n" not in str(caught.value)


def test_a_derived_dataset_is_no_base_and_keeps_what_is_its_bases(derived):
    content = derived("x.h5ad", {"dropout": 0.5})
    content["datasets"]["f"] = {"derive": {"from": "e", "depth": 0.5}}
    with pytest.raises(ConfigError, match="datasets.f.derive.from: 'e' is derived itself"):
        load(content)
    with pytest.raises(ConfigError, match="datasets.e.use: a derived dataset has that of its base"):
        load(derived("x.h5ad", {"dropout": 0.5}, use="reporting"))
    with pytest.raises(ConfigError, match="datasets.e.qc: a derived dataset has that of its"):
        load(derived("x.h5ad", {"dropout": 0.5}, qc={"min_genes": 3}))
    with pytest.raises(ConfigError, match="datasets.e.path: a derived dataset has that of its"):
        load(derived("x.h5ad", {"dropout": 0.5}, path="y.h5ad"))
    content = derived("x.h5ad", {"dropout": 0.5})
    del content["datasets"]["e"]["derive"]["from"]
    with pytest.raises(ConfigError, match="datasets.e.derive.from: Field required"):
        load(content)


def test_changes_of_labels_need_labels_that_are_shown(derived):
    bare = {"labels": None, "tasks": []}
    for key, value in (
        ("label_noise", 0.1), ("label_missing", 0.1), ("titrate", {"type": "a", "share": 0.1}),
    ):  # fmt: skip
        content = derived("x.h5ad", {key: value}, bare)
        content["datasets"]["d"].pop("splits")
        with pytest.raises(ConfigError, match=f"datasets.e.derive.{key}: needs 'labels'"):
            load(content)
    with pytest.raises(ConfigError, match="derive.label_noise: 'splits' lists none that shows"):
        load(derived("x.h5ad", {"label_noise": 0.1}, splits={}))


def test_preflight_names_the_types_and_the_present_share(derived, h5ad):
    def refuse(words, base=None, **titrate):
        with pytest.raises(DataError, match=f"^datasets.e.derive.titrate.{words}"):
            check(load(derived(h5ad(), {"titrate": titrate}, base)))

    refuse(
        "type: no cell is of type 'B'; valid: B cell, Monocyte, NK cell, T cell",
        type="B", share=0.1,
    )  # fmt: skip
    refuse("share: found 0.3, above the share 0.25", type="B cell", share=0.3)
    check(load(derived(h5ad(), {"titrate": {"type": "B cell", "share": 0.2}})))
    # the share is that of the cells that QC leaves: only prepare knows them
    strict = {"qc": {"min_genes": 1}}
    refuse("type: no cell is of type 'B'", strict, type="B", share=0.1)
    config = load(derived(h5ad(), {"titrate": {"type": "B cell", "share": 0.3}}, strict))
    check(config)
    with pytest.raises(DataError, match=r"^datasets.e.derive.titrate.share: found 0.3"):
        prepare("e", config.datasets["e"])


def test_prepared_cells_lose_counts_and_nothing_else(derived, h5ad, make_adata):
    path = h5ad(data=make_adata(n_cells=80, n_genes=60))
    config = load(derived(path, {"dropout": 0.4, "label_noise": 0.2}))
    base, found = (prepare(name, config.datasets[name]) for name in ("d", "e"))
    pd.testing.assert_frame_equal(found.truth, base.truth)
    assert list(found.data.obs_names) == list(base.data.obs_names)
    before, after = base.data["rna"].X.toarray(), found.data["rna"].X.toarray()
    assert (after <= before).all() and ((after == before) | (after == 0)).all()
    within((before > 0).sum() - (after > 0).sum(), (before > 0).sum(), 0.4)
    # what methods see of QC is of the counts that are left
    np.testing.assert_allclose(found.data.obs["total_counts"], after.sum(1))
    np.testing.assert_allclose(found.data.obs["n_genes"], (after > 0).sum(1))
    assert found.facts["derived"]["counts"]["rna"] == [before.sum(), after.sum()]
    assert "derived" not in base.facts
    # so is the QC figure's table
    shown, total = found.cells, base.cells["total_counts"]
    assert shown["kept"].all() and sorted(shown["total_counts"]) == sorted(after.sum(1))
    assert (shown["total_counts"] <= total).all() and (shown["total_counts"] < total).any()
    again = prepare("e", config.datasets["e"])
    np.testing.assert_array_equal(again.data["rna"].X.toarray(), after)


def test_prepared_cells_of_a_titrated_type(derived, h5ad, make_adata):
    path = h5ad(data=make_adata(n_cells=240))
    config = load(derived(path, {"titrate": {"type": "NK cell", "share": 0.1}}))
    base, found = (prepare(name, config.datasets[name]) for name in ("d", "e"))
    left = found.truth["cell_type"].value_counts()
    assert left.to_dict() == {"T cell": 60, "B cell": 60, "Monocyte": 60, "NK cell": 20}
    assert found.facts["derived"]["cells_of_type"] == [60, 20]
    assert (len(found.cells), found.cells["kept"].sum()) == (240, 200)
    kept = base.truth[base.truth["original_id"].isin(found.truth["original_id"])]
    columns = ["original_id", "cell_type"]
    pd.testing.assert_frame_equal(
        kept[columns].sort_values("original_id", ignore_index=True),
        found.truth[columns].sort_values("original_id", ignore_index=True),
    )


def test_the_robustness_configuration_holds_and_leaves_cells_of_every_step(data_file):
    config = load_file(CONFIG / "robustness.yaml")
    base = config.datasets["kang_donors"]
    changes = {n: d.derive for n, d in config.datasets.items() if d.derive is not None}
    assert {c.base for c in changes.values()} == {"kang_donors"}
    for key, points in {
        "dropout": [0.3, 0.6, 0.9], "depth": [0.25, 0.125, 0.0625],
        "label_noise": [0.2, 0.4, 0.6], "label_missing": [0.5, 0.9, 0.98],
    }.items():  # fmt: skip
        default = Derive.model_fields[key].default
        assert [v for c in changes.values() if (v := getattr(c, key)) != default] == points
    cells = plan.expected(config)
    assert {c.run.dataset for c in cells} == set(config.datasets)
    noisy = {(c.run.method, c.task) for c in cells if c.run.dataset == "kang_donors__noise02"}
    labelled = ("more", "scvi", "more_sup", "scanvi", "logreg", "celltypist", "forest")
    controls = ("pca", "random", "label_oracle", "labels_shuffled", "metric_gamer")
    assert noisy == {(name, "annotation") for name in (*labelled, *controls)}
    for name in changes:  # every table has its controls
        assert {c.run.method for c in cells if c.run.dataset == name} >= set(controls)
    data_file("kang2018_pbmc_ctrl_8donors.h5ad")
    check(config)
    left = {}
    for name, one in changes.items():
        if one.titrate is not None:
            types = prepare(name, config.datasets[name]).truth["cell_type"]
            n = int((types == one.titrate.type).sum())
            left.setdefault(one.titrate.share, []).append((n, len(types)))
    assert {share: [n for n, _ in found] for share, found in left.items()} == {
        0.05: [318], 0.01: [61], 0.002: [12] * 3, 0.0005: [3] * 3,
    }  # fmt: skip
    for share, ((n, total), *_) in left.items():
        assert n / total == pytest.approx(share, abs=0.5 / total)
    assert base.derive is None


# --- the workflow's script -----------------------------------------------------------------


def test_the_script_of_the_split_writes_changed_labels(derived, h5ad, tmp_path, repository):
    from morebench.io.prepared import write_prepared, write_truth

    config = load(derived(h5ad(), {"label_noise": 0.3, "label_missing": 0.4}))
    found = prepare("e", config.datasets["e"])
    prepared, truth, output = (tmp_path / n for n in ("p.h5mu", "t.parquet", "s.parquet"))
    write_truth(truth, found.truth)
    write_prepared(prepared, found.data, found.truth)
    derive = config.datasets["e"].derive
    done = subprocess.run(
        [
            sys.executable, "-P", repository / "workflow_scripts/split.py", prepared, truth, output,
            "--split", "partial", "--partial", "{}",
            "--derive", json.dumps(derive.model_dump(mode="json")),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    batch = found.data.obs["batch"].astype(str).to_numpy()
    table, facts = make_split("partial", None, found.truth, batch, Partial(), derive)
    written = tmp_path / "own.parquet"
    write_split(written, table, facts)
    assert written.with_suffix(".json").read_text() == output.with_suffix(".json").read_text()
    sidecar = json.loads(output.with_suffix(".json").read_text())
    assert sidecar["n_label_missing"] > 0 and sidecar["n_label_noise"] > 0
