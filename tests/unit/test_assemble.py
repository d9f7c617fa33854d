"""Files put together to a dataset: samples, feature names, values, tables about the cells."""

import gzip

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.geo import lines, mtx, packed, tar
from tests.refusals import refused

from morebench.config import load
from morebench.data.assemble import merged, read_files, uncorrected
from morebench.data.prepare import prepare
from morebench.data.sources import load as load_data

CELLS, GENES = ["a-1", "b-1", "c-1"], ["A", "B", "C"]
ONE = pd.DataFrame([[1, 0, 2], [0, 3, 0], [4, 0, 0]], index=CELLS, columns=GENES)


@pytest.fixture
def source(tmp_path):
    """Write files and return a function that reads them as a dataset's configuration says."""

    def make(files, read, **dataset):
        paths = []
        for name, content in files.items():
            paths.append(tmp_path / name)
            paths[-1].write_bytes(content)
        content = {"datasets": {"d": {"path": str(tmp_path), "read": read, **dataset}}}
        return read_files(paths, load({**content, "methods": {}}).datasets["d"], "d")

    return make


def frame(part):
    return pd.DataFrame(part.counts_mg.toarray(), index=part.cells, columns=part.var.index)


def triplet(start, counts, features=None):
    return {
        f"{start}matrix.mtx.gz": mtx(counts),
        f"{start}barcodes.tsv.gz": lines(counts.index),
        f"{start}features.tsv.gz": lines(features or counts.columns),
    }


# --- samples ------------------------------------------------------------------------------


def test_each_triplet_of_a_tar_is_a_sample_named_by_its_file(tmp_path):
    two = ONE[["C", "B", "A"]] * 2  # the same cell ids, the genes in another order
    tar(tmp_path / "G_RAW.tar", triplet("GSM1_left_", ONE) | triplet("GSM2_right_", two))
    for sample, names in (
        (None, ["GSM1_left", "GSM2_right"]),
        (r"_(\w+)_matrix", ["left", "right"]),
    ):
        read = [{"files": "GSM*_matrix.mtx.gz", "format": "mtx", "sample": sample}]
        content = {"d": {"path": str(tmp_path / "G_RAW.tar"), "read": read}}
        dataset = load({"datasets": content, "methods": {}}).datasets["d"]
        obs, parts = read_files([tmp_path / "G_RAW.tar"], dataset, "d")
        assert obs["sample"].tolist() == [names[0]] * 3 + [names[1]] * 3
        expected = pd.concat([ONE, two[GENES]]).set_axis(
            [f"{names[i // 3]}:{cell}" for i, cell in enumerate(CELLS * 2)]
        )
        pd.testing.assert_frame_equal(frame(parts["rna"]), expected, check_dtype=False)


def test_triplets_in_folders_are_samples_named_by_the_folder(tmp_path):
    files = {f"{s}/{name}": c for s in ("s1", "s2") for name, c in triplet("", ONE).items()}
    tar(tmp_path / "all.tar", files)
    read = [{"files": "matrix.mtx.gz", "format": "mtx"}]
    content = {"d": {"path": str(tmp_path / "all.tar"), "read": read}}
    dataset = load({"datasets": content, "methods": {}}).datasets["d"]
    obs, parts = read_files([tmp_path / "all.tar"], dataset, "d")
    assert obs["sample"].tolist() == ["s1"] * 3 + ["s2"] * 3
    assert parts["rna"].counts_mg.sum() == 2 * ONE.to_numpy().sum()


def test_samples_keep_the_features_that_all_have(source):
    files = {"x.csv": ONE.to_csv().encode(), "y.csv": ONE[["C", "A"]].to_csv().encode()}
    obs, parts = source(files, [{"files": "*.csv", "format": "table", "rows": "cells"}])
    assert parts["rna"].var.index.tolist() == ["A", "C"] and len(obs) == 6


