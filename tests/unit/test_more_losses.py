"""Every term of the objective against loops, closed forms and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from morebench.errors import ConfigError
from morebench.models.more import losses
from morebench.models.more.objective import check_terms
from morebench.models.more.settings import Settings


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(codes):
    return torch.nn.functional.one_hot(torch.as_tensor(codes)).double()


# --- dense alignment ----------------------------------------------------------------------


def mmd_by_loops(kernel, weight_a, weight_b):
    """Squared discrepancy of two weighted samples: a double loop over all cells."""
    total = 0.0
    for i in range(len(kernel)):
        for j in range(len(kernel)):
            a = weight_a[i] / weight_a.sum() - weight_b[i] / weight_b.sum()
            b = weight_a[j] / weight_a.sum() - weight_b[j] / weight_b.sum()
            total += a * b * kernel[i, j]
    return total


def kernel(z):
    """Three Gaussians over the median squared distance, which is held fixed."""
    square = ((z[:, None] - z[None]) ** 2).sum(2)
    median = square.detach().flatten().median() + 1e-6
    return sum(torch.exp(-square / (median * h)) for h in (0.1, 0.3, 1.0))


@pytest.mark.parametrize("prototypes", [1, 4])
def test_value_and_gradient_are_those_of_the_kernel_by_autograd(prototypes):
    z = normal(28, 3).requires_grad_()
    member = normal(28, prototypes, seed=1).mul(2).softmax(1)
    found = losses.batch_discrepancy(z, one_hot(BATCH), member)
    (gradient,) = torch.autograd.grad(3 * found, z)
    expected = (kernel(z) * losses._coefficients(one_hot(BATCH), member)).sum()
    (wanted,) = torch.autograd.grad(3 * expected, z)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted, atol=1e-10, rtol=1e-8)


def test_identical_batches_have_no_discrepancy():
    z = normal(10, 3)
    found = losses.batch_discrepancy(torch.cat([z, z]), one_hot([0] * 10 + [1] * 10))
    assert abs(found.item()) < 1e-12
    apart = torch.cat([z, z + 5])
    assert losses.batch_discrepancy(apart, one_hot([0] * 10 + [1] * 10)).item() > 0.5


BATCH = np.array([0] * 9 + [1] * 14 + [2] * 5)


def test_discrepancy_is_the_mean_over_batches_of_each_to_the_rest():
    z = normal(28, 3)
    expected = np.mean(
        [mmd_by_loops(kernel(z).numpy(), 1.0 * (BATCH == k), 1.0 * (BATCH != k)) for k in range(3)]
    )
    assert losses.batch_discrepancy(z, one_hot(BATCH)).item() == pytest.approx(expected)


@pytest.mark.parametrize("hard", [True, False])
def test_inside_prototypes_it_is_that_of_each_weighted_by_its_cells(hard):
    z = normal(28, 3)
    of_z = kernel(z).numpy()
    member = normal(28, 4, seed=1).mul(2).softmax(1)
    if hard:
        member = one_hot(np.arange(28) % 4)
    total = weight = 0.0
    for p in range(4):
        for k in range(3):
            own, rest = member[:, p].numpy() * (BATCH == k), member[:, p].numpy() * (BATCH != k)
            if own.sum() > losses.LEAST_WEIGHT and rest.sum() > losses.LEAST_WEIGHT:
                total += own.sum() * mmd_by_loops(of_z, own, rest)
                weight += own.sum()
    found = losses.batch_discrepancy(z, one_hot(BATCH), member)
    assert found.item() == pytest.approx(total / weight)


def test_composition_alone_is_no_discrepancy_inside_types():
    """Two types far apart, in other shares in each batch, without any batch effect."""
    a, b = normal(4, 3), normal(4, 3, seed=1) + 20
    z = torch.cat([a, a, a, b, a, b, b, b])
    batch, kind = [0] * 16 + [1] * 16, [0] * 12 + [1] * 4 + [0] * 4 + [1] * 12
    assert losses.batch_discrepancy(z, one_hot(batch)).item() > 0.1
    assert abs(losses.batch_discrepancy(z, one_hot(batch), one_hot(kind)).item()) < 1e-12


def test_means_of_batches_are_a_share_of_all_variance():
    z = normal(28, 3)
    mean = z.mean(0)
    between = sum(
        (BATCH == k).sum() * ((z[BATCH == k].mean(0) - mean) ** 2).sum() for k in range(3)
    )
    inside = sum(((z[BATCH == k] - z[BATCH == k].mean(0)) ** 2).sum() for k in range(3)) / 25
    expected = (between - 2 * inside) / 28 / z.var(0).sum()
    torch.testing.assert_close(losses.batch_means(z, one_hot(BATCH)), expected)
    far = z + 50 * one_hot(BATCH)
    assert 0.9 < losses.batch_means(far, one_hot(BATCH)).item() < 1.0


def test_batches_of_one_distribution_have_the_same_mean_on_average():
    generator = torch.Generator().manual_seed(0)
    draws = [
        losses.batch_means(
            torch.randn(28, 3, generator=generator, dtype=torch.float64), one_hot(BATCH)
        ).item()
        for _ in range(2000)
    ]
    error = np.std(draws) / len(draws) ** 0.5
    assert abs(np.mean(draws)) < 4 * error < 0.01
    assert losses.batch_means(torch.ones(28, 3, dtype=torch.float64), one_hot(BATCH)).item() == 0


# --- contrasts ----------------------------------------------------------------------------


def test_contrast_of_two_pairs_in_closed_form():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[3.0, 3.0], [0.0, 1.0]])
    t, c = 0.5, 1 / math.sqrt(2)  # cosines: a0b0 c, a0b1 0, a1b0 c, a1b1 1
    rows = [math.log(1 + math.exp((0 - c) / t)), math.log(1 + math.exp((c - 1) / t))]
    columns = [math.log(1 + math.exp((c - c) / t)), math.log(1 + math.exp((0 - 1) / t))]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert losses.pair_contrast(a, b, t).item() == pytest.approx(expected, rel=1e-6)


def test_supervised_contrast_is_the_loop_of_the_paper():
    z, label, t = normal(9, 4), torch.tensor([0, 0, 1, 1, 1, 2, 0, 3, 1]), 0.3
    unit = (z / z.norm(dim=1, keepdim=True)).numpy()
    terms = []
    for i in range(9):
        others = [a for a in range(9) if a != i]
        below = sum(math.exp(unit[i] @ unit[a] / t) for a in others)
        same = [p for p in others if label[p] == label[i]]
        if same:
            logs = [math.log(math.exp(unit[i] @ unit[p] / t) / below) for p in same]
            terms.append(-sum(logs) / len(same))
    assert len(terms) == 7
    found = losses.supervised_contrast(z, label, t)
    assert found.item() == pytest.approx(np.mean(terms))
    alone = losses.supervised_contrast(z.requires_grad_(True), torch.arange(9), t)
    alone.backward()
    assert alone.item() == 0 and not z.grad.any()


def test_variance_inside_classes_by_hand():
    z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [5.0, 5.0], [5.0, 8.0], [9.0, 9.0]])
    label = torch.tensor([0, 0, 1, 1, 1, 3])
    # class 0: 1; class 1: mean (5, 6), squares 1, 1, 4; class 2 empty, class 3 one cell
    expected = (1 + 2) / 2 / z.var(0).sum().item()
    assert losses.intra_class_variance(z, label, 4).item() == pytest.approx(expected)
    assert losses.intra_class_variance(z[[0, 2]], torch.tensor([0, 1]), 4).item() == 0


# --- modalities ---------------------------------------------------------------------------


def test_one_modality_has_nothing_to_align():
    assert losses.modality_alignment(normal(5, 1, 3), torch.ones(5, 1).bool()).item() == 0


def test_two_modalities_are_half_their_distance_from_their_mean():
    z = normal(5, 2, 3)
    expected = ((z[:, 0] - z[:, 1]) ** 2).mean() / 4
    found = losses.modality_alignment(z, torch.ones(5, 2).bool())
    torch.testing.assert_close(found, expected)


def test_three_modalities_some_of_them_missing():
    z = normal(4, 3, 2)
    present = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]]).bool()
    apart = []
    for i in range(4):
        there = z[i, present[i]]
        if len(there) > 1:
            apart += ((there - there.mean(0)) ** 2).mean(1).tolist()
    assert len(apart) == 7
    found = losses.modality_alignment(z, present)
    assert found.item() == pytest.approx(np.mean(apart))
    noise = z.masked_fill(~present[..., None], 1e6)
    torch.testing.assert_close(losses.modality_alignment(noise, present), found)


# --- counts, weights ----------------------------------------------------------------------


def test_counts_have_the_likelihood_of_scipy():
    rng = np.random.default_rng(0)
    counts, mean = rng.poisson(3, (6, 4)).astype(float), rng.uniform(0.1, 9, (6, 4))
    theta = rng.uniform(0.2, 20, 4)
    expected = -nbinom.logpmf(counts, theta, theta / (theta + mean)).mean()
    found = losses.negative_binomial(
        torch.tensor(counts), torch.tensor(mean), torch.tensor(theta).log()
    )
    assert found.item() == pytest.approx(expected, rel=1e-6)
    zero = torch.zeros(1, 4, dtype=torch.float64)
    assert losses.negative_binomial(zero, zero, zero[0]).item() == pytest.approx(0, abs=1e-7)


def test_fixed_weights_are_a_weighted_sum():
    made = losses.LossWeights({"a": 2.0, "b": 0.5, "c": 0.0}, learned=False)
    assert set(made.weights) == {"a", "b"} and not list(made.parameters())
    assert made({"a": torch.tensor(3.0), "b": torch.tensor(4.0)}).item() == 8


def test_learned_weights_start_fixed_and_follow_their_gradient():
    made = losses.LossWeights({"a": 2.0, "b": 0.5, "c": 0.0}, learned=True)
    terms = {"a": torch.tensor(3.0), "b": torch.tensor(4.0)}
    found = made(terms)
    assert found.item() == 8 and set(made.s) == {"a", "b"}
    found.backward()
    # d/ds of w exp(-s) L + s / 2 at s = 0
    assert made.s["a"].grad.item() == pytest.approx(0.5 - 6)
    assert made.s["b"].grad.item() == pytest.approx(0.5 - 2)
    with torch.no_grad():
        made.s["a"].fill_(math.log(12))  # the minimum, where 2 w L exp(-s) = 1
    made.zero_grad()
    made(terms).backward()
    assert made.s["a"].grad.item() == pytest.approx(0, abs=1e-6)


OFF = {k: 0.0 for k in Settings().to_dict() if k.startswith("w_")}


@pytest.mark.parametrize(
    ("weight", "batches", "branches", "classes"),
    [("w_means", 1, 2, 2), ("w_modalities", 2, 1, 2), ("w_contrast", 2, 2, 0)],
)
def test_an_objective_that_cannot_apply_is_refused(weight, batches, branches, classes):
    settings = Settings(**{**OFF, weight: 1.0})
    with pytest.raises(ConfigError, match=f"{batches} batches, {branches} branches"):
        check_terms(settings, batches, branches, classes)
    check_terms(settings, 2, 2, 2)
