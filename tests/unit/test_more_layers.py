"""Fusion (eq. 7), refinement (eq. 8) and batch vectors of unseen batches."""

import numpy as np
import pytest
import torch

from morebench.models.more.layers import Adapter, Decoder, Fusion, Refine
from morebench.models.more.network import BranchSpec, Network, n_parameters
from morebench.models.more.settings import Settings

D = 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- fusion -------------------------------------------------------------------------------


def fused_by_hand(z_nmd, present_nm, logit_md):
    """Softmax over the branches that are there, cell by cell and dimension by dimension."""
    out = np.zeros((z_nmd.shape[0], z_nmd.shape[2]))
    for i in range(len(out)):
        there = np.flatnonzero(present_nm[i])
        weight = np.exp(logit_md[there])
        out[i] = (weight / weight.sum(0) * z_nmd[i, there]).sum(0)
    return out


PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]], dtype=torch.bool)


def test_fusion_starts_as_the_mean_of_what_is_there():
    z = normal(4, 3, D)
    for adaptive in (True, False):
        found = Fusion(3, D, adaptive)(z, PRESENT)
        for i, there in enumerate(PRESENT):
            torch.testing.assert_close(found[i], z[i, there].mean(0))


def test_weights_are_a_softmax_over_the_branches_present():
    fusion = Fusion(3, D, True)
    with torch.no_grad():
        fusion.logit_md.copy_(normal(3, D, seed=1))
    z = normal(4, 3, D, seed=2)
    expected = fused_by_hand(z.numpy(), PRESENT.numpy(), fusion.logit_md.detach().numpy())
    np.testing.assert_allclose(fusion(z, PRESENT).detach(), expected, atol=1e-6)
    # all branches 1: what comes out is the sum of the weights
    torch.testing.assert_close(fusion(torch.ones(4, 3, D), PRESENT), torch.ones(4, D))


def test_an_absent_branch_has_no_influence_and_no_gradient():
    fusion = Fusion(3, D, True)
    with torch.no_grad():
        fusion.logit_md.copy_(normal(3, D, seed=1))
    z = normal(4, 3, D, seed=2)
    other = z.masked_fill(~PRESENT[..., None], float("nan"))
    assert torch.equal(fusion(z, PRESENT), fusion(other, PRESENT))
    z.requires_grad_(True)
    fusion(z, PRESENT).sum().backward()
    assert (z.grad[~PRESENT] == 0).all() and (z.grad[PRESENT] != 0).all()
    assert torch.isfinite(fusion.logit_md.grad).all()


def test_one_branch_is_passed_on_and_the_mean_has_nothing_to_learn():
    z = normal(4, 1, D)
    assert torch.equal(Fusion(1, D, True)(z, torch.ones(4, 1, dtype=torch.bool)), z[:, 0])
    assert n_parameters(Fusion(3, D, False)) == 0 and n_parameters(Fusion(3, D, True)) == 3 * D


# --- refinement ---------------------------------------------------------------------------


def test_refinement_starts_as_the_removal_of_the_batch_vector():
    z, b = normal(5, D), normal(5, D, seed=1)
    torch.testing.assert_close(Refine(D, 2, 3)(z, b), z - b)


def test_every_step_adds_f_of_what_is_left():
    refine = Refine(D, 2, 3)
    with torch.no_grad():
        refine.step[-1].weight.copy_(normal(D, 2 * D, seed=2))
        refine.step[-1].bias.copy_(normal(D, seed=3))
    z, b = normal(5, D), normal(5, D, seed=1)
    first = z + refine.step(z - b)
    second = first + refine.step(first - b)
    third = second + refine.step(second - b)
    torch.testing.assert_close(refine(z, b), third - b)
    refine.steps = 1
    torch.testing.assert_close(refine(z, b), first - b)


def test_without_steps_refinement_is_the_identity_and_has_nothing_to_learn():
    refine = Refine(D, 2, 0)
    z = normal(5, D)
    assert torch.equal(refine(z, normal(5, D, seed=1)), z)
    assert n_parameters(refine) == 0


