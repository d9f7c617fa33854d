"""Planted effects: neutral at strength zero, of the stated size elsewhere."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from morebench.data import planted
from morebench.errors import ConfigError, DataError


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def counts():
    """900 cells x 40 genes with means from 1 to 20."""
    return sp.csr_matrix(rng(1).poisson(np.linspace(1, 20, 40), size=(900, 40)))


@pytest.fixture
def batch():
    return np.arange(900) % 3


def same(a, b):
    return a.shape == b.shape and abs(sp.csr_matrix(a) - sp.csr_matrix(b)).sum() == 0


def means(counts, batch):
    return np.stack([np.asarray(counts[batch == b].mean(axis=0)).ravel() for b in range(3)])


def test_neutral_strengths_change_nothing(counts, batch):
    assert same(planted.gene_effect(counts, batch, 0.0, rng())[0], counts)
    assert same(planted.depth(counts, batch, (1, 1, 1), rng()), counts)
    assert same(planted.ambient(counts, batch, 0.0, rng()), counts)
    none = planted.doublets(counts, batch, np.arange(900) % 4, 0.0, 0.8, rng())
    assert none.counts.shape == (0, 40) and len(none.kind) == 0


def test_gene_effect_scales_gene_means_by_its_factors(counts, batch):
    made, factors = planted.gene_effect(counts, batch, 0.5, rng())
    assert factors.shape == (3, 40)
    assert np.all(made.data == np.rint(made.data)) and made.data.min() >= 1
    # 300 cells a batch and mean >= 1: the relative error of a mean is below 5 sd = .29.
    np.testing.assert_allclose(means(made, batch), means(counts, batch) * factors, rtol=0.15)


def test_gene_effect_is_exact_for_whole_factors(counts, batch, monkeypatch):
    twice = np.full((3, 40), 2.0)
    monkeypatch.setattr(planted, "log_normal_factors", lambda *a: twice)
    assert same(planted.gene_effect(counts, batch, 1.0, rng())[0], 2 * counts)


def test_factors_are_log_normal_of_mean_one():
    drawn = planted.log_normal_factors((200_000,), 0.4, rng())
    assert abs(drawn.mean() - 1) < 0.005
    assert abs(np.log(drawn).std() - 0.4) < 0.005


def test_depth_thins_by_the_fraction_of_the_batch(counts, batch):
    made = planted.depth(counts, batch, (1.0, 0.7, 0.4), rng())
    assert (counts - made).min() >= 0
    for b, fraction in enumerate((1.0, 0.7, 0.4)):
        n = counts[batch == b].sum()
        sd = np.sqrt(fraction * (1 - fraction) / n)
        assert abs(made[batch == b].sum() / n - fraction) <= 5 * sd


def test_ambient_keeps_totals_and_adds_the_profile_of_the_batch():
    # Two types on disjoint genes: what a cell holds of the other type's genes is ambient.
    one, two = [8, 2, 0, 0], [0, 0, 30, 10]
    counts = sp.csr_matrix(np.array([one] * 300 + [two] * 100 + [one] * 50))
    batch = np.repeat([0, 0, 1], [300, 100, 50])
    made = planted.ambient(counts, batch, 0.2, rng()).toarray()
    np.testing.assert_array_equal(made.sum(axis=1), np.asarray(counts.sum(axis=1)).ravel())
    foreign = made[:300, 2:].sum() / made[:300].sum()
    share = 100 * 40 / (300 * 10 + 100 * 40)
    assert abs(foreign - 0.2 * share) < 0.02
    assert made[400:, 2:].sum() == 0  # batch 1 has no such genes in its soup
    assert 2.0 < made[:300, 2].sum() / made[:300, 3].sum() < 4.5  # 30 : 10


def imbalance(types, batch, n):
    """Mean over types of the largest share that one batch holds."""
    return np.mean(
        [np.bincount(batch[types == t], minlength=n).max() / (types == t).sum() for t in set(types)]
    )


def test_compose_grows_with_strength():
    types = np.repeat([f"t{i}" for i in range(10)], 90)
    found = [imbalance(types, planted.compose(types, 3, s, rng(5)), 3) for s in (0, 0.5, 1, 2, 4)]
    assert found[0] == pytest.approx(1 / 3)
    assert np.all(np.diff(found) > 0.03)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=3, max_size=8),
    n_batches=st.integers(2, 3),
    strength=st.floats(0, 30),
    seed=st.integers(0, 999),
)
def test_compose_assigns_every_cell_and_two_types_a_batch(sizes, n_batches, strength, seed):
    types = np.repeat([f"t{i}" for i in range(len(sizes))], sizes)
    # Two types in b batches need two types of b cells, or more types: 6 cells of 3 types do.
    batch = planted.compose(types, n_batches, strength, rng(seed))
    assert batch.min() >= 0 and batch.max() < n_batches and len(batch) == sum(sizes)
    assert all(len(set(types[batch == b])) >= 2 for b in range(n_batches))


def test_compose_refuses_what_cannot_be_made():
    with pytest.raises(DataError, match="n_batches: 3"):
        planted.compose(np.array(["a", "a", "b"]), 3, 0.0, rng())


def test_apportion_is_within_one_of_the_exact_share():
    shares = np.array([0.5, 0.3, 0.2])
    for total in range(50):
        parts = planted.apportion(shares, total, rng(total))
        assert parts.sum() == total
        assert np.all(np.abs(parts - shares * total) < 1)


def test_doublets_are_sums_of_two_cells_of_the_batch(counts, batch):
    types = np.array(["a", "b", "b", "c"])[rng(2).integers(0, 4, 900)]
    made = planted.doublets(counts, batch, types, 0.1, 0.75, rng())
    assert same(made.counts, counts[made.first] + counts[made.second])
    np.testing.assert_array_equal(np.bincount(made.batch), [30, 30, 30])  # rint(.1 * 300)
    np.testing.assert_array_equal(batch[made.first], made.batch)
    np.testing.assert_array_equal(batch[made.second], made.batch)
    assert np.all(made.first != made.second) and len(set(made.first)) == 90
    differ = types[made.first] != types[made.second]
    np.testing.assert_array_equal(differ, made.kind == "heterotypic")
    assert differ.sum() == 3 * 22  # rint(.75 * 30)


def test_doublets_that_cannot_be_made_are_an_error(counts, batch):
    with pytest.raises(DataError, match="heterotypic doublets"):
        planted.doublets(counts, batch, np.full(900, "a"), 0.1, 1.0, rng())
    with pytest.raises(DataError, match="homotypic doublets"):
        planted.doublets(counts, batch, np.arange(900), 0.1, 0.0, rng())


def test_same_generator_same_counts(counts, batch):
    def all_effects(seed):
        r = rng(seed)
        made = planted.ambient(counts, batch, 0.1, r)
        made, _ = planted.gene_effect(made, batch, 0.3, r)
        return planted.depth(made, batch, (1, 0.5, 0.5), r)

    assert same(all_effects(3), all_effects(3))
    assert not same(all_effects(3), all_effects(4))


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf])
def test_what_is_no_count_is_refused(value, batch):
    bad = np.ones((900, 3))
    bad[7, 1] = value
    with pytest.raises(DataError, match="integers >= 0"):
        planted.gene_effect(bad, batch, 0.1, rng())


def test_strengths_out_of_range_are_named(counts, batch):
    with pytest.raises(ConfigError, match="depth.*3 fractions"):
        planted.depth(counts, batch, (1.0, 0.5), rng())
    with pytest.raises(ConfigError, match="depth"):
        planted.depth(counts, batch, (1.0, 0.5, 0.0), rng())
    with pytest.raises(ConfigError, match="ambient"):
        planted.ambient(counts, batch, 1.0, rng())
    with pytest.raises(ConfigError, match="doublet_rate"):
        planted.doublets(counts, batch, batch, 1.5, 0.5, rng())
    with pytest.raises(ConfigError, match=">= 0"):
        planted.gene_effect(counts, batch, -0.1, rng())
    with pytest.raises(ConfigError, match="imbalance"):
        planted.compose(batch, 2, -1.0, rng())


def test_the_input_is_left_alone(counts, batch):
    before = counts.copy()
    planted.ambient(counts, batch, 0.3, rng())
    planted.gene_effect(counts, batch, 0.3, rng())
    planted.depth(counts, batch, (0.5, 0.5, 0.5), rng())
    assert same(counts, before)
