"""The untrained path: batches joined along mutual pairs."""

import numpy as np
import pytest

from morebench.models.more.neighbors import unit
from morebench.models.more.structure import mutual_pairs
from morebench.models.more.zeroshot import align


def types(shift, n=60, d=10, seed=0):
    """Three well separated types, in two batches apart by a vector."""
    rng = np.random.default_rng(seed)
    kind, batch = np.arange(n) % 3, np.arange(n) % 2
    x = 6 * np.eye(d)[kind] + rng.normal(scale=0.3, size=(n, d))
    return (x + shift * np.eye(d)[-1] * batch[:, None]).astype(np.float32), batch.astype(str), kind


def test_one_batch_is_centred_and_of_length_one():
    x, _, _ = types(0)
    found = align(x, np.full(60, "a"), 5, seed=0)
    np.testing.assert_allclose(found, unit(x - x.mean(0)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_batches_come_together_and_types_stay_apart():
    x, batch, kind = types(5.0)

    def gaps(y):
        means = np.array([[y[(batch == b) & (kind == t)].mean(0) for b in "01"] for t in range(3)])
        between = np.linalg.norm(means[:, 0] - means[:, 1], axis=1).mean()
        return between, np.linalg.norm(means[0].mean(0) - means[1].mean(0))

    (before, apart), (after, still) = gaps(unit(x - x.mean(0))), gaps(align(x, batch, 5, seed=0))
    assert before > 0.8 and after < 0.2 * before
    assert still > 0.7 * apart


def test_one_round_moves_cells_by_half_the_vector_to_their_partner(monkeypatch):
    """One pair: all cells of a batch follow it."""
    monkeypatch.setattr("morebench.models.more.zeroshot.ROUNDS", 1)
    x = np.array([[1.0, 0.1], [0.9, -0.5], [0.1, 1.0], [-2.0, -0.6]], dtype=np.float32)
    batch = np.array(["a", "a", "b", "b"])
    y = unit(x - x.mean(0))
    pairs = mutual_pairs(y, batch, 1, seed=0)
    assert len(pairs) == 1
    i, j = pairs[0]
    half = (y[j] - y[i]) / 2
    expected = y + np.where((batch == "a")[:, None], half, -half)
    np.testing.assert_allclose(align(x, batch, 1, seed=0), expected, atol=1e-6)


@pytest.mark.parametrize("names", [("a", "b"), ("z", "c")])
def test_names_of_batches_and_order_of_cells_do_not_matter(names, monkeypatch):
    """Up to ties: a cell of several pairs is as near by each of them, so all are taken here."""
    monkeypatch.setattr("morebench.models.more.zeroshot.SMOOTHING", 10**6)
    x, batch, _ = types(5.0)
    first = align(x, batch, 5, seed=0)
    order = np.random.default_rng(1).permutation(60)
    renamed = np.where(batch == "0", *names)
    np.testing.assert_allclose(align(x[order], renamed[order], 5, seed=0), first[order], atol=1e-5)
    assert first.dtype == np.float32