def test_the_same_cells_in_two_files_need_samples(source):
    files = {"x.csv": ONE.to_csv().encode(), "y.csv": ONE.to_csv().encode()}
    read = [{"files": f, "format": "table", "rows": "cells"} for f in files]
    refused(lambda: source(files, read), "3 cells stand in two files", "'a-1'", "'sample:'")


def test_a_sample_that_its_pattern_does_not_find_is_refused(source):
    read = {"files": "*.csv", "format": "table", "rows": "cells", "sample": "_(human)_"}
    refused(lambda: source({"x.csv": ONE.to_csv().encode()}, [read]), "'_(human)_'", "'x.csv'")


# --- features -----------------------------------------------------------------------------


def test_types_of_features_become_modalities(source):
    kinds = ["Gene Expression", "Antibody Capture", "CRISPR Guide Capture"]
    features = [f"id{i}\t{g}\t{k}" for i, (g, k) in enumerate(zip(GENES, kinds, strict=True))]
    _, parts = source(triplet("", ONE, features), [{"files": "matrix.mtx.gz", "format": "mtx"}])
    assert {k: list(p.var.index) for k, p in parts.items()} == {"rna": ["A"], "adt": ["B"]}
    assert parts["adt"].counts_mg.toarray().ravel().tolist() == [0, 3, 0]
    assert parts["adt"].var["gene_id"].tolist() == ["id1"]
    none = [f"id{i}\t{g}\tCustom" for i, g in enumerate(GENES)]
    read = [{"files": "matrix.mtx.gz", "format": "mtx"}]
    refused(lambda: source(triplet("", ONE, none), read), "of the types Custom", "Gene Expression")


@given(arrays(int, (4, 6), elements=st.integers(0, 5)), st.lists(st.sampled_from("xyz"),
       min_size=6, max_size=6))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_features_of_one_name_are_summed(counts, names):
    var = pd.DataFrame({"gene_id": [f"id{i}" for i in range(6)]}, index=names)
    found, its = merged(sp.csr_matrix(counts), var)
    assert list(its.index) == list(dict.fromkeys(names))
    expected = pd.DataFrame(counts.T, index=names).groupby(level=0, sort=False).sum().T
    np.testing.assert_array_equal(found.toarray(), expected)
    assert its["gene_id"].tolist() == [f"id{names.index(n)}" for n in dict.fromkeys(names)]


def test_a_feature_without_a_name_has_its_id(source):
    files = triplet("", ONE, ["e1\tA", "e2\t", "e3\tA"])
    _, parts = source(files, [{"files": "matrix.mtx.gz", "format": "mtx"}])
    assert frame(parts["rna"]).to_dict("list") == {"A": [3, 0, 4], "e2": [0, 3, 0]}


def test_names_of_genes_from_a_table_and_by_a_pattern(source):
    files = {
        "x.tsv": ONE.T.set_axis(["7", "9", "11"]).to_csv(sep="\t").encode(),
        "names.csv": b"entrez,symbol,more\n7,INS__chr1,x\n9,,x\n",
    }
    names = {"file": "names.csv", "id": "entrez", "name": "symbol"}
    read = {"files": "x.tsv", "format": "table", "rows": "genes", "names": names}
    _, parts = source(files, [{**read, "gene": "^(.+?)(?:__chr.*)?$"}])
    assert parts["rna"].var["gene_id"].to_dict() == {"INS": "7", "9": "9", "11": "11"}
    bad = {**read, "names": {**names, "id": "more"}}
    refused(lambda: source(files, [bad]), "names.csv", "duplicated ids", "'x'")
    files["names.csv"] = b"entrez,symbol\n1,A\n"
    refused(lambda: source(files, [read]), "names none of the features", "'7'")


# --- values -------------------------------------------------------------------------------


@given(arrays(int, 30, elements=st.integers(0, 250)), st.sampled_from([256, 1024, 4096]))
def test_the_correction_for_saturated_umis_is_undone(counts, umis):
    values = -umis * np.log(1 - counts / umis)
    np.testing.assert_array_equal(uncorrected(values, umis, "d"), counts)


