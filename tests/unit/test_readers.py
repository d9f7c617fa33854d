"""Readers of files as others write them: values, ids and names against what was written."""

import errno
import gzip
import io
import os

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.geo import lines, mtx, packed, tar
from tests.refusals import refused

from morebench.data.readers import read_file, stored, table
from morebench.data.readers.mtx import companion
from morebench.data.spec_source import Read
from morebench.errors import NoRoom

COUNTS = np.array([[0, 3, 1], [2, 0, 0], [0, 0, 7], [1, 1, 1]])
CELLS, GENES = ["c1", "c2", "c3", "c4"], ["A", "B", "C"]
FRAME = pd.DataFrame(COUNTS, index=CELLS, columns=GENES)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def read(path, beside=(), layer=None, raw=False, **entry):
    return read_file(path, Read(files="*", **entry), beside, "d", layer=layer, raw=raw)


def check(data, frame=FRAME):
    assert list(data.obs_names) == list(frame.index)
    assert list(data.var_names) == list(frame.columns)
    np.testing.assert_array_equal(sp.csr_matrix(data.X).toarray(), frame)


# --- tables -------------------------------------------------------------------------------


@given(
    counts=arrays(int, st.tuples(st.integers(1, 9), st.integers(2, 6)), elements=st.integers(0, 9)),
    rows=st.sampled_from(["genes", "cells"]),
    separator=st.sampled_from([",", "\t", ";"]),
    zipped=st.booleans(),
    r_header=st.booleans(),
    piece=st.integers(1, 30),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_table_is_read_whatever_its_orientation_and_pieces(
    tmp_path, monkeypatch, counts, rows, separator, zipped, r_header, piece
):
    frame = pd.DataFrame(
        counts,
        index=[f"cell {i}" for i in range(len(counts))],
        columns=[f"gene-{j}" for j in range(counts.shape[1])],
    )
    monkeypatch.setattr(table, "PIECE", piece)
    text = (frame if rows == "cells" else frame.T).to_csv(sep=separator)
    text = text[1:] if r_header else text
    content = gzip.compress(text.encode()) if zipped else text.encode()
    path = written(tmp_path, f"t.txt{'.gz' * zipped}", content)
    check(read(path, format="table", rows=rows, separator=separator), frame)


def test_columns_that_hold_no_counts_go_with_the_cells(tmp_path):
    frame = FRAME.copy()
    frame.insert(0, "type", ["T", "B", "T", ""])
    frame["batch"] = ["01", "2", "3", "4"]
    path = written(tmp_path, "t.csv", frame.to_csv().encode())
    data = read(path, format="table", rows="cells", columns=["type", "batch"])
    check(data)
    assert data.obs["batch"].tolist() == ["01", "2", "3", "4"]  # text, as it stands there
    genes = FRAME.T.copy()
    genes.insert(0, "length", [100, 200, 300])
    path = written(tmp_path, "g.tsv", genes.to_csv(sep="\t").encode())
    check(read(path, format="table", rows="genes", columns=["length"]))


TABLES = {
    "another separator": (b"\tc1\tc2\nA\t1\t2\n", {"separator": ","}, ["one column", "separator:"]),
    "a word": (b"\tc1\tc2\nA\t1\tmany\n", {}, ["t.tsv", "a value is no number", "many"]),
    "no rows": (b"\tc1\tc2\n", {}, ["has 1 lines", "a header and rows"]),
    "nothing": (b"", {}, ["has 0 lines"]),
    "header too short": (b"c1\nA\t1\t2\n", {}, ["header has 1 fields, the first row 3"]),
    "no such column": (b"\tc1\nA\t1\n", {"columns": ["x"]}, ["no column 'x'", "it has c1"]),
    "no counts": (b"\tc1\nA\t1\n", {"columns": ["c1"]}, ["no column holds counts"]),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_is_none_is_refused(tmp_path, case):
    content, entry, words = TABLES[case]
    path = written(tmp_path, "t.tsv", content)
    words = [w for w in words if w != "t.tsv"]
    refused(lambda: read(path, format="table", rows="genes", **entry), *words)


@pytest.mark.faults
def test_a_table_that_was_cut_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 99, (400, 60)))
    path = written(tmp_path, "t.csv.gz", gzip.compress(frame.to_csv().encode())[:-3000])
    refused(lambda: read(path, format="table", rows="cells"), "t.csv.gz", "cut short")


