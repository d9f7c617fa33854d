"""A method's output and status: what breaks the contract is refused by writer and reader."""

import dataclasses
import json
import os

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.seal import names, seal

from morebench.contract import MethodOutput
from morebench.errors import ContractError, Damaged
from morebench.io.outputs import (
    MODEL_FILE,
    OUTPUT_FILE,
    STATUS_FILE,
    Status,
    read_output,
    read_status,
    write_output,
    write_status,
)
from morebench.io.prepared import opaque_ids
from morebench.registry import OUTPUT_KINDS, STATES

N, G, D, K = 30, 12, 4, 3
IDS = opaque_ids(N)
GENES = np.array([f"g{j}" for j in range(G)], dtype=object)


def whole(**changes):
    """A valid output of every kind."""
    rng = np.random.default_rng(0)
    half = sp.random(N, N, 0.2, random_state=1, format="csr")
    share = rng.dirichlet(np.ones(K), N)
    classes = np.array(["T", "B", "unknown"], dtype=object)
    given = {
        "embedding": rng.normal(size=(N, D)).astype(np.float32),
        "graph": (half + half.T).tocsr(),
        "labels": classes[share.argmax(1)],
        "probabilities": pd.DataFrame(share, columns=classes),
        "doublet_score": rng.random(N),
        "novelty": rng.normal(size=N),
        "expression": rng.random((N, G)),
        "model": {"weight": rng.normal(size=(2, 3)).astype(np.float32), "steps": np.array(4)},
        "parameters_trained": 7,
        "parameters_frozen": 11,
        "notes": {"epochs": 3, "why": "a fallback"},
    }
    return MethodOutput(**{**given, **changes})


def only(kind, value):
    return MethodOutput(**{kind: value})


def write(folder, output, declared=OUTPUT_KINDS, ids=IDS):
    write_output(folder, output, ids, GENES, declared)


def read(folder, declared=OUTPUT_KINDS, ids=IDS):
    return read_output(folder, ids, G, declared)


def refused(words, call, *args, **kwargs):
    with pytest.raises(ContractError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert OUTPUT_FILE in text
    assert "\n" not in text
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def test_what_is_written_is_read(tmp_path):
    output = whole()
    write(tmp_path, output)
    found = read(tmp_path)
    np.testing.assert_allclose(found.embedding, whole().embedding)
    np.testing.assert_allclose(found.graph.toarray(), whole().graph.toarray(), rtol=1e-6)
    np.testing.assert_allclose(found.expression, whole().expression, rtol=1e-6)
    for name in ("doublet_score", "novelty"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole(), name), rtol=1e-6)
    np.testing.assert_allclose(found.probabilities, whole().probabilities, rtol=1e-6)
    assert list(found.probabilities.columns) == ["T", "B", "unknown"]
    assert found.labels.tolist() == whole().labels.tolist()
    assert found.notes == {"epochs": 3, "why": "a fallback"}
    assert (found.parameters_trained, found.parameters_frozen) == (7, 11)
    assert isinstance(found.graph, sp.csr_matrix)
    for kind in ("embedding", "expression", "doublet_score", "novelty"):
        assert getattr(found, kind).dtype == np.float32
    assert set(found.model) == {"weight", "steps"} and found.model["steps"] == 4
    np.testing.assert_array_equal(found.model["weight"], whole().model["weight"])
    assert names(tmp_path) == [MODEL_FILE, OUTPUT_FILE]


def test_a_model_that_cannot_be_kept_or_read_is_refused(tmp_path):
    for bad in (np.array([np.nan]), [1.0]):
        with pytest.raises(ContractError, match="model: w is no array of finite numbers"):
            write(tmp_path, only("model", {"w": bad}), ["model"])
    write(tmp_path, only("model", {"w": np.ones(3)}), ["model"])
    (tmp_path / MODEL_FILE).write_bytes(b"not safetensors")
    seal(tmp_path / MODEL_FILE)
    with pytest.raises(ContractError, match="cannot be read as safetensors"):
        read(tmp_path, ["model"])


