"""What MoRE is given: counts, modalities, batches, and queries in a model's features."""

import anndata
import mudata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from morebench.errors import DataError
from morebench.models.more.cells import Cells, Modality, checked, column, from_data, one_modality
from morebench.models.more.query import matched

X = np.array([[1, 0, 2], [0, 3, 0], [4, 0, 5], [0, 0, 6]], dtype=np.float32)
NAMES = ["a", "b", "c"]


def adata(x=X, names=NAMES, cells=None, **obs):
    index = cells or [f"c{i}" for i in range(len(x))]
    table = pd.DataFrame({"batch": ["p", "p", "q", "q"][: len(x)], **obs}, index=index)
    return anndata.AnnData(sp.csr_matrix(x), obs=table, var=pd.DataFrame(index=list(names)))


def cells_of(x=X, names=NAMES, batch=("p", "p", "q", "q")):
    return one_modality(x, names, batch)


def test_an_anndata_is_one_modality_that_every_cell_has():
    found = from_data(adata(), "batch")
    assert list(found.modalities) == ["rna"] and list(found.batch) == ["p", "p", "q", "q"]
    np.testing.assert_array_equal(found.modalities["rna"].counts_ng.toarray(), X)
    assert found.modalities["rna"].present.all()
    assert list(from_data(adata(), None).batch) == ["all"] * 4


def test_a_layer_is_read_instead_of_x():
    data = adata(np.log1p(X))
    data.layers["counts"] = sp.csr_matrix(X)
    with pytest.raises(DataError, match="fractions, such as .*name the layer"):
        from_data(data, "batch")
    found = from_data(data, "batch", "counts")
    np.testing.assert_array_equal(found.modalities["rna"].counts_ng.toarray(), X)
    with pytest.raises(DataError, match="'raw'; valid in rna: counts"):
        from_data(data, "batch", "raw")


def test_modalities_of_a_mudata_stand_in_the_rows_of_its_cells():
    rna = adata(X[:3], cells=["c0", "c1", "c2"])
    adt = adata(X[:2, :2] + 1, names=["CD3", "CD4"], cells=["c3", "c1"])
    with mudata.set_options(pull_on_update=False):
        data = mudata.MuData({"rna": rna, "adt": adt})
        data.obs["batch"] = "p"
    order = list(data.obs_names)
    found = from_data(data, "batch")
    assert list(found.modalities) == ["rna", "adt"] and len(found) == 4
    for name, part in (("rna", rna), ("adt", adt)):
        m = found.modalities[name]
        assert sorted(np.array(order)[m.present]) == sorted(part.obs_names)
        for i, cell in enumerate(order):
            there = cell in part.obs_names
            expected = part[cell].X.toarray()[0] if there else np.zeros(part.n_vars)
            np.testing.assert_array_equal(m.counts_ng[i].toarray()[0], expected)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.where(X == 3, -1, X), "negative or missing"),
        (np.where(X == 3, np.nan, X), "negative or missing"),
        (np.where(X == 3, np.inf, X), "negative or missing"),
        (np.where(X == 3, 0.5, X), "fractions, such as 0.5"),
    ],
)
def test_what_is_no_count_is_refused(x, message):
    with pytest.raises(DataError, match=message):
        cells_of(x)


def test_bad_tables_are_named():
    with pytest.raises(DataError, match=r"rna names 'a' twice"):
        cells_of(names=["a", "a", "c"])
    with pytest.raises(DataError, match=r"rna has shape \(4, 3\); valid: \(4, 2\)"):
        cells_of(names=["a", "b"])
    with pytest.raises(DataError, match="no cells"):
        cells_of(np.empty((0, 3)), batch=[])
    lost = Modality(sp.csr_matrix(X), np.array(NAMES), np.array([True, False, True, False]))
    with pytest.raises(DataError, match="2 cells have no modality at all"):
        checked(Cells({"rna": lost}, np.array(list("ppqq"))), "here")


def test_a_column_of_obs_must_be_there_and_whole():
    data = adata(donor=pd.Categorical(["x", None, "y", None]))
    with pytest.raises(DataError, match="no column 'site'; valid: batch, donor"):
        column(data, "site")
    with pytest.raises(DataError, match=r"obs\['donor'\]: 2 cells have no value"):
        column(data, "donor")


def test_take_keeps_rows_of_everything():
    taken = cells_of().take(np.array([3, 0]))
    np.testing.assert_array_equal(taken.modalities["rna"].counts_ng.toarray(), X[[3, 0]])
    assert list(taken.batch) == ["q", "p"]


def test_query_features_are_put_in_the_models_order_and_the_rest_left_out():
    query = one_modality(
        np.column_stack([X[:, 2], [9, 9, 9, 9], X[:, 0]]), ["c", "new", "a"], list("ppqq")
    )
    found = matched(query, {"rna": np.array(NAMES)}).modalities["rna"]
    assert list(found.names) == NAMES and found.counts_ng.dtype == np.float32
    np.testing.assert_array_equal(found.counts_ng.toarray(), X * [1, 0, 1])
    assert found.counts_ng.has_sorted_indices


def test_a_query_needs_half_of_the_features_and_one_modality():
    names = np.array([f"g{i}" for i in range(6)])
    half = one_modality(np.ones((2, 3)), names[:3], ["p", "p"])
    assert matched(half, {"rna": names}).modalities["rna"].counts_ng.sum() == 6
    fewer = one_modality(np.ones((2, 2)), names[:2], ["p", "p"])
    with pytest.raises(DataError, match="rna: 4 of the model's 6 features are missing.*50%"):
        matched(fewer, {"rna": names})
    with pytest.raises(DataError, match="found rna; valid: at least one of adt"):
        matched(half, {"adt": names})


def test_a_query_cell_with_an_unknown_modality_only_is_refused():
    has = np.array([True, True, False, True])
    parts = {
        "rna": Modality(sp.csr_matrix(X), np.array(NAMES), has),
        "atac": Modality(sp.csr_matrix(X), np.array(NAMES), ~has),
    }
    with pytest.raises(DataError, match="1 cells have no modality"):
        matched(Cells(parts, np.array(list("ppqq"))), {"rna": np.array(NAMES)})
