"""PCA and random embeddings, and what every adapter's signature owes the registry."""

import importlib
import inspect

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from morebench.contract import MethodInput
from morebench.errors import DataError
from morebench.methods import pca, random
from morebench.registry import METHODS

OWN = (
    "pca", "random", "harmony", "harmony_published", "scvi", "scanvi", "scrublet", "logreg",
    "celltypist",
)  # fmt: skip


def make_input(n=40, p=8):
    rng = np.random.default_rng(0)
    return MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array(["g0", "g1"]),
        counts_ng=sp.csr_matrix(rng.poisson(2, (n, 2)).astype(np.float32)),
        pca_np=rng.normal(size=(n, p)).astype(np.float32),
        obs=pd.DataFrame({"batch": np.where(np.arange(n) % 2, "a", "b")}),
        fit_visible=np.ones(n, dtype=bool),
    )


@pytest.mark.parametrize("name", OWN)
def test_adapter_takes_the_registered_parameters_and_no_others(name):
    module, function = METHODS[name].entry.split(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
    keywords = {k: p for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert list(parameters)[0] == "data" and len(parameters) == len(keywords) + 1
    assert set(keywords) == {"seed", "threads", *METHODS[name].params}
    assert all(p.default is inspect.Parameter.empty for p in keywords.values())


def test_pca_is_the_first_components():
    data = make_input()
    out = pca.run(data, seed=1, threads=1, n_components=5)
    np.testing.assert_array_equal(out.embedding, data.pca_np[:, :5])
    assert out.embedding.dtype == np.float32


@pytest.mark.parametrize("n_components", [9, 0])
def test_pca_names_both_numbers(n_components):
    with pytest.raises(DataError, match=rf"{n_components}.* 8 components"):
        pca.run(make_input(), seed=0, threads=1, n_components=n_components)


def test_random_is_seeded_standard_normal():
    data = make_input(n=4000)
    first = random.run(data, seed=3, threads=1, n_components=10).embedding
    again = random.run(data, seed=3, threads=1, n_components=10).embedding
    other = random.run(data, seed=4, threads=1, n_components=10).embedding
    np.testing.assert_array_equal(first, again)
    assert first.shape == (4000, 10)
    # 40,000 draws: five standard errors
    assert abs(first.mean()) < 5 / 200 and abs(first.std() - 1) < 5 / np.sqrt(2 * 40_000)
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 5 / 200