@given(
    kind=st.sampled_from(["embedding", "doublet_score", "novelty", "expression"]),
    dtype=st.sampled_from(["float16", "float32", "float64", "int8", "uint16", "int64"]),
    order=st.sampled_from("CF"),
)
@settings(max_examples=30, deadline=None)
def test_numbers_of_any_width_are_kept_in_float32(tmp_path_factory, kind, dtype, order):
    shape = {"embedding": (N, D), "expression": (N, G)}.get(kind, (N,))
    value = np.random.default_rng(1).integers(0, 100, shape).astype(dtype, order=order)
    folder = tmp_path_factory.mktemp("out")
    write(folder, only(kind, value), [kind])
    found = getattr(read(folder, [kind]), kind)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, value.astype(float))


def bad_values():
    good = whole()
    nan, inf = good.embedding.copy(), good.embedding.copy()
    nan[3, 1], inf[3, 1] = np.nan, -np.inf
    negative, lopsided = good.graph.copy(), good.graph.tolil()
    negative.data[0] = -1
    lopsided[2, 5] = lopsided[5, 2] + 1
    missing = good.graph.copy()
    missing.data[0] = np.nan
    share = good.probabilities
    unsure = share.copy()
    unsure.iloc[4] *= 0.9
    below = share.copy()
    below.iloc[4] = [1.2, -0.2, 0.0]
    holed = share.copy()
    holed.iloc[4, 0] = np.nan
    twice = share.set_axis(["T", "T", "B"], axis=1)
    alike = share.set_axis(["1", 1, "B"], axis=1)
    some = good.labels.copy()
    some[3] = None
    other = good.labels.copy()
    other[3] = 1.5
    score = good.doublet_score.copy()
    score[0] = np.nan
    wide = f"expected {N} x any"
    return {
        "embedding": {
            "transposed": (good.embedding.T, [f"({D}, {N})", wide]),
            "a cell short": (good.embedding[1:], [f"({N - 1}, {D})", wide]),
            "of one dimension": (good.embedding[:, 0], [f"({N},)", wide]),
            "without a dimension": (good.embedding[:, :0], ["no dimension"]),
            "NaN": (nan, ["not finite"]),
            "infinite": (inf, ["not finite"]),
            "too large": (good.embedding.astype(float) * 1e300, ["not finite"]),
            "text": (good.embedding.astype(str), ["type <U", "numbers"]),
            "objects": (good.embedding.astype(object), ["type object", "numbers"]),
            "complex": (good.embedding.astype(complex), ["type complex", "numbers"]),
            "true and false": (good.embedding > 0, ["type bool", "numbers"]),
            "a table": (pd.DataFrame(good.embedding), ["DataFrame", "numpy array"]),
            "a list": (good.embedding.tolist(), ["list", "numpy array"]),
            "sparse": (sp.csr_matrix(good.embedding), ["csr_matrix", "numpy array"]),
        },
        "doublet_score": {
            "two-dimensional": (good.doublet_score[:, None], [f"({N}, 1)"]),
            "a cell short": (good.doublet_score[1:], [f"({N - 1},)"]),
            "NaN": (score, ["not finite"]),
            "text": (good.doublet_score.astype(str), ["numbers"]),
        },
        "expression": {
            "transposed": (good.expression.T, [f"({G}, {N})", f"expected {N} x {G}"]),
            "a gene short": (good.expression[:, 1:], [f"({N}, {G - 1})"]),
            "NaN": (good.expression * np.nan, ["not finite"]),
        },
        "graph": {
            "dense": (good.graph.toarray(), ["no sparse"]),
            "of other cells": (good.graph[1:, 1:], [f"no sparse {N} x {N}"]),
            "not symmetric": (sp.csr_matrix(lopsided), ["not symmetric"]),
            "negative": (negative, ["negative or non-finite"]),
            "NaN": (missing, ["negative or non-finite"]),
            "complex": (good.graph.astype(complex), ["type complex"]),
        },
        "labels": {
            "a cell short": (good.labels[1:], [f"{N} strings"]),
            "with a missing one": (some, [f"{N} strings"]),
            "with a number": (other, [f"{N} strings"]),
            "codes": (np.arange(N), [f"{N} strings"]),
            "two-dimensional": (good.labels[:, None], [f"{N} strings"]),
        },
        "probabilities": {
            "an array": (share.to_numpy(), ["DataFrame"]),
            "transposed": (share.T, [f"({K}, {N})"]),
            "not summing to 1": (unsure, ["sum to 1"]),
            "negative": (below, ["sum to 1"]),
            "NaN": (holed, ["not finite"]),
            "a class twice": (twice, ["one column a class"]),
            "classes that read alike": (alike, ["one column a class"]),
            "without a class": (share.iloc[:, :0], ["no class"]),
            "text": (share.astype(str), ["numbers"]),
        },
    }


