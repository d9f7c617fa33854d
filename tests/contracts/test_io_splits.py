"""Split tables: what they may hold, and that an edited one is refused."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.seal import seal

from morebench.errors import ContractError, Damaged
from morebench.io.prepared import opaque_ids
from morebench.io.splits import SPLIT_COLUMNS, read_split, split_hash, write_split

N = 12


def table(**changes):
    shown = np.arange(N) % 2 == 0
    frame = pd.DataFrame(
        {
            "cell_id": opaque_ids(N),
            "fit_visible": np.ones(N, dtype=bool),
            "label": np.where(shown, "T cell", None),
            "scored": ~shown,
        }
    )
    return frame.assign(**changes)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "d" / "partial.parquet"
    write_split(path, table(), {"kind": "partial", "n_scored": 6})
    pd.testing.assert_frame_equal(read_split(path), table())
    sidecar = json.loads((tmp_path / "d" / "partial.json").read_text())
    assert sidecar == {"kind": "partial", "n_scored": 6, "sha256": split_hash(table())}
    assert len(sidecar["sha256"]) == 64


EDITS = {
    "a label added": lambda t: t.assign(label=["T cell", *t["label"][1:-1], "B"], scored=False),
    "a label changed": lambda t: t.assign(label=["B", *t["label"][1:]]),
    "a label taken": lambda t: t.assign(label=[None, *t["label"][1:]]),
    "a label emptied": lambda t: t.assign(label=["", *t["label"][1:]]),
    "a cell scored less": lambda t: t.assign(scored=[False, False, *t["scored"][2:]]),
    "a cell hidden": lambda t: t.assign(fit_visible=[False, *t["fit_visible"][1:]]),
    "two cells swapped": lambda t: t.iloc[[2, 1, 0, *range(3, N)]].reset_index(drop=True),
    "a cell less": lambda t: t.iloc[:-1],
    "a cell renamed": lambda t: t.assign(cell_id=["c000099", *t["cell_id"][1:]]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_split_is_refused(edit, tmp_path):
    path = tmp_path / "partial.parquet"
    write_split(path, table(), {})
    EDITS[edit](table()).to_parquet(path, index=False)
    with pytest.raises(Damaged, match="partial.parquet: its SHA-256 is .* damaged or edited"):
        read_split(path)
    seal(path)
    with pytest.raises(ContractError, match="partial.parquet: its hash is .*edited or damaged"):
        read_split(path)


def test_a_split_stored_in_another_way_is_the_same(tmp_path):
    path = tmp_path / "partial.parquet"
    write_split(path, table(), {})
    table()[list(SPLIT_COLUMNS)[::-1]].to_parquet(path, index=False, compression="gzip")
    seal(path)
    assert list(read_split(path)["label"]) == list(table()["label"])


def test_a_sidecar_of_another_split_is_refused(tmp_path):
    write_split(tmp_path / "a.parquet", table(), {})
    write_split(tmp_path / "b.parquet", table(label=None), {})
    os.replace(tmp_path / "b.json", tmp_path / "a.json")
    seal(tmp_path / "a.json")
    with pytest.raises(ContractError, match="its sidecar says"):
        read_split(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text("{}")
    seal(tmp_path / "a.json")
    with pytest.raises(ContractError, match="its sidecar says None"):
        read_split(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cell_id": [f"AAAC-{i}-b_cells" for i in range(N)]}, "'AAAC-0-b_cells' is not opaque"),
        ({"cell_id": ["c000001"] * N}, "not unique"),
        ({"fit_visible": 1}, "fit_visible is int64, expected bool"),
        ({"scored": "yes"}, "scored is object, expected bool"),
        ({"scored": True}, "6 cells are scored although shown"),
        ({"truth": "T"}, "columns .*'truth'"),
    ],
)
def test_what_breaks_the_contract_is_not_written(changes, words, tmp_path):
    with pytest.raises(ContractError, match=words):
        write_split(tmp_path / "a.parquet", table(**changes), {})
    assert os.listdir(tmp_path) == []


def test_a_missing_column_is_refused(tmp_path):
    with pytest.raises(ContractError, match="expected"):
        write_split(tmp_path / "a.parquet", table().drop(columns="scored"), {})
    write_split(tmp_path / "a.parquet", table(), {})
    table().drop(columns="scored").to_parquet(tmp_path / "a.parquet")
    seal(tmp_path / "a.parquet")
    with pytest.raises(ContractError, match=r"lacks the columns \['scored'\]"):
        read_split(tmp_path / "a.parquet")


labels = st.lists(st.none() | st.text(max_size=3), min_size=N, max_size=N)


@given(labels, labels)
@settings(max_examples=60, deadline=None)
def test_two_splits_have_one_hash_only_if_they_are_equal(one, other):
    first, second = table(label=one, scored=False), table(label=other, scored=False)
    assert (split_hash(first) == split_hash(second)) == (one == other)
    assert split_hash(first) == split_hash(first.set_axis(range(5, 5 + N)))
