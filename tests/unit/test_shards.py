"""Ranges of cells: every cell in one range, samples of every batch, files cut by rows."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from tests.seal import names

from morebench import shards
from morebench.errors import ConfigError
from morebench.files import atomic_directory
from morebench.io.inputs import cut_input, read_input, read_obs, shape_of, write_input
from morebench.io.outputs import Status, read_status, write_status
from morebench.models.more.cache import find_features, put_features, read_sidecar

N, G = 300, 12


@pytest.fixture
def input_file(tmp_path):
    """An input of two batches, one of 8 cells; the last 20 cells are hidden from fitting."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical(np.where(np.arange(N) < 8, "small", "large")),
            "fit_visible": np.arange(N) < N - 20,
        },
        index=[f"c{i + 1:06d}" for i in range(N)],
    )
    counts = sp.csr_matrix(rng.poisson(1, (N, G)).astype(np.float32))
    pca = rng.normal(size=(N, 3)).astype(np.float32)
    data = anndata.AnnData(
        counts, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(G)]), obsm={"X_pca": pca}
    )
    write_input(tmp_path / "input.h5ad", data)
    return tmp_path / "input.h5ad"


@given(n=st.integers(1, 5000), number=st.integers(1, 60))
def test_ranges_part_the_cells(n, number):
    number = min(n, number)
    rows = [shards.shard_rows(n, f"{i}/{number}") for i in range(number)]
    assert [r.start for r in rows] == [0, *(r.stop for r in rows[:-1])]
    assert rows[-1].stop == n
    sizes = [r.stop - r.start for r in rows]
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


@pytest.mark.parametrize("shard", ["3/3", "-1/3", "0/11"])
def test_no_such_range(shard):
    with pytest.raises(ConfigError, match=f"range {shard} of 10 cells; valid: i/number"):
        shards.shard_rows(10, shard)


@pytest.mark.parametrize("rows", [slice(40, 90), np.array([0, 7, 8, 299])])
def test_a_cut_input_is_that_of_its_cells(input_file, tmp_path, rows):
    whole = read_input(input_file)
    cut_input(input_file, rows, tmp_path / "cut.h5ad")
    cut = read_input(tmp_path / "cut.h5ad")
    assert list(cut.cell_ids) == list(whole.cell_ids[rows])
    assert list(cut.genes) == list(whole.genes)
    np.testing.assert_array_equal(cut.counts_ng.toarray(), whole.counts_ng[rows].toarray())
    np.testing.assert_array_equal(cut.pca_np, whole.pca_np[rows])
    np.testing.assert_array_equal(cut.fit_visible, whole.fit_visible[rows])
    assert list(cut.batch) == list(whole.batch[rows])
    assert shape_of(input_file) == (N, G) and list(read_obs(input_file).index) == list(
        whole.cell_ids
    )


def test_a_sample_has_every_small_batch_and_no_hidden_cell(input_file):
    rows = shards.fit_rows(input_file, None, 60, seed=0)
    assert set(range(8)) <= set(rows) and rows.max() < N - 20
    assert 60 <= len(rows) <= 60 + 8
    np.testing.assert_array_equal(shards.fit_rows(input_file, None, None, 0), np.arange(N - 20))


def test_a_sample_has_every_shown_type(input_file):
    ids = read_obs(input_file).index.to_numpy(dtype=object)
    labels = np.array([None] * N, dtype=object)
    labels[100:103], labels[103:200] = "rare", "common"
    rows = shards.fit_rows(input_file, (ids, labels), 60, seed=0)
    assert {100, 101, 102} <= set(rows)


def test_the_parts_of_a_run(input_file, tmp_path):
    ids = read_obs(input_file).index.to_numpy(dtype=object)
    labels = (ids, np.array(["a", "b"] * (N // 2), dtype=object))
    outputs = ("embedding", "model")
    files = {"input": input_file}
    with shards.part_of(files, labels, outputs, "") as whole:
        assert whole == (files, labels, list(outputs))
    with shards.part_of(files, labels, outputs, "fit:60:0") as (found, shown, given):
        rows = shards.fit_rows(input_file, labels, 60, 0)
        assert list(read_input(found["input"]).cell_ids) == list(ids[rows])
        assert list(shown[0]) == list(ids[rows]) and list(shown[1]) == list(labels[1][rows])
        assert given == list(outputs)
    assert not found["input"].exists()
    with shards.part_of({**files, "pretrained": tmp_path}, None, outputs, "embed:1/3") as part:
        assert list(read_input(part[0]["input"]).cell_ids) == list(ids[100:200])
        assert part[1:] == (None, ["embedding"]) and part[0]["pretrained"] == tmp_path


def test_a_range_without_a_model_is_no_fit_of_its_own(input_file):
    with pytest.raises(shards.NoModel, match="the model was not fitted"):
        with shards.part_of({"input": input_file}, None, ("embedding",), "embed:0/3"):
            raise AssertionError("must not be reached")


def status_in(folder, state, **more):
    with atomic_directory(folder) as directory:
        write_status(directory, Status("d", "all", "more", 0, state, **more))
    return folder


def test_a_part_that_failed_is_the_runs_state(input_file, tmp_path):
    fitted = status_in(tmp_path / "fit", "out_of_memory", reason="too much", cpu_s=3, log="fit.log")
    told = {"reason": "no model", "cpu_s": 1}
    ran_on = ["a node", "another"]
    parts = [status_in(tmp_path / h, "failed", hardware=h, **told) for h in ran_on]
    shards.gather(tmp_path / "run", fitted, parts, input_file, ("embedding", "model"))
    status = read_status(tmp_path / "run")
    assert (status.state, status.reason) == ("out_of_memory", "the fit: too much")
    assert status.cpu_s == 5 and status.log == "fit.log"
    assert status.hardware == "a node; another"
    assert names(tmp_path / "run") == ["status.json"]


def test_features_are_cut_and_joined(tmp_path):
    x_nf = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float16)
    like = {"key": "0" * 64, "shape": [10, 6], "precision": "float32", "seconds": 2.0,
            "n_parameters": 7, "cells_per_second": 5.0}  # fmt: skip
    folders = []
    for i, rows in enumerate((slice(0, 4), slice(4, 10))):
        put_features(tmp_path / str(i), [x_nf[rows]], like)
        folders.append(tmp_path / str(i))
        np.testing.assert_array_equal(find_features(folders[-1]), x_nf[rows])
    shards.gather_features(tmp_path / "all", folders)
    np.testing.assert_array_equal(find_features(tmp_path / "all"), x_nf)
    facts = read_sidecar(tmp_path / "all")
    assert facts["seconds"] == 4 and facts["cells_per_second"] == 2.5
    assert facts["precision"] == "float32" and facts["n_parameters"] == 7
    assert len({read_sidecar(f)["key"] for f in [*folders, tmp_path / "all"]}) == 3