# --- MatrixMarket -------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["features.tsv.gz", "genes.tsv", "genes.tsv.gz"])
def test_a_triplet_is_found_by_its_names(tmp_path, features):
    path = written(tmp_path, "GSM1_a_matrix.mtx.gz", mtx(FRAME))
    text = "".join(f"ENSG{i}\t{g}\n" for i, g in enumerate(GENES))
    content = packed(text) if features.endswith(".gz") else text.encode()
    beside = [
        written(tmp_path, "GSM1_a_barcodes.tsv.gz", lines(CELLS)),
        written(tmp_path, "GSM2_b_barcodes.tsv.gz", lines(["other"])),
        written(tmp_path, f"GSM1_a_{features}", content),
    ]
    data = read(path, beside, format="mtx")
    check(data)
    assert data.var["gene_id"].tolist() == ["ENSG0", "ENSG1", "ENSG2"]


def test_the_names_of_a_triplet_without_a_prefix(tmp_path):
    assert companion(tmp_path / "matrix.mtx", ("barcodes.tsv",)) == [
        "barcodes.tsv.gz", "barcodes.tsv",
    ]  # fmt: skip
    assert companion(tmp_path / "s1.mtx.gz", ("genes.tsv",)) == ["s1.genes.tsv.gz", "s1.genes.tsv"]


def test_triplets_of_one_name_in_several_folders_keep_together(tmp_path):
    beside = []
    for i, folder in enumerate(("s1", "s2")):
        (tmp_path / folder).mkdir()
        beside += [
            written(tmp_path / folder, "matrix.mtx.gz", mtx(FRAME + i)),
            written(tmp_path / folder, "barcodes.tsv.gz", lines([f"{c}-{i}" for c in CELLS])),
            written(tmp_path / folder, "features.tsv.gz", lines(GENES)),
        ]
    data = read(beside[3], beside, format="mtx")
    check(data, (FRAME + 1).set_axis([f"{c}-1" for c in CELLS]))


def test_a_matrix_of_cells_by_features_is_turned(tmp_path):
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, sp.coo_matrix(COUNTS))
    path = written(tmp_path, "matrix.mtx", buffer.getvalue())
    beside = [written(tmp_path, "b", lines(CELLS)), written(tmp_path, "g", lines(GENES))]
    check(read(path, beside, format="mtx", barcodes="b", features="g"))


def test_a_matrix_of_another_shape_is_refused_before_it_is_read(tmp_path):
    head = b"%%MatrixMarket matrix coordinate integer general\n3 400000000 2\n1 1 1\n"
    beside = [written(tmp_path, "b", lines(CELLS)), written(tmp_path, "g", lines(GENES))]
    entry = {"format": "mtx", "barcodes": "b", "features": "g"}
    path = written(tmp_path, "m.mtx", head)
    refused(lambda: read(path, beside, **entry), "3 x 400000000", "g has 3 lines and b 4")
    path.write_bytes(head.replace(b"400000000 2", b"4 900000000000"))
    refused(lambda: read(path, beside, **entry), "with 900000000000 values")
    path.write_bytes(b"<html>sorry</html>")
    refused(lambda: read(path, beside, **entry), "m.mtx cannot be read as mtx")
    refused(lambda: read(path, beside[:1], **entry), "no file is named g", "'features:'")
    path.write_bytes(mtx(pd.DataFrame(np.ones((4, 3), dtype=int)))[:-12])
    refused(lambda: read(path, beside, **entry), "m.mtx", "cut short")


# --- HDF5 ---------------------------------------------------------------------------------