def test_means_of_batches_are_remembered_and_absent_batches_keep_theirs():
    refine = Refine(D, 3, 1)
    z, batch = normal(7, D), torch.tensor([0, 0, 2, 2, 2, 0, 2])
    refine.mean_kd[1] = 5.0
    refine.remember(z, batch)
    torch.testing.assert_close(refine.mean_kd[0], z[batch == 0].mean(0))
    torch.testing.assert_close(refine.mean_kd[2], z[batch == 2].mean(0))
    assert (refine.mean_kd[1] == 5).all()


# --- estimate -----------------------------------------------------------------------------


def known(k=4, scale=10.0, d=D):
    """Batches whose means, and vectors, lie far apart."""
    refine = Refine(d, k, 2)
    refine.mean_kd.copy_(scale * normal(k, d, seed=4))
    with torch.no_grad():
        refine.b_kd.copy_(normal(k, d, seed=5))
    return refine


def ridge_by_hand(means, vectors, wanted, k=None):
    """The same regression in the primal form; the ridge is a mean over k places."""
    x, b = means - means.mean(0), vectors - vectors.mean(0)
    r = (x**2).sum() / (k or len(x))
    matrix = np.linalg.solve(x.T @ x + r * np.eye(x.shape[1]), x.T @ b)
    return vectors.mean(0) + (wanted - means.mean(0)) @ matrix


def test_estimates_are_a_ridge_regression():
    refine = known()
    mean, vector = refine.mean_kd.double().numpy(), refine.b_kd.detach().double().numpy()
    wanted = 10 * normal(3, D, seed=6)
    expected = ridge_by_hand(mean, vector, wanted.double().numpy())
    np.testing.assert_allclose(refine.estimate(wanted).detach(), expected, atol=1e-4)


def test_the_average_batch_gets_the_average_vector():
    refine = known()
    found = refine.estimate(refine.mean_kd.mean(0, keepdim=True))
    torch.testing.assert_close(found[0], refine.b_kd.mean(0))


def test_a_batch_like_a_known_one_is_nearest_to_its_vector():
    refine = known(k=4, d=12)
    found = refine.estimate(refine.mean_kd)
    apart = torch.cdist(found, refine.b_kd).detach()
    assert apart.argmin(1).tolist() == [0, 1, 2, 3]
    average = (refine.b_kd - refine.b_kd.mean(0)).norm(dim=1)
    assert (apart.diagonal() < 0.8 * average).all()


def test_a_batch_like_none_of_them_gets_the_average_vector():
    refine = known(k=3)
    shifts = refine.mean_kd - refine.mean_kd.mean(0)
    away = torch.linalg.svd(shifts)[2][-1]  # a direction in which known batches do not differ
    found = refine.estimate((refine.mean_kd.mean(0) + 50 * away)[None])
    torch.testing.assert_close(found[0], refine.b_kd.mean(0), atol=1e-4, rtol=0)


def test_a_batch_left_out_is_not_used():
    refine = known()
    left = torch.arange(4)
    found = refine.estimate(refine.mean_kd, left)
    mean, vector = refine.mean_kd.double().numpy(), refine.b_kd.detach().double().numpy()
    for k in range(4):
        others = np.arange(4) != k
        expected = ridge_by_hand(mean[others], vector[others], mean[k], k=4)
        np.testing.assert_allclose(found[k].detach(), expected, atol=1e-4)
        gradient = torch.autograd.grad(found[k].sum(), refine.b_kd, retain_graph=True)[0]
        assert (gradient[k] == 0).all() and (gradient[others] != 0).any()
    changed = known()
    with torch.no_grad():
        changed.b_kd[2] = 99.0
    torch.testing.assert_close(changed.estimate(refine.mean_kd, left)[2], found[2])
    assert not torch.allclose(changed.estimate(refine.mean_kd, left)[1], found[1])


