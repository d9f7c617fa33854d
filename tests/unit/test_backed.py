"""Counts in a file: whatever rows and columns are chosen, blocks are those of the whole matrix."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morebench.data.features import make_input
from morebench.data.peek import peek
from morebench.data.prepare import prepare
from morebench.data.sources import load
from morebench.data.spec import DatasetConfig, Features
from morebench.errors import DataError
from morebench.io.backed import (
    BackedCounts,
    backed,
    blocks_of,
    found_in,
    in_memory,
    put_counts,
    without_counts,
)
from morebench.io.hdf5 import check_hdf5
from morebench.io.inputs import cut_input, read_cells, read_input, write_input
from morebench.io.prepared import open_prepared, read_prepared, write_prepared

N, G = 137, 23
GENES = [f"g{i}" for i in range(G)]


def counts_of(seed=0):
    return sp.csr_matrix(np.random.default_rng(seed).poisson(0.7, (N, G)).astype(np.float32))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The same counts as csr, as a dense layer, and by columns."""
    path = tmp_path_factory.mktemp("counts") / "c.h5ad"
    counts = counts_of()
    layers = {"dense": counts.toarray(), "by_columns": counts.tocsc()}
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.array(["a", "b", "c"])[np.arange(N) % 3]),
            "type": pd.Categorical(np.array(["t", "u"])[np.arange(N) * 2 // N]),
        },
        index=[f"cell{i}" for i in range(N)],
    )
    anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES), layers=layers).write(path)
    return path


@pytest.mark.parametrize("key", ["X", "layers/dense"])
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_blocks_are_those_of_the_matrix(file, key, data):
    """Any rows in any order, any genes, any size of a block."""
    rows = np.array(data.draw(st.permutations(range(N))))[: data.draw(st.integers(1, N))]
    if data.draw(st.booleans()):
        rows = np.sort(rows)
    genes = np.array(sorted(data.draw(st.sets(st.integers(0, G - 1), min_size=1))))
    size = data.draw(st.integers(1, N + 5))
    chosen = backed(file, key, "here")[rows][:, genes]
    expected = counts_of()[rows][:, genes]
    assert chosen.shape == expected.shape
    blocks = list(blocks_of(chosen, size))
    assert [b.shape[0] for b in blocks] == [
        min(size, len(rows) - start) for start in range(0, len(rows), size)
    ]
    np.testing.assert_array_equal(sp.vstack(blocks).toarray(), expected.toarray())
    np.testing.assert_array_equal(found_in(chosen), (expected > 0).sum(0).A1)


def test_masks_choose_too_and_nothing_is_read_by_choosing(file):
    counts = counts_of()
    rows, genes = np.arange(N) % 4 == 1, np.arange(G) % 2 == 0
    chosen = backed(file, "X", "here")[rows][:, genes]
    assert isinstance(chosen, BackedCounts)
    np.testing.assert_array_equal(in_memory(chosen).toarray(), counts[rows][:, genes].toarray())


def test_counts_by_columns_are_refused(file):
    with pytest.raises(DataError, match=r"by_columns is stored by columns \(csc\).*valid.*csr"):
        backed(file, "layers/by_columns", "datasets.d")


def test_counts_by_columns_are_refused_before_a_run(file):
    told = {"path": str(file), "layer": "by_columns", "batch": "batch", "shards": {"number": 2}}
    with pytest.raises(DataError, match=r"datasets.d: .*stored by columns \(csc\)"):
        peek("d", DatasetConfig.model_validate(told))
    obs, n_genes = peek("d", DatasetConfig.model_validate({**told, "layer": "dense"}))
    assert (len(obs), n_genes) == (N, G)


def test_a_value_that_is_no_count_is_found_in_its_rows(tmp_path):
    values = counts_of().toarray()
    values[130, 2] = 0.5
    with h5py.File(tmp_path / "x.h5", "w") as out:
        out["X"] = values
    with pytest.raises(DataError, match="here, rows 100 to 136: 1 non-integer values.* 0.5"):
        list(backed(tmp_path / "x.h5", "X", "here").blocks(50))


def test_written_blocks_are_a_csr_matrix_of_anndata(file, tmp_path):
    order = np.random.default_rng(1).permutation(N)
    target = tmp_path / "t.h5ad"
    anndata.AnnData(without_counts((N, G))).write(target)
    chosen = backed(file, "X", "here")[order]
    put_counts(target, "X", chosen)
    found = anndata.read_h5ad(target).X
    assert found.format == "csr" and found.has_sorted_indices and found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), counts_of()[order].toarray())
    check_hdf5(target, "here")
    assert target.stat().st_size < 2**20  # the room that was too much is given back
    with h5py.File(target) as written:
        assert written["X/indptr"].dtype == np.int64  # room for more than 2^31 values