def cell_ranger(path, version):
    """Write COUNTS as Cell Ranger 2 or 3 does: one column of the matrix a cell."""
    matrix = sp.csc_matrix(COUNTS.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("GRCh38" if version == 2 else "matrix")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(matrix, key).astype(np.int32)
        group["shape"] = np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array(CELLS, dtype="S")
        ids = np.array([f"ENSG{i}" for i in range(3)], dtype="S")
        if version == 2:
            group["genes"], group["gene_names"] = ids, np.array(GENES, dtype="S")
            return path
        features = group.create_group("features")
        features["id"], features["name"] = ids, np.array(GENES, dtype="S")
        kinds = ["Gene Expression", "Antibody Capture", "Peaks"]
        features["feature_type"] = np.array(kinds, dtype="S")
        features["genome"] = np.array(["GRCh38"] * 3, dtype="S")
    return path


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_cell_ranger_file_is_read_with_all_its_features(tmp_path, version, zipped):
    path = cell_ranger(tmp_path / "a.h5", version)
    if zipped:
        path = written(tmp_path, "a.h5.gz", gzip.compress(path.read_bytes()))
    data = read(path, format="h5")
    check(data)
    assert data.var["gene_id"].tolist() == ["ENSG0", "ENSG1", "ENSG2"]
    if version == 3:
        assert data.var["feature_types"].tolist()[1:] == ["Antibody Capture", "Peaks"]


def test_an_h5_that_is_no_cell_ranger_file_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = [1]
    refused(lambda: read(path, format="h5"), "a.h5 cannot be read as h5")
    path.write_bytes(b"text")
    refused(lambda: read(path, format="h5"), "a.h5 cannot be read as h5")


def test_no_room_to_unpack_is_said_of_the_disk_and_not_of_the_file(tmp_path, monkeypatch):
    anndata.AnnData(FRAME.astype(np.float32)).write_h5ad(tmp_path / "a.h5ad")
    path = written(tmp_path, "a.h5ad.gz", gzip.compress((tmp_path / "a.h5ad").read_bytes()))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stored.shutil, "copyfileobj", full)
    with pytest.raises(NoRoom, match="a.h5ad: there is no room for it"):
        read(path, format="h5ad")


def test_of_an_h5ad_the_layer_is_read_or_the_raw_counts(tmp_path):
    var = pd.DataFrame({"symbol": ["x", "y", "z"]}, index=GENES)
    counts = sp.csr_matrix(COUNTS.astype(np.float32))
    obs = pd.DataFrame({"cell_type": ["T"] * 4}, index=CELLS)
    data = anndata.AnnData(counts.log1p(), obs=obs, var=var, layers={"counts": counts})
    data.raw = anndata.AnnData(counts * 2, obs=obs, var=var)
    data.uns["huge"] = {"never": "read"}
    data.write_h5ad(tmp_path / "a.h5ad")
    path = written(tmp_path, "a.h5ad.gz", gzip.compress((tmp_path / "a.h5ad").read_bytes()))
    check(read(path, layer="counts", format="h5ad"))
    check(read(path, raw=True, format="h5ad"), FRAME * 2)
    named = read(path, layer="counts", format="h5ad", var_names="symbol")
    check(named, FRAME.set_axis(["x", "y", "z"], axis=1))
    assert named.var["gene_id"].tolist() == GENES and named.obs["cell_type"].tolist() == ["T"] * 4
    refused(lambda: read(path, layer="count", format="h5ad"), "no layer 'count'", "it has counts")
    refused(lambda: read(path, format="h5ad", var_names="name"), "'name'", "it has symbol")


def test_the_members_of_a_tar_are_what_was_put_in(tmp_path):
    from morebench.data.members import members_of

    tar(tmp_path / "G_RAW.tar", {"GSM1_a.txt": b"a", "GSM2_b.csv": b"b", "x/GSM3_c.txt": b"c"})
    plain = written(tmp_path, "labels.tsv", b"l")
    found = members_of([tmp_path / "G_RAW.tar", plain], ["GSM*.txt"], tmp_path / "scratch")
    assert {f.name: f.read_bytes() for f in found} == {
        "GSM1_a.txt": b"a", "GSM3_c.txt": b"c", "labels.tsv": b"l",
    }  # fmt: skip
