"""HDF5 files that claim more than they hold, and what runs when a file is read: nothing."""

import os
import pickle

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import write_elem
from hypothesis import given, settings
from hypothesis import strategies as st

from morebench.config import load
from morebench.data import peek, sources
from morebench.errors import DataError
from morebench.io.counts import as_counts
from morebench.io.hdf5 import check_hdf5

pytestmark = pytest.mark.faults

HUGE = 10**13


def with_x(path, write):
    """Put another X into a valid file."""
    with h5py.File(path, "r+") as file:
        del file["X"]
        write(file)
    return path


def chunked(file, **options):
    """A dense matrix of which one chunk is there."""
    x = file.create_dataset("X", (HUGE, 40), "f4", chunks=(1000, 40), **options)
    x[:10] = 1


def contiguous(file):
    """A dense matrix of which nothing was written."""
    file.create_dataset("X", (HUGE, 40), "f4")


def sparse(file, shape, indptr, n_values=50, n_indices=50):
    x = file.create_group("X")
    x.attrs["encoding-type"], x.attrs["encoding-version"] = "csr_matrix", "0.1.0"
    x.attrs["shape"] = shape
    x["data"] = np.ones(n_values, np.float32)
    x["indices"] = np.zeros(n_indices, np.int32)
    if isinstance(indptr, int):
        x.create_dataset("indptr", (indptr,), "i8", chunks=(1000,), compression="gzip")
    else:
        x["indptr"] = indptr


CLAIMS = {
    "chunks that are not there": chunked,
    "compressed chunks that are not there": lambda f: chunked(f, compression="gzip"),
    "bytes that are not there": contiguous,
    "rows of a sparse matrix": lambda f: sparse(f, (HUGE, 40), HUGE + 1),
    "a shape without its rows": lambda f: sparse(f, (HUGE, 40), np.arange(61)),
    "fewer indices than values": lambda f: sparse(f, (60, 40), np.arange(61), n_indices=40),
}


def layout(file):
    """A dense matrix whose bytes stand in another file, which h5py would read."""
    file.create_dataset("X", (60, 40), "u1", external=[("secret", 0, 2400)])


def virtual(file):
    whole = h5py.VirtualLayout((60, 40), "f4")
    whole[:] = h5py.VirtualSource("other.h5", "x", (60, 40))
    file.create_virtual_dataset("X", whole)


def linked(file):
    file["X"] = h5py.ExternalLink("other.h5", "/x")


ELSEWHERE = {"external storage": layout, "a virtual dataset": virtual, "an external link": linked}


def refused(path, config_of, monkeypatch, words):
    """Both looks at a file refuse it by its headers: no reader is asked for an array."""

    def read(*args, **kwargs):
        raise AssertionError("the file was read")

    monkeypatch.setattr(anndata, "read_h5ad", read)
    dataset = load(config_of(path)).datasets["d"]
    for look in (peek.peek, sources.load):
        with pytest.raises(DataError, match=words):
            look("d", dataset)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_that_the_file_does_not_hold_is_refused(claim, h5ad, config_of, monkeypatch):
    path = with_x(h5ad(), CLAIMS[claim])
    assert os.path.getsize(path) < 1e6
    words = r"datasets\.d: .*data\.h5ad: /X(/indptr)? (claims the shape|is a csr_matrix of shape)"
    refused(path, config_of, monkeypatch, words)


@pytest.mark.parametrize("place", ELSEWHERE)
def test_data_in_other_files_is_refused(place, h5ad, config_of, monkeypatch):
    path = with_x(h5ad(), ELSEWHERE[place])
    refused(path, config_of, monkeypatch, "data.h5ad: /X (stands in|is a link to) another file")


def test_a_group_that_holds_itself_ends(h5ad):
    with h5py.File(path := h5ad(), "r+") as file:
        file["uns/again"] = file["uns"]
        file["uns/soft"] = h5py.SoftLink("/uns")
    check_hdf5(path, "d")


@given(
    n=st.integers(1, 300),
    g=st.integers(1, 60),
    form=st.sampled_from(["csr", "csc", "dense"]),
    compression=st.sampled_from([None, "gzip", "lzf"]),
    rate=st.sampled_from([0, 0.1, 5]),
)
@settings(max_examples=40, deadline=None)
def test_what_anndata_writes_passes(tmp_path_factory, n, g, form, compression, rate):
    path = tmp_path_factory.mktemp("h5") / "a.h5ad"
    x = np.random.default_rng(0).poisson(rate, (n, g)).astype(np.float32)
    data = anndata.AnnData(x if form == "dense" else sp.csr_matrix(x).asformat(form))
    data.obs["type"] = pd.Categorical(["a"] * n)
    data.uns["nested"] = {"words": np.array(["x", "yy"]), "none": np.empty((0, 3))}
    data.write_h5ad(path, compression=compression)
    check_hdf5(path, "d")


def test_large_zeros_in_compressed_chunks_pass(tmp_path):
    """The strongest deflate can do, 1029 to 1, is no lie."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", data=np.zeros((2000, 4000)), chunks=(2000, 4000),
                            compression="gzip", compression_opts=9)  # fmt: skip
    assert os.path.getsize(tmp_path / "a.h5") < 64e6 / 900
    check_hdf5(tmp_path / "a.h5", "d")


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_indices_outside_the_matrix_are_refused_before_compiled_code_has_them(form):
    x = sp.random(30, 20, 0.2, format=form, random_state=0)
    x.data[:] = 1
    x.indices[7] = 10**6
    with pytest.raises(DataError, match="d: no valid sparse matrix: .*indices"):
        as_counts(x, "d")


# --- code in data --------------------------------------------------------------------------


class Evil:
    """What a pickle can do to who loads it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def in_words(file, evil):
    write_elem(file, "uns/model", evil.decode("latin-1").replace("\0", ""))
    write_elem(file, "uns/words", np.array([evil.hex()] * 3, dtype=object))


def in_opaque(file, evil):
    file["uns"].create_dataset("model", data=np.void(evil))
    file["X"].attrs["model"] = np.void(evil)


def in_bytes(file, evil):
    file["uns"].create_dataset("model", data=np.frombuffer(evil, dtype=np.uint8))
    file.attrs["__reduce__"] = np.frombuffer(evil, dtype=np.uint8)


@pytest.mark.parametrize("place", [in_words, in_opaque, in_bytes])
def test_a_pickle_in_a_file_is_never_run(place, h5ad, config_of, tmp_path):
    evil = pickle.dumps(Evil(tmp_path / "ran"))
    with h5py.File(path := h5ad(), "r+") as file:
        place(file, evil)
    dataset = load(config_of(path)).datasets["d"]
    peek.peek("d", dataset)
    raw = sources.load("d", dataset)
    assert len(raw.obs) == 60 and "model" not in raw.obs
    assert not (tmp_path / "ran").exists()
    pickle.loads(evil)
    assert (tmp_path / "ran").exists(), "the pickle of this test is harmless"


def test_a_pickle_in_the_place_of_a_file_is_never_run(tmp_path, config_of):
    path = tmp_path / "data.h5ad"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    for look in (peek.peek, sources.load):
        with pytest.raises(DataError, match="cannot be read as h5ad"):
            look("d", load(config_of(str(path))).datasets["d"])
    assert not (tmp_path / "ran").exists()