@pytest.mark.parametrize("size", [7, 50, 1000])
def test_a_dataset_in_blocks_is_the_dataset(file, tmp_path, size, monkeypatch):
    """prepare and make_input: the same cells, order, genes, facts, PCA, whichever way they went."""
    monkeypatch.setattr("morebench.data.features.BLOCK", size)
    monkeypatch.setattr(BackedCounts.blocks, "__defaults__", (size,))
    monkeypatch.setattr(blocks_of, "__defaults__", (size,))
    told = {
        "path": str(file),
        "batch": "batch",
        "labels": {"column": "type", "source": "expert"},
        "qc": {"min_genes": 9, "min_cells": 57, "mads": {"total_counts": 2.5}},
        "tasks": [],
    }
    whole = prepare("d", DatasetConfig.model_validate(told))
    parts = prepare("d", DatasetConfig.model_validate({**told, "shards": {"number": 3}}))
    assert not whole.counts and list(parts.counts) == ["rna"]
    assert 0 < whole.facts["cells"] < N and whole.facts["features"]["rna"] < G
    assert parts.facts == whole.facts
    for name in ("truth", "cells", "genes"):
        pd.testing.assert_frame_equal(getattr(parts, name), getattr(whole, name), rtol=1e-12)

    read = {}
    for name, made in (("whole", whole), ("parts", parts)):
        path = tmp_path / f"{name}.h5mu"
        write_prepared(path, made.data, made.truth, made.counts)
        read[name] = read_prepared(path)
        opened, counts = open_prepared(path)
        pd.testing.assert_frame_equal(opened.obs, read[name].obs, check_dtype=False)
        np.testing.assert_array_equal(
            in_memory(counts["rna"]).toarray(), read[name]["rna"].X.toarray()
        )
    pd.testing.assert_frame_equal(read["whole"].obs, read["parts"].obs)
    pd.testing.assert_frame_equal(read["whole"]["rna"].var, read["parts"]["rna"].var)
    np.testing.assert_array_equal(
        read["whole"]["rna"].X.toarray(), read["parts"]["rna"].X.toarray()
    )

    visible = np.arange(read["whole"].n_obs) % 5 != 0
    features = Features(n_top=12, n_pcs=4, min_cells=2)
    expected = make_input(read["whole"], visible, features, "here")
    opened, counts = open_prepared(tmp_path / "parts.h5mu")
    made = make_input(opened, visible, features, "here", counts)
    assert made.facts == expected.facts
    pd.testing.assert_frame_equal(made.genes, expected.genes)
    write_input(tmp_path / "input.h5ad", made.data, made.counts)
    found = read_input(tmp_path / "input.h5ad")
    np.testing.assert_array_equal(found.counts_ng.toarray(), expected.data.X.toarray())
    np.testing.assert_allclose(found.pca_np, expected.data.obsm["X_pca"], rtol=1e-5, atol=1e-6)
    cells = read_cells(tmp_path / "input.h5ad")
    assert list(cells.cell_ids) == list(found.cell_ids) and list(cells.genes) == list(found.genes)
    np.testing.assert_array_equal(cells.pca_np, found.pca_np)
    assert list(cells.batch) == list(found.batch)
    cut_input(tmp_path / "input.h5ad", slice(5, 40), tmp_path / "cut.h5ad")
    cut = read_input(tmp_path / "cut.h5ad").counts_ng
    np.testing.assert_array_equal(cut.toarray(), found.counts_ng[5:40].toarray())


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_summed_features_are_the_product(file, data):
    """Features of one name are summed before or after others are chosen, and twice."""
    names = np.array(data.draw(st.lists(st.integers(0, 5), min_size=G, max_size=G)))
    onto = sp.csr_matrix(names[:, None] == np.unique(names), dtype=np.float32)
    again = sp.csr_matrix(np.arange(onto.shape[1])[:, None] // 2 == np.arange(3), dtype=np.float32)
    rows = np.array(data.draw(st.permutations(range(N))))[:50]
    some = np.array(sorted(data.draw(st.sets(st.integers(0, onto.shape[1] - 1), min_size=1))))
    counts, summed = counts_of()[rows], (backed(file, "X", "here") @ onto)[rows]
    for made, expected in (
        (summed, counts @ onto),
        (summed[:, some], (counts @ onto)[:, some]),
        (summed[:, some] @ again[some], (counts @ onto)[:, some] @ again[some]),
    ):
        assert made.shape == expected.shape
        np.testing.assert_array_equal(in_memory(made).toarray(), expected.toarray())


@pytest.fixture
def downloaded(file, tmp_path):
    """The counts as CELLxGENE has them: in raw, features by id, symbols in a column, two alike."""
    data = anndata.read_h5ad(file)
    data.layers.clear()
    data.var["feature_name"] = [f"S{i % 20}" for i in range(G)]
    data.raw = data.copy()
    data.X = data.X * 0.5
    path = tmp_path / "01234567-89ab-cdef-0123-456789abcdef.h5ad"
    data.write(path)
    return path


@pytest.mark.parametrize("source", ["cellxgene", "url", "path"])
def test_a_file_of_the_web_stays_in_it_too(downloaded, source):
    read = {"files": "*.h5ad", "format": "h5ad", "var_names": "feature_name", "sample": "([^.]+)"}
    told = {
        "batch": "batch",
        "labels": {"column": "type", "source": "expert"},
        "qc": {"min_genes": 7, "min_cells": 57},
        "tasks": [],
    }
    if source == "cellxgene":
        told["cellxgene"] = {"dataset": downloaded.stem}
    elif source == "url":
        told |= {"url": [f"https://host/{downloaded.name}"], "read": [read], "qc": {}}
    else:
        told |= {"path": str(downloaded), "read": [read], "qc": {}}
    if source != "cellxgene":  # whose rule it is that raw has the counts
        data = anndata.read_h5ad(downloaded)
        data.X = data.raw.X
        data.write(downloaded)
    made = {}
    for name, shards in (("whole", None), ("parts", {"number": 3})):
        dataset = DatasetConfig.model_validate({**told, "shards": shards})
        made[name] = prepare("d", dataset, [downloaded])
    whole, parts = made["whole"], made["parts"]
    assert not whole.counts and list(parts.counts) == ["rna"]
    assert parts.facts == whole.facts and 0 < whole.facts["features"]["rna"] <= 20
    pd.testing.assert_frame_equal(parts.data.obs, whole.data.obs)
    pd.testing.assert_frame_equal(parts.data["rna"].var, whole.data["rna"].var)
    np.testing.assert_array_equal(
        in_memory(parts.counts["rna"]).toarray(), whole.data["rna"].X.toarray()
    )


@pytest.mark.parametrize("why", ["gzip", "two files", "rounded", "by columns"])
def test_what_cannot_stay_in_its_file_is_read_or_refused(downloaded, tmp_path, why):
    read = {"files": "*", "format": "h5ad"}
    files = [downloaded]
    if why == "gzip":
        files = [tmp_path / "packed.h5ad.gz"]
        files[0].write_bytes(gzip.compress(downloaded.read_bytes()))
    elif why == "two files":
        files.append(tmp_path / "other.h5ad")
        files[1].write_bytes(downloaded.read_bytes())
    elif why == "by columns":
        data = anndata.read_h5ad(downloaded)
        data.X = data.X.tocsc()
        data.write(downloaded)
    told = {
        "url": [f"https://host/{f.name}" for f in files],
        "layer": None,
        "shards": {"number": 2},
    }
    dataset = DatasetConfig.model_validate(
        {**told, "read": [{**read, "round": why != "by columns"}]}
    )
    if why == "by columns":
        with pytest.raises(DataError, match="stored by columns"):
            load("d", dataset, files)
        return
    counts = load("d", dataset, files).modalities["rna"].counts_mg
    assert sp.issparse(counts) and counts.shape == (N * len(files), G)


@pytest.mark.parametrize(
    ("key", "by"),
    [("X", "rows"), ("X", "columns"), ("X", "huge"), ("layers/dense", "rows"),
     ("layers/dense", "columns")],
)  # fmt: skip
def test_counts_of_another_shape_than_their_tables_are_refused(downloaded, key, by):
    """Also a shape whose places alone would not fit into memory."""
    with h5py.File(downloaded, "r+") as file:
        del file["raw"]
        if key in file:
            del file[key]
        n, g = {"rows": (N + 1, G), "columns": (N, G + 1), "huge": (N, 3 * 10**9)}[by]
        shape = (n, g)
        if key == "X":
            write_elem(file, key, sp.csr_matrix((n, min(g, 10**6)), dtype=np.float32))
            file[key].attrs["shape"] = shape
        else:
            write_elem(file, key, np.zeros(shape, dtype=np.float32))
    layer = None if key == "X" else "dense"
    told = {"path": str(downloaded), "layer": layer, "shards": {"number": 2}}
    words = f"{key} has the shape \\({n}, {g}\\), obs and var say \\({N}, {G}\\)"
    for read in (None, [{"files": "*.h5ad", "format": "h5ad"}]):
        dataset = DatasetConfig.model_validate({**told, "read": read or []})
        with pytest.raises(DataError, match=words):
            load("d", dataset)
