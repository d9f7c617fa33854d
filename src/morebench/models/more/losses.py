"""Terms of the objective: each takes tensors and returns a scalar."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

BANDWIDTHS = (0.1, 0.3, 1.0)
LEAST_WEIGHT = 0.5  # cells' worth of a batch in a prototype, below which it says nothing


class _KernelSum(torch.autograd.Function):
    """Sum of C * K(z), K a mixture of Gaussian kernels over the median squared distance.

    Written out, gradient and all, since it is most of a step: K needs a few passes over (n, n)
    here, some dozens where every operation is recorded. C and the median are constants.
    """

    @staticmethod
    def forward(ctx: Any, z_nd: torch.Tensor, coefficient_nn: torch.Tensor) -> torch.Tensor:
        square_n = (z_nd * z_nd).sum(1)
        distance_nn = torch.addmm(square_n[:, None] + square_n[None], z_nd, z_nd.T, alpha=-2)
        distance_nn.clamp_(min=0)
        median = distance_nn.flatten()[:: max(1, len(z_nd) // 64)].median() + 1e-6
        # exp(-d/.1), exp(-d/.3), exp(-d): two exponentials and a power
        slow_nn = torch.exp(distance_nn * (-1 / median))
        third_nn = distance_nn.mul_(-1 / (median * BANDWIDTHS[1])).exp_()
        fast_nn = third_nn**3
        total = (coefficient_nn * (slow_nn + third_nn + fast_nn)).sum()
        slope_nn = slow_nn.add_(third_nn, alpha=1 / BANDWIDTHS[1])
        slope_nn.add_(fast_nn, alpha=1 / BANDWIDTHS[0]).mul_(coefficient_nn).mul_(-1 / median)
        ctx.save_for_backward(z_nd, slope_nn)
        return total

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        z_nd, slope_nn = ctx.saved_tensors
        row_n1 = (slope_nn.sum(0) + slope_nn.sum(1))[:, None]
        moved_nd = row_n1 * z_nd - slope_nn @ z_nd - slope_nn.T @ z_nd
        return 2 * gradient[0] * moved_nd, None


def batch_discrepancy(
    z_nd: torch.Tensor, batch_nk: torch.Tensor, member_np: torch.Tensor | None = None
) -> torch.Tensor:
    """Dense alignment: maximum mean discrepancy of each batch to the rest.

    With memberships, the discrepancy is taken inside every prototype (or class) and
    averaged by the weight that batches have there, so that batches of different
    composition are not forced together (Gretton et al. 2012, JMLR 13, 723-773, eq. 5).

    Parameters
    ----------
    z_nd : (n, d)
    batch_nk : (n, k)
        One-hot batches.
    member_np : (n, p), optional
        Soft memberships of prototypes.
    """
    if member_np is None:
        member_np = torch.ones(len(batch_nk), 1).to(batch_nk)
    return _KernelSum.apply(z_nd, _coefficients(batch_nk, member_np))


@torch.no_grad()
def _coefficients(batch_nk: torch.Tensor, member_np: torch.Tensor) -> torch.Tensor:
    """Return (n, n): what every entry of a symmetric kernel counts for in the discrepancy.

    The discrepancy is linear in the kernel. In prototype p, eq. 5 gives two cells of batches
    a != b the factor S_p - c_pa - c_pb, and two cells of the same batch a that of a = b plus
    e_pa; with memberships at both ends this is two products of width p. So nothing but the
    kernel needs a gradient.
    """
    count_pk = member_np.T @ batch_nk
    rest_pk = count_pk.sum(1, keepdim=True) - count_pk
    share_pk = count_pk * ((count_pk > LEAST_WEIGHT) & (rest_pk > LEAST_WEIGHT))
    if len(share_pk) == 1:
        share_pk = (share_pk > 0).to(share_pk)  # every batch counts alike, also a small one
    share_pk = share_pk / share_pk.sum().clamp(min=1e-6)
    own_pk = share_pk / count_pk.clamp(min=1e-3) ** 2
    others_pk = share_pk / rest_pk.clamp(min=1e-3) ** 2
    between_pk = share_pk / (count_pk * rest_pk).clamp(min=1e-3)
    c_pk, e_pk = others_pk + between_pk, own_pk + others_pk + 2 * between_pk
    apart_np = member_np * (others_pk.sum(1) - 2 * batch_nk @ c_pk.T)
    same_np = member_np * (batch_nk @ e_pk.T)
    return apart_np @ member_np.T + (same_np @ member_np.T) * (batch_nk @ batch_nk.T)


def batch_means(z_nd: torch.Tensor, batch_nk: torch.Tensor) -> torch.Tensor:
    """Dense alignment, first moment: variance between batches' means, as a share of all.

    Less what the means of a step's cells differ by chance, (k - 1) / n of the variance inside
    batches: else cells would be drawn together, the more the smaller the step (the correction
    of omega squared; Hays 1963). Its mean over steps is 0 where the batches have one mean.
    """
    n, count_k = len(z_nd), batch_nk.sum(0)
    k = (count_k > 0).sum()
    mean_kd = batch_nk.T @ z_nd / count_k.clamp(min=1)[:, None]
    between = (count_k[:, None] * (mean_kd - z_nd.mean(0)) ** 2).sum() / n
    inside = ((z_nd - batch_nk @ mean_kd) ** 2).sum() / (n - k).clamp(min=1)
    chance = (k - 1) / n * inside
    return (between - chance) / z_nd.detach().var(0).sum().clamp(min=1e-6)


def pair_contrast(a_nd: torch.Tensor, b_nd: torch.Tensor, temperature: float) -> torch.Tensor:
    """Sparse alignment: InfoNCE over pairs, both ways (van den Oord et al. 2018, eq. 4)."""
    similar_nn = F.normalize(a_nd, dim=1) @ F.normalize(b_nd, dim=1).T / temperature
    target_n = torch.arange(len(a_nd), device=a_nd.device)
    both = F.cross_entropy(similar_nn, target_n) + F.cross_entropy(similar_nn.T, target_n)
    return both / 2


def supervised_contrast(
    z_nd: torch.Tensor, label_n: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Supervised contrastive loss over labelled cells (Khosla et al. 2020, eq. 2)."""
    unit_nd = F.normalize(z_nd, dim=1)
    n = len(z_nd)
    own_nn = torch.eye(n, dtype=torch.bool, device=z_nd.device)
    similar_nn = (unit_nd @ unit_nd.T / temperature).masked_fill(own_nn, -1e9)
    log_nn = similar_nn - similar_nn.logsumexp(1, keepdim=True)
    same_nn = (label_n[:, None] == label_n[None]) & ~own_nn
    count_n = same_nn.sum(1)
    some_n = count_n > 0
    if not some_n.any():
        return z_nd.sum() * 0
    return -((log_nn * same_nn).sum(1)[some_n] / count_n[some_n]).mean()