BAD = [(kind, name) for kind, cases in bad_values().items() for name in cases]


@pytest.mark.parametrize(("kind", "name"), BAD)
def test_the_writer_refuses(kind, name, tmp_path):
    value, words = bad_values()[kind][name]
    refused([kind, *words], write, tmp_path, only(kind, value), [kind])
    assert os.listdir(tmp_path) == []


def test_the_writer_refuses_what_is_missing_or_undeclared(tmp_path):
    for kind in OUTPUT_KINDS:
        refused([kind], write, tmp_path, whole(**{kind: None}))
        others = [k for k in OUTPUT_KINDS if k != kind]
        refused([f"'{kind}'"], write, tmp_path, whole(), others)
    refused(["returned []", "embedding"], write, tmp_path, MethodOutput(), ["embedding"])
    assert os.listdir(tmp_path) == []


def test_the_writer_refuses_rows_of_other_cells(tmp_path):
    share = whole().probabilities
    write(tmp_path, only("probabilities", share.set_axis(IDS)), ["probabilities"])
    shuffled = np.random.default_rng(0).permutation(IDS)
    for index in (shuffled, [f"x{i}" for i in range(N)], np.arange(N)[::-1]):
        output = only("probabilities", share.set_axis(index))
        refused(["probabilities", "in order"], write, tmp_path, output, ["probabilities"])


def test_a_failed_write_leaves_the_old_output(tmp_path):
    write(tmp_path, whole())
    before = (tmp_path / OUTPUT_FILE).read_bytes()
    with pytest.raises(TypeError):
        write(tmp_path, whole(notes={"an array": np.ones(2)}))
    assert (tmp_path / OUTPUT_FILE).read_bytes() == before
    assert names(tmp_path) == [MODEL_FILE, OUTPUT_FILE]


def test_a_graph_of_any_sparse_form_is_kept(tmp_path):
    for form in ("csc", "coo", "lil", "dok", "bsr"):
        graph = whole().graph.asformat(form)
        write(tmp_path, only("graph", graph), ["graph"])
        found = read(tmp_path, ["graph"]).graph
        np.testing.assert_allclose(found.toarray(), whole().graph.toarray(), rtol=1e-6)
    links = sp.csr_array(whole().graph.toarray() > 0)
    write(tmp_path, only("graph", links), ["graph"])
    np.testing.assert_array_equal(read(tmp_path, ["graph"]).graph.toarray(), links.toarray())


# --- the reader, on files that no writer of ours made ------------------------------------


@pytest.fixture
def tampered(tmp_path):
    """Return a function that changes a valid output's file behind the writer's back."""

    def change(edit):
        write(tmp_path, whole())
        data = anndata.read_h5ad(tmp_path / OUTPUT_FILE)
        data = edit(data) or data
        data.write_h5ad(tmp_path / OUTPUT_FILE)
        seal(tmp_path / OUTPUT_FILE)
        return tmp_path

    return change


