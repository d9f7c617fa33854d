"""Sparse matrices whose indices lead outside them: refused by name of their file, by every reader.

What a reader lets pass ends in compiled code that writes where it must not: where one of these
tests fails, the process may die.
"""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.refusals import refused
from tests.unit.test_readers import cell_ranger

from morebench.cli_more.files import read_cells
from morebench.config import load
from morebench.data.assemble import read_files
from morebench.data.peek import peek
from morebench.data.prepare import prepare
from morebench.data.sources import load as load_data
from morebench.data.spec import DatasetConfig
from morebench.errors import DataError
from morebench.io.backed import backed
from morebench.io.counts import as_counts, check_pointers, check_sparse

pytestmark = pytest.mark.faults

N, G = 30, 12


def counts_of(form):
    dense = np.random.default_rng(0).poisson(1.0, (N, G)).astype(np.float32)
    return sp.csr_matrix(dense).asformat(form)


def written(path, form="csr"):
    obs = pd.DataFrame({"batch": ["a", "b"] * (N // 2)}, index=[f"cell{i}" for i in range(N)])
    var = pd.DataFrame(index=[f"g{j}" for j in range(G)])
    anndata.AnnData(counts_of(form), obs=obs, var=var, layers={"c": counts_of(form)}).write(path)
    return path


def broken(path, group, what="indices"):
    """Let one index, or the pointers, of a matrix in a file lead outside it."""
    with h5py.File(path, "r+") as file:
        held = file[group]
        if what == "indices":
            shape = held.attrs["shape"] if "shape" in held.attrs else held["shape"][()][::-1]
            by_rows = held.attrs.get("encoding-type", "csr_matrix") == "csr_matrix"
            held["indices"][5] = shape[1 if by_rows else 0]
        elif what == "negative":
            held["indices"][5] = -1
        else:
            held["indptr"][3] = held["indptr"][-1] + 2
    return path


def by_read_files(path, kind, **more):
    told = {"path": str(path), "read": [{"files": path.name, "format": kind}], **more}
    dataset = load({"datasets": {"d": told}, "methods": {}}).datasets["d"]
    return read_files([path], dataset, "datasets.d")


INVALID = ("no valid sparse matrix",)


@pytest.mark.parametrize("what", ["indices", "negative", "indptr"])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_an_h5ad_is_refused_by_name(tmp_path, form, what):
    path = written(tmp_path / "lies.h5ad", form)
    _, parts = by_read_files(path, "h5ad")
    assert (parts["rna"].counts_mg != counts_of("csr")).nnz == 0  # it passes while it is whole
    broken(path, "X", what)
    text = refused(lambda: by_read_files(path, "h5ad"), "lies.h5ad: no valid sparse matrix")
    assert {"indices": "< ", "negative": ">= 0; found -1", "indptr": "indptr falls from"}[
        what
    ] in text
    # as the one file of a dataset, as one of several, and by the commands
    told = {"path": str(path), "batch": "batch"}
    refused(lambda: load_data("d", DatasetConfig(**told)), str(path), *INVALID)
    told = {"concat": [{"path": str(path)}], "batch": "batch"}
    refused(lambda: load_data("d", DatasetConfig(**told)), "concat[0]", str(path), *INVALID)
    refused(lambda: read_cells(path, None), str(path), *INVALID)


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_the_layer_that_is_read_is_the_one_that_is_checked(tmp_path, form):
    path = broken(written(tmp_path / "lies.h5ad", form), "layers/c")
    refused(lambda: by_read_files(path, "h5ad", layer="c"), "lies.h5ad", *INVALID)
    obs, _ = by_read_files(path, "h5ad")  # nothing of it is read
    assert len(obs) == N


@pytest.mark.parametrize(("version", "group"), [(2, "GRCh38"), (3, "matrix")])
@pytest.mark.parametrize("what", ["indices", "negative", "indptr"])
def test_a_cell_ranger_file_is_refused_by_name(tmp_path, version, group, what):
    path = cell_ranger(tmp_path / "lies.h5", version)
    assert len(by_read_files(path, "h5")[0]) == 4
    broken(path, group, what)
    refused(lambda: by_read_files(path, "h5"), "lies.h5: no valid sparse matrix")


def test_a_matrix_market_file_is_refused_by_name(tmp_path):
    head = "%%MatrixMarket matrix coordinate integer general\n3 2 2\n1 1 1\n"
    (tmp_path / "barcodes.tsv").write_text("c1\nc2\n")
    (tmp_path / "features.tsv").write_text("A\nB\nC\n")
    path = tmp_path / "matrix.mtx"
    told = {"path": str(tmp_path), "read": [{"files": "*.mtx", "format": "mtx"}]}
    dataset = load({"datasets": {"d": told}, "methods": {}}).datasets["d"]
    files = [path, tmp_path / "barcodes.tsv", tmp_path / "features.tsv"]
    path.write_text(f"{head}3 2 5\n")
    counts = read_files(files, dataset, "d")[1]["rna"].counts_mg
    np.testing.assert_array_equal(counts.toarray(), [[1, 0, 0], [0, 0, 5]])
    for line in ("4 1 5", "1 3 5", "0 1 5"):
        path.write_text(f"{head}{line}\n")
        refused(lambda: read_files(files, dataset, "d"), "matrix.mtx cannot be read as mtx")


@pytest.mark.parametrize("place", ["mod/adt/X", "mod/adt/layers/c"])
def test_an_h5mu_is_refused_by_name(tmp_path, h5mu, place):
    parts = {m: anndata.read_h5ad(written(tmp_path / "a.h5ad")) for m in ("rna", "adt")}
    path = h5mu(parts)
    told = {"path": path, "batch": "rna:batch"}
    told["layer"] = "c" if "layers" in place else None
    assert len(load_data("d", DatasetConfig(**told)).obs) == N
    broken(path, place)
    refused(lambda: load_data("d", DatasetConfig(**told)), f"{path}, adt: no valid sparse matrix")
    refused(lambda: read_cells(tmp_path / "data.h5mu", None), f"{path}, adt: no valid sparse")


# --- counts that stay in their file ------------------------------------------------------


@pytest.mark.parametrize("what", ["indices", "negative"])
def test_a_block_is_checked_before_its_columns_are_chosen(tmp_path, what):
    path = written(tmp_path / "lies.h5ad")
    told = {"path": str(path), "batch": "batch", "shards": {"number": 2}}
    assert prepare("d", DatasetConfig(**told)).facts["cells"] == N
    broken(path, "X", what)
    words = ("datasets.d", f"{path}: X, rows 0 to ", *INVALID)
    refused(lambda: prepare("d", DatasetConfig(**told)), *words)
    for columns in (np.arange(G), np.arange(2), np.arange(G)[::-1]):
        chosen = backed(path, "X", "here")[:, columns]
        refused(lambda chosen=chosen: list(chosen.blocks(7)), "here", str(path), "rows 0 to 6")


def test_pointers_of_counts_in_a_file_are_checked_before_a_run(tmp_path):
    path = broken(written(tmp_path / "lies.h5ad"), "X", "indptr")
    told = {"path": str(path), "batch": "batch", "shards": {"number": 2}}
    refused(lambda: peek("d", DatasetConfig(**told)), f"{path}: X: no valid sparse", "indptr falls")


# --- the check ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "indptr",
    [
        [0, 3, 2, 2],
        [1, 1, 2, 2],
        [0, 1, 2, 9],
        [0, 5, 0, 0],  # scipy's check takes a matrix that ends at 0 for one without values
        [0, 2**62, -(2**62) - 5, 2],  # and the difference of these two is positive
        [],
    ],
)
def test_pointers_that_lead_outside_are_refused(indptr):
    with pytest.raises(DataError, match=r"here: no valid sparse matrix: indptr .*at most its 2 "):
        check_pointers(np.array(indptr, dtype=np.int64), 2, "here")


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_pointers_that_scipy_lets_pass_are_refused_in_a_matrix(form):
    x = sp.csr_matrix(np.eye(3)).asformat(form)
    check_sparse(x, "here")
    x.indptr = np.array([0, 5, 0, 0])
    x.check_format(full_check=True)
    with pytest.raises(DataError, match="here: no valid sparse matrix: indptr falls from 5 to 0"):
        as_counts(x, "here")


@pytest.mark.parametrize(
    "matrix", [None, np.eye(3), sp.coo_matrix(np.eye(3)), sp.csr_array((0, 4))]
)
def test_what_is_valid_or_no_such_matrix_passes(matrix):
    check_sparse(matrix, "here")
