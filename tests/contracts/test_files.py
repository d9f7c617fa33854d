"""Checksums: beside every file that is published, and asked for by every reader."""

import errno
import json
import os
import subprocess

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from morebench import files
from morebench.errors import Damaged, NoRoom
from morebench.files import (
    atomic_directory,
    atomic_path,
    copy,
    read_json,
    remove_leftovers,
    verify,
    write_json,
)
from morebench.io.tables import read_parquet, read_tsv, write_parquet, write_tsv

pytestmark = pytest.mark.faults


def flip(path, bit):
    """Change one bit of a file, as a disk might."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def sha256sum(folder, name):
    words = ["sha256sum", "--check", "--strict", name]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


FRAME = pd.DataFrame({"a": [1.5, 2.0], "b": ["x", "y"]})
KINDS = {
    "a.json": (lambda p: write_json(p, {"a": 1}), read_json),
    "a.parquet": (lambda p: write_parquet(p, FRAME), read_parquet),
    "a.tsv": (lambda p: write_tsv(p, FRAME), read_tsv),
}


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_flipped_bit_of_a_file_or_of_its_checksum_is_read(tmp_path_factory, name, data):
    write, read = KINDS[name]
    path = tmp_path_factory.mktemp("kind") / name
    write(path)
    read(path)
    victim = data.draw(st.sampled_from([path, path.with_name(f"{name}.sha256")]))
    bit = data.draw(st.integers(0, 8 * victim.stat().st_size - 1))
    flip(victim, bit)
    if victim != path and bit // 8 == victim.stat().st_size - 1:
        return  # of the line's end: digest and name are whole, whatever follows them is told
    with pytest.raises(Damaged, match=rf"{name}.*delete it and run again"):
        read(path)


@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_file_and_one_without_a_checksum_are_refused(tmp_path, name):
    write, read = KINDS[name]
    write(tmp_path / name)
    said = (tmp_path / f"{name}.sha256").read_text().split()[0]
    os.truncate(tmp_path / name, 3)
    with pytest.raises(Damaged, match=f"{name}: its SHA-256 is [0-9a-f]{{64}}, .* says {said}"):
        read(tmp_path / name)
    write(tmp_path / name)
    (tmp_path / f"{name}.sha256").unlink()
    with pytest.raises(Damaged, match=f"{name}: neither {name}.sha256 nor SHA256SUMS"):
        read(tmp_path / name)


def test_sha256sum_reads_what_we_write(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    assert sha256sum(tmp_path, "a.json.sha256").stdout == "a.json: OK\n"
    with atomic_directory(tmp_path / "run") as directory:
        write_json(directory / "status.json", {"state": "ok"})
        (directory / "output.h5ad").write_text("1")
    assert sorted(os.listdir(tmp_path / "run")) == ["SHA256SUMS", "output.h5ad", "status.json"]
    listed = sha256sum(tmp_path / "run", "SHA256SUMS").stdout
    assert listed == "output.h5ad: OK\nstatus.json: OK\n"
    flip(tmp_path / "run" / "output.h5ad", 2)
    assert sha256sum(tmp_path / "run", "SHA256SUMS").returncode == 1
    with pytest.raises(Damaged, match="output.h5ad: .*SHA256SUMS says .*delete the folder .*run"):
        verify(tmp_path / "run")
    verify(tmp_path / "run" / "status.json")


@pytest.mark.parametrize("old", [None, "old"])
def test_killed_between_the_checksum_and_the_file(tmp_path, monkeypatch, old):
    """A new file is never without its checksum; an old one is told as damaged, not read."""
    path = tmp_path / "a.json"
    if old:
        write_json(path, {"a": old})
    replace = os.replace

    class Killed(BaseException):
        pass

    def kill(source, target):
        if target == path:
            assert path.with_name("a.json.sha256").exists()
            raise Killed
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", kill)
    with pytest.raises(Killed):
        write_json(path, {"a": "new"})
    monkeypatch.undo()
    assert path.exists() == bool(old)
    if old:
        with pytest.raises(Damaged, match="a.json"):
            read_json(path)
    write_json(path, {"a": "new"})
    assert read_json(path) == {"a": "new"}


def test_a_process_reads_an_unchanged_file_for_its_checksum_once(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"a": 1})
    read = []

    def counted(path, real=files.sha256_file):
        read.append(path)
        return real(path)

    monkeypatch.setattr(files, "sha256_file", counted)
    for _ in range(3):
        verify(tmp_path / "a.json")
    assert len(read) == 1
    flip(tmp_path / "a.json", 3)
    with pytest.raises(Damaged):
        verify(tmp_path / "a.json")


def test_a_copy_is_checked_and_has_its_checksum_under_its_own_name(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    copy(tmp_path / "a.json", tmp_path / "b.json")
    assert read_json(tmp_path / "b.json") == {"a": 1}
    assert sha256sum(tmp_path, "b.json.sha256").stdout == "b.json: OK\n"
    with atomic_directory(tmp_path / "run") as directory:
        write_json(directory / "c.json", {})
    copy(tmp_path / "run", tmp_path / "again")
    assert read_json(tmp_path / "again" / "c.json") == {}
    flip(tmp_path / "a.json", 3)
    flip(tmp_path / "run" / "c.json", 3)
    for name in ("a.json", "run"):
        with pytest.raises(Damaged):
            copy(tmp_path / name, tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "told by its number"), True),
        (OSError(errno.EDQUOT, "told by its number"), True),
        (RuntimeError("errno = 28, error message = 'No space left on device'"), True),  # HDF5
        (SafetensorError("I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EIO, os.strerror(errno.EIO)), False),
        (ValueError("no space between words"), False),
    ],
)
def test_no_room_is_known_by_its_number_or_its_words(tmp_path, error, full):
    target = tmp_path / "a.json"
    with pytest.raises(NoRoom if full else type(error)) as stop, atomic_path(target):
        raise error
    assert (stop.value is error) != full
    if full:
        assert str(stop.value).startswith(f"{target}: there is no room for it (")
    assert list(tmp_path.iterdir()) == []


def test_no_room_names_the_innermost_file(tmp_path):
    with pytest.raises(NoRoom, match=r"/b.json: there is no room for it \(.*\); nothing"):
        with atomic_directory(tmp_path / "run") as directory, atomic_path(directory / "b.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_leftovers_go_but_for_young_ones(tmp_path):
    nested = tmp_path / "a" / ".tmp-run-x" / ".tmp-in-it"
    nested.parent.mkdir(parents=True)
    for path in (nested, tmp_path / ".tmp-old-t.tsv", tmp_path / "a" / "kept.tsv"):
        path.write_text("x")
    for path in (*tmp_path.rglob("*"),):
        os.utime(path, (1000, 1000))
    (tmp_path / ".tmp-young-t.tsv").write_text("x")
    remove_leftovers(tmp_path, 2000)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".tmp-young-t.tsv", "a", "kept.tsv"]


def test_files_that_people_edit_have_no_checksum(tmp_path):
    with atomic_path(tmp_path / "data.lock", checksum=False) as temporary:
        temporary.write_text(json.dumps({}))
    assert os.listdir(tmp_path) == ["data.lock"]
    assert read_json(tmp_path / "data.lock", checksum=False) == {}