def test_the_reader_refuses_another_order_of_cells(tampered):
    order = np.random.default_rng(0).permutation(N)
    folder = tampered(lambda data: data[order].copy())
    first = int(np.flatnonzero(order != np.arange(N))[0])
    words = ["another order", f"row {first} is {IDS[order[first]]}", f"expected {IDS[first]}"]
    refused(words, read, folder)


@given(st.permutations(list(range(N))))
@settings(max_examples=20, deadline=None)
def test_no_permutation_passes(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("out")
    embedding = whole().embedding
    write(folder, only("embedding", embedding[order]), ["embedding"], IDS[order])
    if order == list(range(N)):
        np.testing.assert_allclose(read(folder, ["embedding"]).embedding, embedding)
    else:
        refused(["another order"], read, folder, ["embedding"])


def test_the_reader_refuses_other_cells(tampered):
    refused(["holds 29 cells, the dataset has 30"], read, tampered(lambda data: data[1:].copy()))

    def rename(data):
        data.obs_names = [f"c{i + 100:06d}" for i in range(N)]

    refused(["not the dataset's", "c000100"], read, tampered(rename))


def test_the_reader_refuses_what_is_missing_or_undeclared(tampered):
    folder = tampered(lambda data: None)
    for kind in OUTPUT_KINDS:
        refused([f"'{kind}'"], read, folder, [k for k in OUTPUT_KINDS if k != kind])
    for kind in ("embedding", "expression", "probabilities"):
        folder = tampered(lambda data, kind=kind: data.obsm.pop(kind) is None)
        refused([kind], read, folder)
    for kind in ("labels", "doublet_score", "novelty"):
        folder = tampered(lambda data, kind=kind: data.obs.pop(kind) is None)
        refused([kind], read, folder)
    refused(["graph"], read, tampered(lambda data: data.obsp.pop("graph") is None))


@pytest.mark.parametrize(
    ("place", "name"),
    [("obs", "cell_type"), ("obsm", "X_umap"), ("obsp", "distances"), ("uns", "x")],
)
def test_the_reader_refuses_what_no_spec_can_declare(place, name, tampered):
    value = {
        "obs": np.arange(N), "obsm": np.ones((N, 2)), "obsp": sp.eye_array(N, format="csr"),
        "uns": 3,
    }[place]  # fmt: skip
    refused([place, name], read, tampered(lambda d: getattr(d, place).__setitem__(name, value)))


def test_the_reader_refuses_values_that_the_writer_refuses(tampered):
    def put(place, name, value):
        return lambda data: getattr(data, place).__setitem__(name, value)

    embedding, share = whole().embedding, whole().probabilities.to_numpy()
    holed = embedding.copy()
    holed[0, 0] = np.nan
    graph = whole().graph.copy()
    graph.data[0] = 9
    labels = pd.Categorical(["T", *[None] * (N - 1)])
    for place, name, value, word in (
        ("obsm", "embedding", holed, "not finite"),
        ("obsm", "embedding", embedding > 0, "bool"),
        ("obsm", "embedding", sp.csr_matrix(embedding), "csr_matrix"),
        ("obsm", "embedding", embedding[:, :0], "no dimension"),
        ("obsm", "expression", np.ones((N, G + 1)), f"expected {N} x {G}"),
        ("obsm", "probabilities", share * 0.5, "sum to 1"),
        ("obsm", "probabilities", share[:, :2], "3 classes"),
        ("obsp", "graph", graph, "not symmetric"),
        ("obsp", "graph", graph.toarray(), "no sparse"),
        ("obs", "labels", labels, f"{N} strings"),
        ("obs", "labels", np.arange(N), f"{N} strings"),
        ("obs", "doublet_score", np.full(N, np.nan), "not finite"),
        ("obs", "novelty", np.full(N, np.inf), "not finite"),
        ("obs", "doublet_score", [f"s{i}" for i in range(N)], "numbers"),
    ):
        refused([word], read, tampered(put(place, name, value)))
    for key in ("notes", "parameters"):
        refused([key], read, tampered(lambda data, key=key: data.uns.pop(key) is None))


def test_the_reader_refuses_a_damaged_file(tmp_path):
    write(tmp_path, whole())
    os.truncate(tmp_path / OUTPUT_FILE, 2000)
    with pytest.raises(Damaged, match=r"output\.h5ad: its SHA-256 is .* says .*delete it and run"):
        read(tmp_path)
    seal(tmp_path / OUTPUT_FILE)
    refused(["cannot be read as h5ad"], read, tmp_path)
    (tmp_path / OUTPUT_FILE).write_text("no\nHDF5")
    seal(tmp_path / OUTPUT_FILE)
    refused(["cannot be read as h5ad"], read, tmp_path)


# --- status -------------------------------------------------------------------------------


def status_of(**changes):
    given = {
        "dataset": "d", "split": "lobo-b1", "method": "pca", "seed": 3, "state": "failed",
        "reason": "ValueError: x", "wall_s": 1.5, "cpu_s": 2.25, "peak_rss_mb": 100.5,
        "peak_gpu_mb": 0.5, "parameters_trained": 5, "parameters_frozen": 6, "threads": 2,
        "attempt": 2, "params": {"n": None, "depth": [1.0, 2.0]}, "notes": {"a": "b"},
        "versions": {"python": "3.11.7"}, "hardware": "a machine", "log": "logs/x.log",
    }  # fmt: skip
    return Status(**{**given, **changes})


def test_a_status_comes_back_as_it_was(tmp_path):
    assert {f.name for f in dataclasses.fields(Status)} == set(dataclasses.asdict(status_of()))
    for state in STATES:
        if state == "ok":
            write(tmp_path, whole())
        write_status(tmp_path, status_of(state=state))
        assert read_status(tmp_path) == status_of(state=state)


@given(
    text=st.text(max_size=40),
    seconds=st.floats(0, 1e6),
    notes=st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_any_reason_and_note_comes_back(tmp_path_factory, text, seconds, notes):
    folder = tmp_path_factory.mktemp("status")
    given_ = status_of(reason=text, wall_s=seconds, notes=notes)
    write_status(folder, given_)
    assert read_status(folder) == given_


def test_an_unknown_state_is_neither_written_nor_read(tmp_path):
    with pytest.raises(ContractError, match="'crashed', expected one of .*'timeout'"):
        write_status(tmp_path, status_of(state="crashed"))
    assert os.listdir(tmp_path) == []
    write_status(tmp_path, status_of())
    content = json.loads((tmp_path / STATUS_FILE).read_text())
    (tmp_path / STATUS_FILE).write_text(json.dumps({**content, "state": "crashed"}))
    seal(tmp_path / STATUS_FILE)
    with pytest.raises(ContractError, match="status.json: state 'crashed', expected one of"):
        read_status(tmp_path)


def test_a_status_with_other_keys_is_refused(tmp_path):
    write_status(tmp_path, status_of())
    content = json.loads((tmp_path / STATUS_FILE).read_text())
    (tmp_path / STATUS_FILE).write_text(json.dumps({**content, "truth": 1}))
    seal(tmp_path / STATUS_FILE)
    with pytest.raises(ContractError, match=r"\['truth'\] differ"):
        read_status(tmp_path)
    del content["seed"]
    (tmp_path / STATUS_FILE).write_text(json.dumps(content))
    seal(tmp_path / STATUS_FILE)
    with pytest.raises(ContractError, match=r"\['seed'\] differ"):
        read_status(tmp_path)


def test_ok_without_an_output_is_refused(tmp_path):
    write_status(tmp_path, status_of(state="ok"))
    with pytest.raises(Damaged, match="state is ok but output.h5ad is missing"):
        read_status(tmp_path)
