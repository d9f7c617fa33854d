"""Axes of the embedding: closed forms, invariants, what happens to noise and to batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morebench.models.more.axes import FLOOR, fit_axes


def planted(n=600, d=6, seed=0, batch_shift=0.0):
    """Three groups apart along axis 0, two batches apart along axis 1, noise everywhere."""
    rng = np.random.default_rng(seed)
    group, batch = np.arange(n) % 3, rng.integers(0, 2, n)
    z = rng.normal(size=(n, d))
    z[:, 0] += 6.0 * group
    z[:, 1] += batch_shift * batch
    return z, batch, group


def shares(z, mean, axes, columns):
    """Return the share of all variance that each of some input columns has on the axes."""
    total = np.trace(axes.T @ np.cov(z.T, bias=True) @ axes)
    return [z[:, c].var() * (axes[c] ** 2).sum() / total for c in columns]


def test_in_closed_form_where_groups_have_no_spread_but_the_floor():
    """With groups of identical cells, variance inside is 0 and the axes are those of PCA."""
    z = np.array([[2.0, 0], [-2.0, 0], [0, 1.0], [0, -1.0]]).repeat(5, axis=0)
    mean, axes = fit_axes(z, np.zeros(20, int), np.arange(20) // 5, power=0.25, batches=5.0)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    # ratios are 4 to 1 in variance; whitened by one number; times ratio ** .25
    scale = np.array([4.0**0.25, 1.0])
    scale *= np.sqrt(2.5 / (scale**2 * [2.0, 0.5]).sum())
    np.testing.assert_allclose(np.abs(axes), np.diag(scale), atol=1e-9)


def test_axes_whiten_what_is_inside_groups_with_the_floor():
    z, batch, group = planted()
    _, axes = fit_axes(z, batch, group, power=0.0, batches=0.0)
    inside = sum(np.cov(z[group == g].T, bias=True) * (group == g).mean() for g in range(3))
    inside = (1 - FLOOR) * inside + FLOOR * np.trace(inside) / 6 * np.eye(6)
    white = axes.T @ inside @ axes
    np.testing.assert_allclose(white, white[0, 0] * np.eye(6), atol=1e-9)


def test_power_favours_what_tells_groups_apart():
    z, batch, group = planted()
    found = [
        shares(z, *fit_axes(z, batch, group, power=power, batches=0.0), [0])[0]
        for power in (0.0, 0.25, 0.5)
    ]
    assert found[0] < found[1] - 0.05 and found[1] < found[2] - 0.02


def test_what_differs_between_batches_inside_groups_shrinks():
    z, batch, group = planted(batch_shift=3.0)
    before = shares(z, *fit_axes(z, batch, group, power=0.25, batches=0.0), [1])[0]
    after = shares(z, *fit_axes(z, batch, group, power=0.25, batches=20.0), [1])[0]
    assert after < before / 3


def test_batches_that_differ_by_chance_only_change_little():
    z, batch, group = planted(n=3000)
    plain = fit_axes(z, batch, group, power=0.25, batches=0.0)[1]
    counted = fit_axes(z, batch, group, power=0.25, batches=5.0)[1]
    gap = np.abs(plain @ plain.T - counted @ counted.T).max()
    assert gap < 0.05 * np.abs(plain @ plain.T).max()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.5), st.floats(0, 20))
def test_variance_and_centre_are_kept_and_a_rotation_changes_nothing(seed, power, batches):
    z, batch, group = planted(n=90, seed=seed, batch_shift=1.0)
    mean, axes = fit_axes(z, batch, group, power=power, batches=batches)
    out = (z - mean) @ axes
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-9)
    assert out.var(0).sum() == pytest.approx(z.var(0).sum())
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    mean, axes = fit_axes(z @ turn, batch, group, power=power, batches=batches)
    turned = (z @ turn - mean) @ axes
    np.testing.assert_allclose(turned @ turned.T, out @ out.T, atol=1e-6)


def test_an_embedding_without_variance_stays_finite():
    mean, axes = fit_axes(
        np.ones((12, 3)), np.arange(12) % 2, np.arange(12) % 3, power=0.25, batches=5.0
    )
    assert np.isfinite(axes).all() and (mean == 1).all()
