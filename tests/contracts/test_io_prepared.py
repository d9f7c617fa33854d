"""The prepared dataset holds no truth, the input of a split nothing but counts and PCA."""

import os

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.seal import seal

from morebench.errors import ContractError, DataError
from morebench.io.counts import as_counts
from morebench.io.inputs import check_input, read_input, read_labels, write_input, write_labels
from morebench.io.prepared import (
    TRUTH_COLUMNS,
    check_prepared,
    opaque_ids,
    open_prepared,
    read_prepared,
    read_truth,
    spells,
    write_prepared,
    write_truth,
)

N, G = 24, 6
TYPES = np.array(["T", "B", "NK", "T", "B", "T"] * 4, dtype=object)


def part(ids, prefix):
    counts = np.random.default_rng(0).poisson(2, (len(ids), G)).astype(np.float32)
    var = pd.DataFrame(index=[f"{prefix}{j}" for j in range(G)])
    return anndata.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=ids), var=var)


def prepared(ids=None, **obs):
    ids = opaque_ids(N) if ids is None else np.asarray(ids, dtype=object)
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"rna": part(ids, "g"), "adt": part(ids[:10], "p")})
    data.obs["batch"] = pd.Categorical(["b1", "b2"] * (N // 2))
    data.obs["has_adt"] = np.arange(N) < 10
    data.obs["n_genes"] = np.arange(N) % 5 + 3.0
    for name, value in obs.items():
        data.obs[name] = value
    return data


def truth(**changes):
    frame = pd.DataFrame({"cell_id": opaque_ids(N), "original_id": [f"x-{i}" for i in range(N)]})
    frame["cell_type"] = TYPES
    frame["cell_type_coarse"] = np.where(TYPES == "NK", "other", "lymphocyte")
    frame["cell_type_fine"] = None
    frame["is_doublet"] = np.nan
    frame["label_source"] = "expert"
    return frame.assign(**changes)[list(TRUTH_COLUMNS)]


def not_written(tmp_path, data, words, labels=None):
    with pytest.raises(ContractError, match=words) as caught:
        write_prepared(tmp_path / "d.h5mu", data, truth() if labels is None else labels)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_what_is_written_is_read(tmp_path):
    write_prepared(tmp_path / "d.h5mu", prepared(), truth())
    found = read_prepared(tmp_path / "d.h5mu")
    assert list(found.obs_names) == list(opaque_ids(N))
    assert list(found.obs.columns) == ["batch", "has_adt", "n_genes"]
    for name in ("rna", "adt"):
        np.testing.assert_array_equal(found.mod[name].X.toarray(), prepared().mod[name].X.toarray())
    write_prepared(tmp_path / "e.h5mu", found, truth())  # reading and writing adds nothing


@pytest.mark.parametrize(
    "place", ["uns", "obsm", "mod/rna/uns", "mod/rna/obsm", "mod/rna/layers", "mod/rna/raw"]
)
def test_what_came_into_the_file_is_found_by_its_reader(place, tmp_path):
    path = tmp_path / "d.h5mu"
    write_prepared(path, prepared(), truth())
    with h5py.File(path, "r+") as file:
        if place.endswith("raw"):
            write_elem(file, place, {"X": np.ones((N, G))})
        elif place.endswith("uns"):
            write_elem(file, f"{place}/published", np.ones(3))
        else:
            shape = (N, G) if place.endswith("layers") else (N, 2)
            write_elem(file, f"{place}/published", np.ones(shape))
    seal(path)
    words = f"{place.rpartition('/')[2]} (.*published|is not empty)"
    for read in (read_prepared, open_prepared):
        with pytest.raises(ContractError, match=words):
            read(path)


@pytest.mark.parametrize("name", ["cell_type", "rna:cell_type", "leiden", "doublet", "barcode"])
def test_an_obs_column_beyond_the_whitelist(name, tmp_path):
    not_written(tmp_path, prepared(**{name: "x"}), f"obs has .*'{name}'.*allowed")


def test_no_batch(tmp_path):
    data = prepared()
    del data.obs["batch"]
    not_written(tmp_path, data, "batch required")


@pytest.mark.parametrize("odd", ["AAAC-1-b_cells", "c1", "C000001", "c000001 ", "cell1"])
def test_ids_that_could_say_something(odd, tmp_path):
    ids = [odd, *opaque_ids(N)[1:]]
    not_written(tmp_path, prepared(ids), f"cell id '{odd}' is not opaque")


def test_ids_of_one_modality_that_could_say_something():
    data = prepared()
    data.mod["adt"].obs_names = ["AAAC-b_cells", *data.mod["adt"].obs_names[1:]]
    with pytest.raises(ContractError, match=r"\[adt\]: cell id 'AAAC-b_cells' is not opaque"):
        check_prepared(data, truth(), "d")


@pytest.mark.parametrize("place", ["obsm", "obsp", "uns", "varm", "varp"])
def test_what_is_left_in_the_global_tables(place, tmp_path):
    data = prepared()
    n = {"obsm": N, "obsp": N, "varm": 2 * G, "varp": 2 * G}.get(place, 1)
    value = sp.eye_array(n, format="csr") if place.endswith("p") else np.ones((n, 2))
    getattr(data, place)["published"] = value
    not_written(tmp_path, data, f"not empty: {place} .*published")


def test_a_global_var_column(tmp_path):
    data = prepared()
    data.var["marker_of"] = "T"
    not_written(tmp_path, data, "not empty: var .*marker_of")


@pytest.mark.parametrize("place", ["obs", "obsm", "obsp", "uns", "varm", "varp", "layers", "raw"])
def test_what_is_left_in_a_modality(place, tmp_path):
    data = prepared()
    rna = data.mod["rna"]
    if place == "raw":
        rna.raw = rna.copy()
    else:
        n = {"varm": G, "varp": G}.get(place, N)
        value = {
            "obs": "T", "layers": rna.X.copy(), "uns": "T",
            "obsp": sp.eye_array(n, format="csr"), "varp": sp.eye_array(n, format="csr"),
        }.get(place, np.ones((n, 2)))  # fmt: skip
        getattr(rna, place)["published"] = value
    not_written(tmp_path, data, rf"\[rna\]: {place} is not empty")


def test_a_var_column_beyond_the_whitelist(tmp_path):
    data = prepared()
    data.mod["rna"].var["gene_id"] = "ENSG"
    check_prepared(data, truth(), "d")
    data.mod["rna"].var["marker_of"] = "T"
    not_written(tmp_path, data, r"\[rna\]: var has .*marker_of")


def test_values_that_are_no_counts(tmp_path):
    data = prepared()
    data.mod["adt"].X.data[0] = 0.5
    with pytest.raises(DataError, match=r"\[adt\]: 1 non-integer values"):
        write_prepared(tmp_path / "d.h5mu", data, truth())
    assert os.listdir(tmp_path) == []


def codes(values):
    return pd.factorize(values)[0]


SPELLING = {
    "the labels themselves": lambda: TYPES,
    "categories of the labels": lambda: pd.Categorical(TYPES),
    "most of the labels": lambda: np.where(np.arange(N) < 15, TYPES, "unsure"),
    "the labels renamed": lambda: [f"cluster {c}" for c in codes(TYPES)],
    "codes of the labels": lambda: codes(TYPES),
    "codes as numbers with a fraction": lambda: codes(TYPES) + 0.5,
    "the coarser labels renamed": lambda: (TYPES == "NK").astype(str),
}


@pytest.mark.parametrize("column", ["batch", "donor", "platform", "total_counts"])
@pytest.mark.parametrize("how", SPELLING)
def test_a_column_that_spells_the_truth(how, column, tmp_path):
    not_written(tmp_path, prepared(**{column: SPELLING[how]()}), f"'{column}' spells the truth")


def test_a_column_that_spells_the_doublets(tmp_path):
    doublet = np.arange(N) % 6 == 0
    labels = truth(is_doublet=doublet.astype(float))
    state = np.where(doublet, "doublet", "singlet")
    not_written(tmp_path, prepared(platform=state), "spells the truth .is_doublet", labels)


def test_columns_that_only_go_with_the_truth_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    half = np.where(rng.random(N) < 0.4, TYPES, "unsure")
    half[:2] = ["unsure", "T"]
    assert (half == TYPES).mean() <= 0.5
    data = prepared(donor=half, platform=["p1"] * N)
    write_prepared(tmp_path / "d.h5mu", data, truth())
    missing = truth(cell_type=None, cell_type_coarse=None)
    write_prepared(tmp_path / "e.h5mu", prepared(platform=["p1"] * N), missing)


def test_the_truth_of_other_cells(tmp_path):
    for frame in (truth().iloc[::-1], truth().iloc[1:]):
        not_written(tmp_path, prepared(), "not those of the truth", frame)


@given(
    labels=st.lists(st.sampled_from(["T", "B", "NK", None]), min_size=4, max_size=30),
    names=st.permutations(["x", "y", "z"]),
)
@settings(max_examples=60, deadline=None)
def test_any_renaming_of_two_labels_or_more_spells_them(labels, names):
    series = pd.Series(labels, dtype=object)
    renamed = series.map(dict(zip(["T", "B", "NK"], names, strict=True))).fillna("none")
    several = series.dropna().nunique() > 1
    assert spells(renamed, series) == several
    assert not spells(pd.Series("same", index=series.index), series)


def test_replicates_inside_a_label_spell_it_and_an_own_value_for_each_cell_does_not():
    labels = pd.Series(["T"] * 6 + ["B"] * 6, dtype=object)
    replicates = pd.Series(["t1", "t2"] * 3 + ["b1", "b2"] * 3)
    assert spells(replicates, labels)
    assert not spells(replicates.where(replicates != "b2", "t2"), labels)
    assert not spells(pd.Series(range(12)), labels)


def test_truth_comes_back_as_it_was(tmp_path):
    write_truth(tmp_path / "d.parquet", truth())
    pd.testing.assert_frame_equal(read_truth(tmp_path / "d.parquet"), truth())
    with pytest.raises(ContractError, match="columns .*cluster"):
        write_truth(tmp_path / "e.parquet", truth().assign(cluster=1))
    with pytest.raises(ContractError, match="'x-0' is not opaque"):
        write_truth(tmp_path / "e.parquet", truth(cell_id=truth()["original_id"]))
    truth().drop(columns="original_id").to_parquet(tmp_path / "f.parquet")
    seal(tmp_path / "f.parquet")
    with pytest.raises(ContractError, match="original_id"):
        read_truth(tmp_path / "f.parquet")


# --- counts -------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.integers(0, 300), min_size=3, max_size=3), min_size=1, max_size=6
    ),
    st.sampled_from(["csr", "csc", "coo", "dense"]),
    st.sampled_from(["uint16", "int64", "float32", "float64"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_counts_are_kept_value_by_value(rows, form, dtype):
    dense = np.array(rows, dtype=dtype)
    given_ = dense if form == "dense" else sp.coo_matrix(dense).asformat(form)
    counts = as_counts(given_, "d")
    assert isinstance(counts, sp.csr_matrix)
    assert counts.dtype == np.float32
    assert counts.has_sorted_indices
    assert counts.nnz == np.count_nonzero(dense)
    np.testing.assert_array_equal(counts.toarray(), dense)


@given(st.integers(0, 5), st.integers(0, 2), st.sampled_from([-1.0, 0.25, np.nan, np.inf, -np.inf]))
@settings(max_examples=40, deadline=None)
def test_one_bad_value_is_found_and_placed(row, column, value):
    dense = np.full((6, 3), 2.0)
    dense[row, column] = value
    for matrix in (dense, sp.csr_matrix(dense), sp.csc_matrix(dense)):
        with pytest.raises(DataError, match=f"1 .*row {row}, column {column};"):
            as_counts(matrix, "d")


# --- inputs -------------------------------------------------------------------------------


def split_input(**changes):
    data = part(opaque_ids(N), "g")
    data.obs["batch"] = pd.Categorical(["b1", "b2"] * (N // 2))
    data.obs["fit_visible"] = np.arange(N) % 4 > 0
    data.obsm["X_pca"] = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    for name, value in changes.items():
        data.obs[name] = value
    return data


def test_an_input_comes_back_as_a_method_is_given_it(tmp_path):
    write_input(tmp_path / "all.h5ad", split_input(donor="d1"))
    found = read_input(tmp_path / "all.h5ad")
    assert found.cell_ids.tolist() == opaque_ids(N).tolist()
    assert found.genes.tolist() == [f"g{j}" for j in range(G)]
    assert list(found.obs.columns) == ["batch", "donor"]
    assert found.batch.tolist() == ["b1", "b2"] * (N // 2)
    assert found.labels is None
    assert found.all_genes_file is None
    np.testing.assert_array_equal(found.fit_visible, np.arange(N) % 4 > 0)
    np.testing.assert_array_equal(found.pca_np, split_input().obsm["X_pca"])
    np.testing.assert_array_equal(found.counts_ng.toarray(), split_input().X.toarray())


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("obs", "obs has .*cell_type"), ("obsm", "obsm.*published"), ("obsp", "obsp"),
        ("varm", "varm"), ("varp", "varp"), ("var", "var"), ("uns", "uns"), ("layers", "layers"),
    ],
)  # fmt: skip
def test_an_input_holds_nothing_else(place, words, tmp_path):
    data = split_input()
    n = G if place.startswith("var") else N
    value = {
        "obs": TYPES, "var": "T", "uns": "T", "layers": data.X.copy(),
        "obsp": sp.eye_array(n, format="csr"), "varp": sp.eye_array(n, format="csr"),
    }.get(place, np.ones((n, 2)))  # fmt: skip
    getattr(data, place)["cell_type" if place == "obs" else "published"] = value
    with pytest.raises(ContractError, match=words):
        write_input(tmp_path / "all.h5ad", data)
    data.write_h5ad(tmp_path / "all.h5ad")
    seal(tmp_path / "all.h5ad")
    with pytest.raises(ContractError, match=words):
        read_input(tmp_path / "all.h5ad")


def test_an_input_lacks_nothing(tmp_path):
    for column in ("batch", "fit_visible"):
        data = split_input()
        del data.obs[column]
        with pytest.raises(ContractError, match="obs has"):
            check_input(data, "d")
    data = split_input()
    del data.obsm["X_pca"]
    with pytest.raises(ContractError, match="X_pca"):
        check_input(data, "d")
    data = split_input()
    data.obsm["X_pca"][0, 0] = np.nan
    with pytest.raises(ContractError, match="not finite"):
        check_input(data, "d")
    with pytest.raises(ContractError, match="batch for every cell"):
        check_input(split_input(batch=["b1", None] * (N // 2)), "d")
    with pytest.raises(ContractError, match="bool fit_visible"):
        check_input(split_input(fit_visible=1), "d")
    data = split_input()
    data.obs_names = [f"AAAC-{i}" for i in range(N)]
    with pytest.raises(ContractError, match="not opaque"):
        check_input(data, "d")
    data = split_input()
    data.raw = data.copy()
    with pytest.raises(ContractError, match="raw"):
        check_input(data, "d")
    data = split_input()
    data.X.data[0] = -1
    with pytest.raises(DataError, match="negative"):
        write_input(tmp_path / "all.h5ad", data)


@given(st.lists(st.none() | st.sampled_from(["T", "B", ""]), min_size=N, max_size=N))
@settings(max_examples=40, deadline=None)
def test_shown_labels_come_back_and_hidden_cells_do_not_stand_in_the_file(tmp_path_factory, shown):
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    labels = np.array(shown, dtype=object)
    write_labels(path, opaque_ids(N), labels)
    assert read_labels(path, opaque_ids(N)).tolist() == shown
    stands = pd.read_parquet(path)
    assert len(stands) == sum(v is not None for v in shown)
    order = np.random.default_rng(0).permutation(N)
    assert read_labels(path, opaque_ids(N)[order]).tolist() == [shown[i] for i in order]


def test_labels_that_break_the_contract(tmp_path):
    path = tmp_path / "labels.parquet"
    pd.DataFrame({"cell_id": ["c000001", "c000001"], "label": ["T", "B"]}).to_parquet(path)
    seal(path)
    with pytest.raises(ContractError, match="twice"):
        read_labels(path, opaque_ids(N))
    pd.DataFrame({"cell_id": ["c000001"], "label": [None]}).to_parquet(path)
    seal(path)
    with pytest.raises(ContractError, match="without a label"):
        read_labels(path, opaque_ids(N))
    write_labels(path, opaque_ids(N + 1), np.array(["T"] * (N + 1), dtype=object))
    with pytest.raises(ContractError, match="c000025.*lacks"):
        read_labels(path, opaque_ids(N))
