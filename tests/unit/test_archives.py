"""Archives and gzip files that mean harm, or were cut: nothing outside, nothing by halves."""

import gzip
import io
import os
import shutil
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.refusals import refused

from morebench.data import archives
from morebench.data.archives import open_binary, unpack
from morebench.errors import DataError

pytestmark = pytest.mark.faults


def read(path, **limits):
    with open_binary(path, **limits) as stream:
        return stream.read()


def member(name, content=b"x", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


@pytest.fixture
def tar(tmp_path):
    """Write a tar archive of members."""

    def write(*members, name="a.tar", mode="w"):
        path = tmp_path / name
        with tarfile.open(path, mode) as out:
            for info, content in members:
                out.addfile(info, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def nothing_left(tmp_path):
    """After the test, assert that no unpacked file is there, whole or half."""
    folder = tmp_path / "in" / "out"
    yield folder
    assert not folder.exists()
    assert list((tmp_path / "in").iterdir()) == []
    assert not (tmp_path / "evil").exists()


# --- gzip -----------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=5000), split=st.integers(0, 5000))
def test_plain_and_gzip_read_the_same_whatever_their_name(tmp_path_factory, data, split):
    folder = tmp_path_factory.mktemp("gz")
    (folder / "named.txt").write_bytes(gzip.compress(data[:split]) + gzip.compress(data[split:]))
    assert read(folder / "named.txt") == data
    if data[:2] != archives.GZIP:
        (folder / "named.gz").write_bytes(data)
        assert read(folder / "named.gz") == data


def test_lines_can_be_read(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with open_binary(path) as stream:
        assert list(stream) == [b"a,b\n", b"1,2\n"]


def test_a_bomb_is_stopped_early(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=6) as out:
        for _ in range(100):
            out.write(bytes(1 << 20))
    taken = 0
    with pytest.raises(DataError, match="gzip bomb") as caught, open_binary(path) as stream:
        while piece := stream.read(1 << 20):
            taken += len(piece)
    assert str(path) in str(caught.value)
    assert taken <= max(archives.RATIO_FREE, archives.MAX_RATIO * path.stat().st_size)
    refused(lambda: read(path, max_bytes=1 << 20, max_ratio=2000), str(path), "1,048,576")
    assert read(path, max_bytes=100 << 20, max_ratio=2000) == bytes(100 << 20)


def test_a_plain_file_has_a_limit_too(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 11)
    assert read(path, max_bytes=11) == b"x" * 11
    refused(lambda: read(path, max_bytes=10), str(path), "11", "10")


def test_every_cut_of_a_gzip_file_is_found(tmp_path):
    content = np.random.default_rng(0).integers(0, 4, 3000).astype(np.uint8).tobytes()
    packed = gzip.compress(content)
    path = tmp_path / "a.gz"
    for length in range(2, len(packed), 7):
        path.write_bytes(packed[:length])
        refused(lambda: read(path), str(path), "cut short")


def test_a_flipped_bit_of_a_gzip_file_is_found(tmp_path):
    content = np.random.default_rng(0).integers(0, 4, 3000).astype(np.uint8).tobytes()
    packed = gzip.compress(content, mtime=0)
    path = tmp_path / "a.gz"
    for at in range(10, len(packed), 5):  # behind the header, which holds time and system
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 0x10]) + packed[at + 1 :])
        refused(lambda: read(path), str(path))


# --- tar --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_is_unpacked(tar, tmp_path, mode):
    path = tar(
        member("./GSM1_matrix.mtx.gz", b"one"), member("sub", type=tarfile.DIRTYPE, content=b""),
        member("sub/b.txt", b"", mode=0o000, uid=12345), member("a.txt", b"a" * 100_000),
        name="RAW.bin", mode=mode,
    )  # fmt: skip
    folder = tmp_path / "deep" / "out"
    paths = unpack(path, folder)
    assert paths == [folder / n for n in ("GSM1_matrix.mtx.gz", "a.txt", "sub/b.txt")]
    assert [p.read_bytes() for p in paths] == [b"one", b"a" * 100_000, b""]
    assert all(p.stat().st_uid == os.getuid() for p in paths)


def test_only_what_is_asked_for_is_unpacked_and_a_folder_is_replaced(tar, tmp_path):
    path = tar(member("./a.mtx", b"1"), member("b.txt", b"2"),
               member("link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"))  # fmt: skip
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").write_bytes(b"")
    assert unpack(path, folder, keep=lambda n: n == "a.mtx") == [folder / "a.mtx"]
    assert [p.name for p in folder.iterdir()] == ["a.mtx"]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("bad", [
    member("../evil"), member("a/../../evil"), member("/tmp/evil"), member("..\\evil"),
    member("..", b"", type=tarfile.DIRTYPE),
])  # fmt: skip
def test_a_member_that_leads_out_is_refused(tar, nothing_left, bad, mode):
    path = tar(member("good.txt"), bad, mode=mode)
    refused(
        lambda: unpack(path, nothing_left), str(path), repr(bad[0].name), "nothing was unpacked"
    )
    refused(lambda: unpack(path, nothing_left, keep=lambda n: n == "good.txt"), repr(bad[0].name))


