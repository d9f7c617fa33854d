"""Which cells of a run a UMAP figure shows."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from morebench import umap
from morebench.contract import MethodOutput
from morebench.evaluate import Entrant
from morebench.files import atomic_directory
from morebench.io.inputs import write_input
from morebench.io.outputs import Status, write_output, write_status
from morebench.io.prepared import TRUTH_COLUMNS, write_truth

N = 120
IDS = np.array([f"c{i + 1:06d}" for i in range(N)], dtype=object)
TYPES = np.where(np.arange(N) % 4 == 0, "rare", "common")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An input, its truth and one run; coordinates are the embedding's first two columns."""
    obs = pd.DataFrame({"batch": pd.Categorical(["a", "b"] * (N // 2)), "fit_visible": True}, IDS)
    genes = pd.DataFrame(index=["g0", "g1"])
    pca = np.zeros((N, 2), dtype=np.float32)
    data = anndata.AnnData(sp.csr_matrix(np.ones((N, 2), np.float32)), obs, genes)
    data.obsm["X_pca"] = pca
    write_input(tmp_path / "input.h5ad", data)
    truth = pd.DataFrame({"cell_id": IDS, "original_id": IDS, "cell_type": TYPES})
    write_truth(tmp_path / "truth.parquet", truth.reindex(columns=list(TRUTH_COLUMNS)))
    embedding = np.stack([np.arange(N), -np.arange(N)], axis=1).astype(np.float32)
    with atomic_directory(tmp_path / "run") as directory:
        output = MethodOutput(embedding=embedding)
        write_output(directory, output, IDS, np.array(["g0", "g1"]), ["embedding"])
        write_status(directory, Status("d", "all", "pca", 0, "ok"))

    def first_two(embeddings, seed):
        frames = [
            pd.DataFrame({"method": m, "index": range(len(x)), "x": x[:, 0], "y": x[:, 1]})
            for m, x in embeddings.items()
        ]
        return pd.concat(frames, ignore_index=True)

    monkeypatch.setattr(umap, "compute_umap", first_two)
    entrant = Entrant("pca", "unsupervised", 0, ("embedding",), str(tmp_path / "run"))
    return tmp_path / "input.h5ad", tmp_path / "truth.parquet", [entrant]


def test_every_cell_with_its_own_coordinates(files):
    found = umap.umap_table(*files, seed=0)
    assert list(found["cell_id"]) == list(IDS)
    np.testing.assert_array_equal(found["x"], np.arange(N))
    assert list(found["cell_type"]) == list(TYPES)


def test_many_cells_are_a_sample_that_keeps_the_shares(files, monkeypatch):
    monkeypatch.setattr(umap, "MOST_DRAWN", 40)
    found = umap.umap_table(*files, seed=0)
    assert len(found) == 40 and found["cell_id"].is_unique
    assert (found["cell_type"] == "rare").sum() == 10
    place = pd.Series(np.arange(N), index=IDS)[found["cell_id"]].to_numpy()
    np.testing.assert_array_equal(found["x"], place)  # still each cell's own
    assert list(found["cell_type"]) == list(TYPES[place])
    pd.testing.assert_frame_equal(found, umap.umap_table(*files, seed=0))
