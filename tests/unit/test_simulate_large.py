"""Very many simulated cells: what was planted is there, and blocks change nothing of it."""

import numpy as np
import pytest

from morebench.data import simulate_large
from morebench.errors import ConfigError
from morebench.registry import DATASETS

SMALL = {**DATASETS["sim_large"].params, "n_cells": 900, "n_genes": 200, "n_types": 4}


def test_counts_types_and_batches_are_as_asked():
    data = simulate_large.sim_large(**SMALL)
    counts = data.mod["rna"].X
    assert counts.shape == (900, 200) and counts.data.min() >= 1
    assert (counts.data == np.round(counts.data)).all()
    # depth is log-normal of median 300 and sd .3: its mean is 300 exp(.3 ** 2 / 2)
    assert counts.sum(1).mean() == pytest.approx(300 * np.exp(0.045), rel=0.05)
    share = data.obs["cell_type"].value_counts(normalize=True).sort_index().to_numpy()
    wanted = 1 / np.arange(1, 5)
    np.testing.assert_allclose(share, wanted / wanted.sum(), atol=0.05)
    assert data.obs["batch"].value_counts().min() > 0.8 * 900 / 4


def test_types_differ_and_batches_by_their_effect():
    def apart(column, **changes):
        data = simulate_large.sim_large(**{**SMALL, "n_cells": 4000, **changes})
        counts, group = data.mod["rna"].X, data.obs[column].to_numpy()
        mean = np.stack([np.asarray(counts[group == g].mean(0)).ravel() for g in np.unique(group)])
        return np.log(mean + 0.1).std(0).mean()

    assert apart("cell_type") > 3 * apart("batch", batch_effect=0.0)
    assert apart("batch", batch_effect=0.5) > 3 * apart("batch", batch_effect=0.0)


def test_the_same_seed_gives_the_same_cells():
    one, two = (simulate_large.sim_large(**SMALL) for _ in range(2))
    other = simulate_large.sim_large(**{**SMALL, "seed": 1})
    assert (one.mod["rna"].X != two.mod["rna"].X).nnz == 0
    assert (one.mod["rna"].X != other.mod["rna"].X).nnz > 0


def test_cells_beyond_one_block_are_of_the_same_kind(monkeypatch):
    monkeypatch.setattr(simulate_large, "BLOCK", 250)  # 900 cells: four blocks, the last a part
    data = simulate_large.sim_large(**SMALL)
    counts = data.mod["rna"].X
    totals = [counts[rows].sum(1).mean() for rows in (slice(0, 250), slice(750, 900))]
    assert counts.shape == (900, 200)
    assert totals[0] == pytest.approx(totals[1], rel=0.1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_types", 1), ("n_batches", 1), ("n_cells", 39), ("n_genes", 9), ("counts_per_cell", 0),
     ("batch_effect", -0.1)],
)  # fmt: skip
def test_what_cannot_be_simulated_is_named(key, value):
    with pytest.raises(ConfigError, match=f"{key}: found {value}; valid:"):
        simulate_large.sim_large(**{**SMALL, key: value})