@pytest.mark.parametrize("kind, name", [
    (tarfile.SYMTYPE, "symbolic"), (tarfile.LNKTYPE, "hard"), (tarfile.CHRTYPE, "device"),
    (tarfile.BLKTYPE, "block"), (tarfile.FIFOTYPE, "pipe"),
])  # fmt: skip
def test_links_and_devices_are_refused(tar, nothing_left, kind, name):
    path = tar(member("good.txt"), member(name, b"", type=kind, linkname="good.txt"))
    refused(lambda: unpack(path, nothing_left), str(path), repr(name), "a link, a device")


def test_a_link_followed_by_a_file_through_it_writes_nowhere(tar, nothing_left, tmp_path):
    path = tar(member("d", b"", type=tarfile.SYMTYPE, linkname=str(tmp_path)), member("d/evil"))
    refused(lambda: unpack(path, nothing_left), str(path), "'d'")


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a")])
def test_a_name_is_there_once(tar, nothing_left, names):
    path = tar(*[member(n) for n in names])
    refused(lambda: unpack(path, nothing_left), str(path), "twice")


def test_a_sparse_member_is_refused(tmp_path, nothing_left):
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("big")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "big",
                        "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}  # fmt: skip
    info.size = 1
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        out.addfile(info, io.BytesIO(b"x"))
    refused(lambda: unpack(path, nothing_left), str(path), "'big'", "sparse")


def test_a_bomb_in_a_tar_is_stopped(tar, nothing_left):
    path = tar(member("zeros", bytes(40 << 20)), name="a.tar.gz", mode="w:gz")
    refused(lambda: unpack(path, nothing_left), str(path), "gzip bomb")
    refused(lambda: unpack(path, nothing_left, max_bytes=1000, max_ratio=2000), str(path), "1,000")


def test_an_archive_that_is_cut_is_refused(tar, nothing_left):
    path = tar(member("a", b"x" * 5000), member("b", b"y" * 5000))
    whole = path.read_bytes()
    end = 2 * (512 + 5120)
    assert not any(whole[end:])
    for length in (100, 512, 700, 3000, 5632, 5900, 6144, 8000, end, end + 100):
        path.write_bytes(whole[:length])
        refused(lambda: unpack(path, nothing_left), str(path), "damaged tar archive")


def test_a_damaged_header_is_no_end(tar, nothing_left):
    path = tar(member("a", b"x" * 5000), member("b", b"y" * 5000))
    raw = bytearray(path.read_bytes())
    raw[5632 + 3] ^= 1
    path.write_bytes(raw)
    refused(lambda: unpack(path, nothing_left), str(path), "damaged tar archive (bad checksum)")


def test_a_file_that_is_no_archive_is_refused(tmp_path, nothing_left):
    path = tmp_path / "a.tar"
    path.write_bytes(b"gene,count\n" * 1000)
    refused(lambda: unpack(path, nothing_left), str(path), "damaged tar archive")


@pytest.mark.parametrize("size", [-1, -(1 << 40), 1 << 62])
def test_a_member_with_an_impossible_size_is_refused(tar, nothing_left, size):
    path = tar(member("a", b"x" * 100))
    raw = bytearray(path.read_bytes())
    raw[124:136] = b"\xff" + (size % (1 << 88)).to_bytes(11, "big") if size < 0 else (
        b"\x80" + size.to_bytes(11, "big"))  # fmt: skip
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:512]) + 8 * 32)
    path.write_bytes(raw)
    refused(lambda: unpack(path, nothing_left), str(path))


def test_what_nobody_asked_for_is_an_error_that_lists_the_members(tar, nothing_left):
    path = tar(member("GSM1.mtx"), member("GSM2.mtx"))
    refused(
        lambda: unpack(path, nothing_left, keep=lambda n: False), str(path), "GSM1.mtx, GSM2.mtx"
    )


def test_unpacking_needs_room(tar, nothing_left, monkeypatch):
    path = tar(member("a", b"x" * 5000))
    usage = shutil.disk_usage(".")._replace(free=4999)
    monkeypatch.setattr(shutil, "disk_usage", lambda where: usage)
    refused(lambda: unpack(path, nothing_left), str(path), "5,000", "4,999 are free")
