"""Local files: their hashes stand in the facts; another one than the pinned one is refused."""

import hashlib
import json
import shutil

import h5py
import numpy as np
import pytest
from tests.geo import tar
from tests.refusals import refused
from tests.unit.test_assemble import ONE, triplet

from morebench.config import load
from morebench.data import local
from morebench.data.peek import peek
from morebench.data.prepare import prepare
from morebench.errors import ConfigError


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dataset(**told):
    return load({"datasets": {"d": {"batch": "batch", **told}}, "methods": {}}).datasets["d"]


def entry(path, name=None):
    return {"name": name or path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


@pytest.fixture
def file(tmp_path, make_adata):
    """A small h5ad, and its hash."""
    path = tmp_path / "mine.h5ad"
    make_adata().write_h5ad(path)
    return path, sha256(path)


def flip(path):
    """Turn round one bit of a file, which makes a count of 2 one of 3: as valid as before."""
    before = path.read_bytes()
    with h5py.File(path, "r+") as file:
        values = file["X/data"][:]
        values.view(np.uint32)[np.flatnonzero(values == 2)[0]] ^= 1 << 22
        file["X/data"][:] = values
    changed = [a ^ b for a, b in zip(before, path.read_bytes(), strict=True) if a != b]
    assert len(changed) == 1 and changed[0].bit_count() == 1


@pytest.mark.parametrize("shards", [None, {"number": 2}])
def test_another_file_than_the_pinned_one_is_refused(file, shards):
    path, digest = file
    told = dataset(path=str(path), shards=shards, sha256={"mine.h5ad": digest})
    found = prepare("d", told)
    assert found.facts["sources"] == [entry(path)] and found.facts["cells"] == 60
    flip(path)
    words = ("datasets.d.sha256", str(path), sha256(path), digest, "restore", "new hash")
    assert sha256(path) != digest
    refused(lambda: prepare("d", told), *words)
    unpinned = dataset(path=str(path), shards=shards)  # nothing else would tell
    assert prepare("d", unpinned).facts["sources"] == [entry(path)]


def test_without_a_pin_the_facts_say_what_was_read(file, tmp_path):
    path, digest = file
    first = prepare("d", dataset(path=str(path))).facts
    assert first["sources"] == [
        {"name": "mine.h5ad", "bytes": path.stat().st_size, "sha256": digest}
    ]
    other = tmp_path / "another machine" / "mine.h5ad"
    other.parent.mkdir()
    shutil.copy(path, other)
    assert prepare("d", dataset(path=str(other))).facts == first
    assert str(tmp_path) not in json.dumps(first)
    flip(other)
    second = prepare("d", dataset(path=str(other))).facts["sources"]
    assert second == [entry(other)] != first["sources"]


def test_every_file_of_several_has_its_hash(tmp_path, make_adata):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        genes = [f"{name}{j}" for j in range(40)]
        make_adata(genes=genes).write_h5ad(tmp_path / name / f"{name}.h5ad")
    one, two = tmp_path / "a" / "a.h5ad", tmp_path / "b" / "b.h5ad"
    parts = dataset(path={"rna": str(one), "adt": str(two)}, sha256={"b.h5ad": sha256(two)})
    assert prepare("d", parts).facts["sources"] == [entry(one), entry(two)]
    joined = tmp_path / "c.h5ad"
    make_adata(genes=[f"a{j}" for j in range(40)]).write_h5ad(joined)
    concat = [{"path": str(one)}, {"path": str(joined)}]
    told = dataset(concat=concat, sha256={"c.h5ad": "0" * 64})
    refused(lambda: prepare("d", told), str(joined), sha256(joined), "0" * 64)
    told = dataset(concat=concat, sha256={"c.h5ad": sha256(joined)})
    assert prepare("d", told).facts["sources"] == [entry(one), entry(joined)]


def test_files_of_a_folder_are_named_below_it_and_only_if_they_are_read(tmp_path):
    folder = tmp_path / "data"
    for sample in ("s1", "s2"):
        (folder / sample).mkdir(parents=True)
        for name, content in triplet("", ONE).items():
            (folder / sample / name).write_bytes(content)
    (folder / "notes.pdf").write_text("not read")
    (tmp_path / "cells.csv").write_text("id,type\na-1,T\n")
    name = "s2/matrix.mtx.gz"
    told = {
        "path": str(folder),
        "read": [{"files": "matrix.mtx.gz", "format": "mtx"}],
        "annotation": [{"path": str(tmp_path / "cells.csv"), "sample": None}],
    }
    found = local.record_sources(dataset(**told, sha256={name: sha256(folder / name)}), "d")
    kinds = ("barcodes.tsv.gz", "features.tsv.gz", "matrix.mtx.gz")
    expected = [entry(folder / s / k, f"{s}/{k}") for s in ("s1", "s2") for k in kinds]
    assert found == [*expected, entry(tmp_path / "cells.csv")]
    wrong = dataset(**told, sha256={"cells.csv": "1" * 64})
    refused(lambda: local.record_sources(wrong, "d"), "cells.csv", "1" * 64)


def test_an_archive_is_what_is_hashed_not_its_members(tmp_path):
    path = tmp_path / "all.tar"
    tar(path, triplet("s_", ONE))
    told = dataset(path=str(path), read=[{"files": "s_matrix.mtx.gz", "format": "mtx"}])
    assert local.record_sources(told, "d") == [entry(path)]


def test_bundled_data_have_no_local_files():
    told = dataset(bundled="sim_multiome", params={"n_cells": 60})
    assert local.record_sources(told, "d") == []


def test_a_pin_of_no_file_is_refused_before_a_run(file, tmp_path):
    path, digest = file
    told = dataset(path=str(path), sha256={"his.h5ad": digest})
    with pytest.raises(ConfigError, match=r"d\.sha256: no file is called 'his.h5ad'; .*mine\.h5ad"):
        peek("d", told)
    (tmp_path / "x").mkdir()
    twin = shutil.copy(path, tmp_path / "x")
    told = dataset(concat=[{"path": str(path)}, {"path": twin}], sha256={"mine.h5ad": digest})
    with pytest.raises(ConfigError, match="2 files are called 'mine.h5ad'"):
        peek("d", told)
    with pytest.raises(ConfigError, match="sha256 belongs to files: path, concat, geo"):
        dataset(bundled="pbmc68k", sha256={"mine.h5ad": digest})
    with pytest.raises(ConfigError, match="is no SHA-256; valid: 64 lower-case"):
        dataset(path=str(path), sha256={"mine.h5ad": digest[:-1]})


def test_a_file_is_hashed_in_pieces(file, monkeypatch):
    """As a dataset larger than memory needs: nothing reads it whole."""
    path, digest = file
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda _: pytest.fail("read whole"))
    found = local.record_sources(dataset(path=str(path), shards={"number": 2}), "d")
    assert found[0]["sha256"] == digest


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_pin_decides_what_is_prepared_only_of_local_files(where, file, repository):
    """What the rule hands to prepare; a pin of a download reaches the rule download instead."""
    path, digest = file
    if where == "local":
        told = dataset(path=str(path), sha256={"mine.h5ad": digest})
    else:
        url = "https://example.org/mine.h5ad"
        read = [{"files": "*.h5ad", "format": "h5ad"}]
        told = dataset(url=[url], read=read, sha256={"mine.h5ad": digest})
    content = load({"datasets": {"d": told.model_dump(mode="json")}, "methods": {}})
    space = {"CONFIG": content, "compact": lambda c: json.dumps(c, sort_keys=True, default=list)}
    code = (repository / "rules" / "common_datasets.smk").read_text()
    exec(compile(code, "common_datasets.smk", "exec"), space)
    wildcards = type("Wildcards", (), {"dataset": "d"})
    given = json.loads(space["dataset_spec"](wildcards))
    assert given.get("sha256") == ({"mine.h5ad": digest} if where == "local" else None)
    assert "splits" not in given and "title" not in given
