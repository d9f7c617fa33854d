"""Bootstrap: seeded, chunk-free, right against theory and scipy, paired where it says so."""

import numpy as np
import pytest
from scipy import stats

from morebench.metrics.resampling import bootstrap_values, percentile_interval, resamples
from morebench.stats.bootstrap import bootstrap, paired_bootstrap


def mean_of(x):
    return lambda indices: x[indices].mean(axis=1)


def test_resamples_are_seeded_and_do_not_depend_on_chunks():
    whole = np.concatenate(list(resamples(37, 50, 5)))
    assert whole.shape == (50, 37) and whole.min() >= 0 and whole.max() == 36
    for chunk in (1, 7, 50, 99):
        np.testing.assert_array_equal(
            np.concatenate(list(resamples(37, 50, 5, chunk=chunk))), whole
        )
    assert (np.concatenate(list(resamples(37, 50, 6))) != whole).any()


def test_interval_of_a_mean_is_that_of_theory_and_scipy():
    x = np.random.default_rng(0).normal(size=400)
    found = bootstrap(mean_of(x), len(x), n_boot=4000, seed=1)
    half = 1.96 * x.std() / np.sqrt(len(x))
    assert found.estimate == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.01)
    theirs = stats.bootstrap(
        (x,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_level_widens_the_interval():
    x = np.random.default_rng(0).normal(size=50)
    narrow = bootstrap(mean_of(x), 50, seed=0, level=0.5)
    wide = bootstrap(mean_of(x), 50, seed=0, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_interval_is_that_of_the_resampled_values():
    x = np.arange(20.0)
    values = bootstrap_values(mean_of(x), 20, 300, 3)
    expected = np.quantile(values, [0.025, 0.975])
    found = bootstrap(mean_of(x), 20, n_boot=300, seed=3)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_paired_difference_cancels_what_is_shared():
    rng = np.random.default_rng(0)
    hard = 10 * rng.normal(size=200)
    a, b = hard + 0.3 + 0.1 * rng.normal(size=200), hard
    found = paired_bootstrap(mean_of(a), mean_of(b), 200, seed=0)
    assert found.estimate == pytest.approx(0.3, abs=0.03)
    assert 0.27 < found.low < found.estimate < found.high < 0.33
    assert found.p_value == pytest.approx(2 / 1001)
    alone = bootstrap(mean_of(a), 200, seed=0)
    assert alone.high - alone.low > 20 * (found.high - found.low)


def test_no_difference_is_not_significant():
    x = np.random.default_rng(0).normal(size=100)
    same = paired_bootstrap(mean_of(x), mean_of(x), 100, seed=0)
    assert (same.estimate, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    other = np.random.default_rng(1).permutation(x)
    assert paired_bootstrap(mean_of(x), mean_of(other), 100, seed=0).p_value > 0.5


def test_undefined_resamples_are_left_out():
    assert percentile_interval(np.array([np.nan, 1, 2, 3]), 0.5) == pytest.approx((1.5, 2.5))
    assert np.isnan(percentile_interval(np.array([np.nan, np.nan]))).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: list(resamples(0, 10, 0)),
        lambda: list(resamples(10, 0, 0)),
        lambda: percentile_interval(np.ones(3), 1.0),
    ],
)
def test_impossible_requests_are_refused(call):
    with pytest.raises(ValueError, match="valid"):
        call()