def test_published_values_are_counts_again():
    """Of GSE85241, as others report them: 1 and 6 molecules of 256."""
    assert uncorrected(np.array([1.0019582262109, 6.07143081403291]), 256, "d").tolist() == [1, 6]


def test_values_that_are_no_counts_are_refused_or_rounded(source):
    files = {"x.csv": (ONE * 1.3).to_csv().encode()}
    read = {"files": "x.csv", "format": "table", "rows": "cells"}
    refused(lambda: source(files, [read]), "x.csv", "non-integer", "1.3")
    refused(lambda: source(files, [{**read, "umis": 256}]), "is no count", "256 UMIs")
    _, parts = source(files, [{**read, "round": True}])
    assert parts["rna"].counts_mg.toarray().tolist() == [[1, 0, 3], [0, 4, 0], [5, 0, 0]]
    for bad, word in ((-1, "negative"), ("", "NaN")):
        table = ONE.astype(object)
        table.iloc[1, 1] = bad
        refused(lambda t=table: source({"x.csv": t.to_csv().encode()}, [read]), "x.csv", word)


# --- tables about the cells ---------------------------------------------------------------

TABLE = {"files": "x.csv", "format": "table", "rows": "cells"}


def annotated(source, text, name="t.tsv", read=TABLE, **entry):
    files = {"x.csv": ONE.to_csv().encode(), name: text}
    obs, _ = source(files, [read], annotation=[{"file": name, **entry}])
    return obs


def test_a_table_is_joined_by_cell_id(source):
    text = b"id\tkind\tbatch\nc-1\tT\tx\na-1\tNA\ty\nz-1\tB\tz\n"
    obs = annotated(source, text)
    assert obs.index.tolist() == CELLS
    assert obs["kind"].where(obs["kind"].notna(), None).tolist() == [None, None, "T"]
    assert annotated(source, text, only=True).index.tolist() == ["a-1", "c-1"]
    zipped = annotated(source, gzip.compress(text), "t.tsv.gz", id="id")
    pd.testing.assert_frame_equal(zipped, obs)
    r_style = annotated(source, b'"x"\n"a.1"\t"T"\n', replace={".": "-"})
    assert r_style["x"].iloc[0] == "T"


def test_a_table_is_joined_by_sample_and_cell_id(source):
    files = {
        "x.csv": ONE.to_csv().encode(),
        "y.csv": ONE.to_csv().encode(),
        "t.tsv": packed("run\tid\tkind\nx\ta-1\tT\ny\ta-11\tB\nx\tb-1\tB\n"),
    }
    read = [{"files": "[xy].csv", "format": "table", "rows": "cells"}]
    entry = {"file": "t.tsv", "id": "id", "id_pattern": "^([a-z]-1)"}
    obs, _ = source(files, read, annotation=[{**entry, "sample": "run", "only": True}])
    assert obs["kind"].to_dict() == {"x:a-1": "T", "x:b-1": "B", "y:a-1": "B"}
    assert "run" not in obs
    refused(lambda: source(files, read, annotation=[entry]), "'a-1'", "several samples", "sample:")