def test_with_one_batch_there_is_but_its_vector():
    refine = known(k=1)
    torch.testing.assert_close(refine.estimate(normal(2, D)), refine.b_kd.expand(2, D))


def test_estimates_keep_full_precision_under_autocast():
    refine = known()
    exact = refine.estimate(refine.mean_kd)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(refine.estimate(refine.mean_kd.bfloat16().float()),
                           refine.estimate(refine.mean_kd.bfloat16()))  # fmt: skip
        assert torch.equal(refine.estimate(refine.mean_kd), exact)


# --- the network --------------------------------------------------------------------------

BRANCHES = (
    BranchSpec("rna", "expression", 0, 4),
    BranchSpec("rna", "features", 4, 7),
    BranchSpec("adt", "expression", 7, 9),
)


def network(**changes):
    torch.manual_seed(0)
    settings = Settings(backbone="none", n_latent=D, n_hidden=8, **changes)
    return Network(BRANCHES, 3, 4, {"rna": 4, "adt": 2}, settings).eval()


def test_branches_read_their_columns():
    net, x = network(), normal(4, 9)
    z = net(x, PRESENT, torch.zeros(4, D)).z_nmd
    for m, branch in enumerate(BRANCHES):
        torch.testing.assert_close(z[:, m], net.adapters[m](x[:, branch.start : branch.stop]))
    moved = x.clone()
    moved[:, 4:7] = normal(4, 3, seed=9)
    b = torch.zeros(4, D)
    change = net(moved, PRESENT, b).z_nd - net(x, PRESENT, b).z_nd
    assert (change.abs().sum(1) > 0).tolist() == PRESENT[:, 1].tolist()


def test_dropped_batches_are_estimated_without_themselves_and_have_equal_shares():
    net = network()
    with torch.no_grad():
        net.refine.b_kd.copy_(normal(3, D, seed=5))
    net.refine.mean_kd.copy_(normal(3, D, seed=4))
    batch, dropped = torch.tensor([0, 1, 1]), torch.tensor([False, False, True])
    found = net.batch_vectors(batch, dropped)
    torch.testing.assert_close(found[:2], net.refine.b_kd[:2])
    expected = net.refine.estimate(net.refine.mean_kd[[1]], torch.tensor([1]))
    torch.testing.assert_close(found[2], expected[0])
    shares = net.shares(batch, dropped)
    torch.testing.assert_close(shares, torch.tensor([[1.0, 0, 0], [0, 1, 0], [1 / 3] * 3]))


@pytest.mark.parametrize(
    ("changes", "fewer"),
    [
        ({"fusion": "mean"}, 3 * D),
        ({"refine_steps": 0}, 3 * D + 2 * D + (D * 2 * D + 2 * D) + (2 * D * D + D)),
        ({"likelihood": "nb"}, -6),
    ],
)
def test_switches_change_what_is_trained(changes, fewer):
    assert n_parameters(network()) - n_parameters(network(**changes)) == fewer


def test_adapter_and_decoder_are_what_they_say():
    adapter = Adapter(4, 8, D, 0.5).eval()
    x = normal(3, 4)
    hidden = torch.nn.functional.relu(adapter.down(torch.nn.functional.layer_norm(x, (4,))))
    torch.testing.assert_close(adapter(x), adapter.up(hidden))
    assert torch.equal(adapter(x), adapter(x))
    decoder, z = Decoder(D, 3, 8, 5), normal(3, D)
    equal = decoder(z, torch.full((3, 3), 1 / 3))
    batch = torch.nn.functional.one_hot(torch.arange(3), 3).float()
    one = torch.nn.functional.relu(decoder.latent(z) + decoder.batch.weight.T)
    torch.testing.assert_close(decoder(z, batch), decoder.out(one))
    mean = torch.nn.functional.relu(decoder.latent(z) + decoder.batch.weight.mean(1))
    torch.testing.assert_close(equal, decoder.out(mean))
