"""The trained layers of MoRE: adapters, fusion (eq. 7), refinement (eq. 8), decoder."""

from __future__ import annotations

import torch
from torch import nn


class Drop(nn.Module):
    """Dropout by uniform numbers: several times as fast as torch's own on a CPU."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with a share of its entries 0 and the others scaled up, in training."""
        if not self.training or self.share == 0:
            return x
        return x * (torch.rand_like(x) >= self.share) / (1 - self.share)


class Adapter(nn.Module):
    """LayerNorm, bottleneck, latent width: one for each branch."""

    def __init__(self, n_in: int, n_hidden: int, n_latent: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_in)
        self.down = nn.Linear(n_in, n_hidden)
        self.drop = Drop(dropout)
        self.up = nn.Linear(n_hidden, n_latent)

    def forward(self, x_np: torch.Tensor) -> torch.Tensor:
        """Return (n, d)."""
        return self.up(self.drop(nn.functional.relu(self.down(self.norm(x_np)))))


class Fusion(nn.Module):
    """Task-adaptive fusion (eq. 7): z_f = sum_m w_m * z_m, element-wise.

    The weights are a softmax over the branches that a cell has, so that those of a cell
    with a missing modality still sum to 1. ``adaptive=False`` is the plain mean.
    """

    def __init__(self, n_branches: int, n_latent: int, adaptive: bool) -> None:
        super().__init__()
        self.logit_md = nn.Parameter(torch.zeros(n_branches, n_latent), requires_grad=adaptive)

    def forward(self, z_nmd: torch.Tensor, present_nm: torch.Tensor) -> torch.Tensor:
        """Return (n, d) of the branches (n, m, d) that cells have (n, m)."""
        if z_nmd.shape[1] == 1:
            return z_nmd[:, 0]
        logit_nmd = self.logit_md.masked_fill(~present_nm[..., None], -torch.inf)
        return (logit_nmd.softmax(1) * z_nmd.masked_fill(~present_nm[..., None], 0)).sum(1)


class Refine(nn.Module):
    """Iterative batch refinement (eq. 8): z <- z + f(z - b), T steps, then z - b.

    f starts as zero, so that training starts from the fused embedding. b is learned for
    every batch of the fit; ``estimate`` serves a batch never seen.
    """

    mean_kd: torch.Tensor

    def __init__(self, n_latent: int, n_batches: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.b_kd = nn.Parameter(torch.zeros(n_batches, n_latent), requires_grad=steps > 0)
        self.step = nn.Sequential(
            nn.LayerNorm(n_latent),
            nn.Linear(n_latent, 2 * n_latent),
            nn.ReLU(),
            nn.Linear(2 * n_latent, n_latent),
        )
        for parameter in self.step[-1].parameters():
            nn.init.zeros_(parameter)
        self.step.requires_grad_(steps > 0)
        self.register_buffer("mean_kd", torch.zeros(n_batches, n_latent))

    def forward(self, z_nd: torch.Tensor, b_nd: torch.Tensor) -> torch.Tensor:
        """Return (n, d), given the batch vector of every cell."""
        if self.steps == 0:
            return z_nd
        for _ in range(self.steps):
            z_nd = z_nd + self.step(z_nd - b_nd)
        return z_nd - b_nd

    @torch.no_grad()
    def remember(self, z_nd: torch.Tensor, batch_n: torch.Tensor) -> None:
        """Keep the mean of every batch's cells before refinement, for ``estimate``."""
        one_hot_nk = nn.functional.one_hot(batch_n, len(self.b_kd)).to(z_nd.dtype)
        count_k = one_hot_nk.sum(0).clamp(min=1)
        mean_kd = one_hot_nk.T @ z_nd / count_k[:, None]
        seen_k = one_hot_nk.any(0)
        self.mean_kd[seen_k] = mean_kd[seen_k].to(self.mean_kd.dtype)

    def estimate(self, mean_qd: torch.Tensor, left_out: torch.Tensor | None = None) -> torch.Tensor:
        """Return (q, d): batch vectors of batches never seen, from the means of their cells.

        The shift of a batch's mean from the average batch is written as a combination of
        the known batches' shifts (ridge regression), and the same combination of the known
        vectors is returned; so a batch like none of them gets the average vector.

        Parameters
        ----------
        mean_qd
            Means of the batches' cells before refinement.
        left_out : (q,) int64
            A known batch that is not to be used for each one: how training practises.
        """
        # The solver has no half precision, and would lose the shifts in it.
        with torch.autocast(mean_qd.device.type, enabled=False):
            return self._estimate(mean_qd.float(), left_out)

    def _estimate(self, mean_qd: torch.Tensor, left_out: torch.Tensor | None) -> torch.Tensor:
        use_qk = torch.ones(len(mean_qd), len(self.b_kd), device=mean_qd.device)
        if left_out is not None:
            use_qk.scatter_(1, left_out[:, None], 0.0)
        count_q1 = use_qk.sum(1, keepdim=True).clamp(min=1)
        m_qd, b_qd = use_qk @ self.mean_kd / count_q1, use_qk @ self.b_kd / count_q1
        m_qkd = (self.mean_kd[None] - m_qd[:, None]) * use_qk[..., None]
        b_qkd = (self.b_kd[None] - b_qd[:, None]) * use_qk[..., None]
        gram_qkk = m_qkd @ m_qkd.transpose(1, 2)
        ridge_q = gram_qkk.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-6)
        gram_qkk = gram_qkk + ridge_q[:, None, None] * torch.eye(len(self.b_kd)).to(mean_qd)
        right_qk1 = m_qkd @ (mean_qd - m_qd)[..., None]
        weight_qk = torch.linalg.solve(gram_qkk, right_qk1)[..., 0]
        return b_qd + (weight_qk[..., None] * b_qkd).sum(1)


class Decoder(nn.Module):
    """Reconstruction of a modality from the embedding and the batch."""

    def __init__(self, n_latent: int, n_batches: int, n_hidden: int, n_out: int) -> None:
        super().__init__()
        self.batch = nn.Linear(n_batches, n_hidden, bias=False)
        self.latent = nn.Linear(n_latent, n_hidden)
        self.out = nn.Linear(n_hidden, n_out)

    def forward(self, z_nd: torch.Tensor, batch_nk: torch.Tensor) -> torch.Tensor:
        """Return (n, g); ``batch_nk`` are shares of batches, one-hot where it is known."""
        return self.out(nn.functional.relu(self.latent(z_nd) + self.batch(batch_nk)))
