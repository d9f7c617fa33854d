"""Atomic writes: the old file or the new one; equal content is equal bytes."""

import json
import math
import stat

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.seal import names, seal

from morebench.errors import ContractError
from morebench.files import atomic_directory, atomic_path, read_json, write_json
from morebench.io.tables import read_parquet, write_parquet, write_tsv


class Stop(Exception):
    pass


@pytest.mark.faults
def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == ".tsv"
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["table.tsv"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.faults
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, old):
    path = tmp_path / "table.tsv"
    if old is not None:
        path.write_text(old)
    with pytest.raises(Stop), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise Stop
    assert names(tmp_path) == ([] if old is None else ["table.tsv"])
    assert old is None or path.read_text() == old


@pytest.mark.faults
@pytest.mark.parametrize("old", [False, True])
def test_an_error_leaves_the_old_directory_and_nothing_else(tmp_path, old):
    path = tmp_path / "run"
    if old:
        path.mkdir()
        (path / "status.json").write_text("old")
    with pytest.raises(Stop), atomic_directory(path) as temporary:
        (temporary / "status.json").write_text("half")
        raise Stop
    assert names(tmp_path) == (["run"] if old else [])
    assert not old or (path / "status.json").read_text() == "old"


def test_a_directory_replaces_all_of_the_old_one(tmp_path):
    path = tmp_path / "deep" / "run"
    with atomic_directory(path) as temporary:
        (temporary / "output.h5ad").write_text("1")
    with atomic_directory(path) as temporary:
        (temporary / "status.json").write_text("2")
        assert names(path) == ["output.h5ad"]
    assert names(path) == ["status.json"]
    assert names(path.parent) == ["run"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"a": 1})
    for bad in (math.nan, np.float32(1), object()):
        with pytest.raises((TypeError, ValueError)):
            write_json(path, {"a": bad})
    assert read_json(path) == {"a": 1}
    assert names(tmp_path) == ["facts.json"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(content=st.dictionaries(st.text(), json_values, max_size=5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_equal_content_is_an_equal_file(tmp_path_factory, content, data):
    folder = tmp_path_factory.mktemp("json")
    order = data.draw(st.permutations(list(content)))
    write_json(folder / "a.json", content)
    write_json(folder / "b.json", {k: content[k] for k in order})
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    assert read_json(folder / "a.json") == content


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}", b"[1, 2]", b"3"])
def test_json_that_is_no_object(tmp_path, content):
    path = tmp_path / "status.json"
    path.write_bytes(content)
    seal(path)
    with pytest.raises(ContractError, match="status.json"):
        read_json(path)


def test_a_table_is_written_with_six_digits_and_empty_missing_values(tmp_path):
    frame = pd.DataFrame(
        {"name": ["a", None], "value": [1 / 3, math.nan], "n": [3, 4]}, index=["x", "y"]
    )
    write_tsv(tmp_path / "a.tsv", frame)
    assert (tmp_path / "a.tsv").read_bytes() == b"name\tvalue\tn\na\t0.333333\t3\n\t\t4\n"


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=True, allow_infinity=False, width=32), st.integers(0, 9)),
        max_size=6,
    )
)
@settings(max_examples=40, deadline=None)
def test_equal_tables_are_equal_files(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("tsv")
    frame = pd.DataFrame(rows, columns=["value", "n"]).astype({"value": float})
    write_tsv(folder / "a.tsv", frame)
    write_tsv(folder / "b.tsv", frame.copy().set_axis(range(7, 7 + len(frame))))
    assert (folder / "a.tsv").read_bytes() == (folder / "b.tsv").read_bytes()
    again = pd.read_csv(folder / "a.tsv", sep="\t")
    np.testing.assert_allclose(again["value"].astype(float), frame["value"], rtol=1e-5)


def test_parquet_keeps_columns_not_the_index_and_says_what_is_missing(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=["p", "q"])
    write_parquet(tmp_path / "t.parquet", frame)
    again = read_parquet(tmp_path / "t.parquet", ("b", "a"))
    assert list(again.columns) == ["a", "b"]
    assert list(again.index) == [0, 1]
    assert again["b"].tolist() == ["x", None]
    with pytest.raises(ContractError, match=r"t.parquet: lacks the columns \['c'\].*\['a', 'b'\]"):
        read_parquet(tmp_path / "t.parquet", ("a", "c"))
    write_parquet(tmp_path / "u.parquet", frame.reset_index(drop=True))
    assert (tmp_path / "t.parquet").read_bytes() == (tmp_path / "u.parquet").read_bytes()


def test_json_ends_with_a_line_and_keeps_keys_sorted(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": {"d": 2, "c": 3}})
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == ["a", "b"]
    assert text.index('"c"') < text.index('"d"')