TABLES = {
    "no cell": (b"id\tk\nq\t1\n", {}, ["names no cell", "'q'", "'a-1'", "replace:"]),
    "twice": (b"id\tk\na-1\t1\na-1\t2\n", {}, ["1 duplicated cell ids", "'a-1'"]),
    "no such column": (b"id\tk\na-1\t1\n", {"id": "cell"}, ["'cell'", "it has id, k"]),
    "a pattern": (b"id\tk\na-1\t1\n", {"id_pattern": "(x)"}, ["'(x)'", "'a-1'"]),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_does_not_fit_is_refused(source, case):
    text, entry, words = TABLES[case]
    refused(lambda: annotated(source, text, **entry), "annotation[0]", *words)


def test_a_column_is_not_overwritten(source):
    table = ONE.copy()
    table.insert(0, "kind", "T")
    files = {"x.csv": table.to_csv().encode(), "t.tsv": b"id\tkind\na-1\tB\n"}
    read = [{**TABLE, "columns": ["kind"]}]
    refused(lambda: source(files, read, annotation=[{"file": "t.tsv"}]), "column 'kind' already")


def test_columns_from_the_cell_ids(source):
    files = {"x.csv": ONE.set_axis(["D1-1_1", "D1-2_1", "D2-1_9"]).to_csv().encode()}
    obs, _ = source(files, [TABLE], from_id={"donor": r"^(D\d)", "plate": r"-(\d)_"})
    assert obs["donor"].tolist() == ["D1", "D1", "D2"] and obs["plate"].tolist() == ["1", "2", "1"]
    refused(lambda: source(files, [TABLE], from_id={"x": "(E)"}), "from_id", "no x in 3 of 3")


def test_files_that_are_not_there_are_named(source):
    files = {"x.csv": ONE.to_csv().encode()}
    refused(lambda: source(files, [{**TABLE, "files": "y*"}]), "no file fits 'y*'", "are x.csv")
    entry = [{"file": "labels*"}]
    refused(lambda: source(files, [TABLE], annotation=entry), "annotation[0]", "'labels*'", "x.csv")


# --- of one's own -------------------------------------------------------------------------


def test_files_of_ones_own_are_read_like_downloads(tmp_path):
    rng = np.random.default_rng(0)
    cells, genes = [f"c{i}" for i in range(40)], [f"g{i}" for i in range(30)]
    counts = pd.DataFrame(rng.poisson(2, (40, 30)), index=cells, columns=genes)
    (tmp_path / "in").mkdir()
    for sample in ("s1", "s2"):
        (tmp_path / "in" / f"{sample}.tsv.gz").write_bytes(packed(counts.T.to_csv(sep="\t")))
    labels = pd.DataFrame({"cell": cells, "kind": ["T", "B"] * 20})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    both = pd.concat([labels.assign(s=s) for s in ("s1", "s2")])
    both.to_csv(tmp_path / "labels.csv", index=False)
    dataset = {
        "path": str(tmp_path / "in"),
        "read": [{"files": "*.tsv.gz", "format": "table", "rows": "genes"}],
        "annotation": [{"path": str(tmp_path / "labels.csv"), "sample": "s"}],
        "batch": "sample",
        "labels": {"column": "kind", "source": "expert"},
        "features": {"n_top": 20, "n_pcs": 5},
        "tasks": ["integration"],
    }
    config = load({"datasets": {"d": dataset}, "methods": {"pca": {}}})
    result = prepare("d", config.datasets["d"])
    assert result.facts["cells"] == 80 and result.facts["batches"] == 2
    assert result.data.mod["rna"].X.sum() == 2 * counts.to_numpy().sum()
    dataset["path"] = str(tmp_path / "absent")
    config = load({"datasets": {"d": dataset}, "methods": {"pca": {}}})
    refused(lambda: load_data("d", config.datasets["d"]), "absent", "nor a folder of files")


def test_a_real_file_is_the_same_through_a_reader_and_gzip(data_file, tmp_path):
    plain = data_file("kang2018_pbmc_ctrl_8donors.h5ad")
    zipped = tmp_path / "kang.h5ad.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes(), 1))
    common = {"batch": "batch", "labels": {"column": "cell_type", "source": "expert"}}
    read = [{"files": "*.h5ad.gz", "format": "h5ad"}]
    content = {"one": {"path": str(plain), **common}}
    content["two"] = {"path": str(zipped), "read": read, **common}
    config = load({"datasets": content, "methods": {}})
    one, two = (load_data(name, config.datasets[name]) for name in content)
    pd.testing.assert_frame_equal(one.obs, two.obs)
    pd.testing.assert_frame_equal(frame(one.modalities["rna"]), frame(two.modalities["rna"]))
    assert len(one.obs) == 6530