def intra_class_variance(z_nd: torch.Tensor, label_n: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Mean over classes of the variance inside a class (eq. 9), as a share of all variance."""
    one_hot_nc = F.one_hot(label_n, n_classes).to(z_nd.dtype)
    count_c = one_hot_nc.sum(0)
    mean_cd = one_hot_nc.T @ z_nd / count_c.clamp(min=1)[:, None]
    spread_n = ((z_nd - mean_cd[label_n]) ** 2).sum(1)
    within_c = one_hot_nc.T @ spread_n / count_c.clamp(min=1)
    several_c = count_c > 1
    if not several_c.any():
        return z_nd.sum() * 0
    return within_c[several_c].mean() / z_nd.detach().var(0).sum().clamp(min=1e-6)


def modality_alignment(z_nmd: torch.Tensor, present_nm: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of a cell's branches to their mean, for any number of them.

    Branches that a cell lacks take no part; with one branch there is nothing to align.
    """
    count_n1 = present_nm.sum(1, keepdim=True)
    z_nmd = z_nmd.masked_fill(~present_nm[..., None], 0)
    mean_nd = z_nmd.sum(1) / count_n1.clamp(min=1)
    apart_nm = ((z_nmd - mean_nd[:, None]) ** 2).mean(2)
    several_nm = present_nm & (count_n1 > 1)
    return (apart_nm * several_nm).sum() / several_nm.sum().clamp(min=1)


def negative_binomial(
    counts_ng: torch.Tensor, mean_ng: torch.Tensor, log_dispersion_g: torch.Tensor
) -> torch.Tensor:
    """Mean negative log likelihood of counts, variance mean + mean^2 / dispersion."""
    theta_g = log_dispersion_g.exp()
    mean_ng = mean_ng + 1e-8
    log_sum_ng = torch.log(theta_g + mean_ng)
    likelihood_ng = (
        torch.lgamma(counts_ng + theta_g)
        - torch.lgamma(theta_g)
        - torch.lgamma(counts_ng + 1)
        + theta_g * (log_dispersion_g - log_sum_ng)
        + counts_ng * (mean_ng.log() - log_sum_ng)
    )
    return -likelihood_ng.mean()


class LossWeights(torch.nn.Module):
    """Weights of the terms: fixed, or learned around them by homoscedastic uncertainty.

    Learned: sum of w exp(-s) L + s / 2 (Kendall et al. 2018, eq. 10), s = 0 at the start.
    """

    def __init__(self, weights: dict[str, float], learned: bool) -> None:
        super().__init__()
        self.weights = {name: w for name, w in weights.items() if w > 0}
        self.s = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(torch.zeros(())) for name in self.weights if learned}
        )

    def forward(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of the terms."""
        total = torch.zeros((), device=next(iter(terms.values())).device)
        for name, term in terms.items():
            weighted = self.weights[name] * term
            if name in self.s:
                weighted = weighted * torch.exp(-self.s[name]) + self.s[name] / 2
            total = total + weighted
        return total
