"""The trained part of MoRE: branches in, embedding, class scores and reconstruction out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from morebench.models.more.layers import Adapter, Decoder, Fusion, Refine
from morebench.models.more.settings import Settings


@dataclass(frozen=True)
class BranchSpec:
    """One input of the network: columns ``start`` to ``stop`` of the inputs."""

    modality: str
    kind: str
    start: int
    stop: int


@dataclass
class Embedded:
    """What the network makes of cells."""

    z_nd: torch.Tensor
    fused_nd: torch.Tensor
    z_nmd: torch.Tensor
    present_nm: torch.Tensor


class Network(nn.Module):
    """Adapters, fusion, refinement, decoders, classifier, and the axes of what is given out.

    Parameters
    ----------
    branches
        In the order of the inputs' columns.
    n_batches, n_classes
        Classes may be 0.
    decoded
        Width of each modality's reconstruction.
    """

    centre_d: torch.Tensor
    axes_dd: torch.Tensor

    def __init__(
        self,
        branches: Sequence[BranchSpec],
        n_batches: int,
        n_classes: int,
        decoded: dict[str, int],
        settings: Settings,
    ) -> None:
        super().__init__()
        self.branches = tuple(branches)
        self.n_batches = n_batches
        d, h = settings.n_latent, settings.n_hidden
        self.adapters = nn.ModuleList(
            Adapter(b.stop - b.start, h, d, settings.dropout) for b in branches
        )
        self.fusion = Fusion(len(branches), d, settings.fusion == "adaptive")
        self.refine = Refine(d, n_batches, settings.refine_steps)
        self.decoders = nn.ModuleDict(
            {name: Decoder(d, n_batches, h, width) for name, width in decoded.items()}
        )
        self.classifier = nn.Linear(d, n_classes) if n_classes else None
        self.register_buffer("centre_d", torch.zeros(d))
        self.register_buffer("axes_dd", torch.eye(d))
        self.dispersion = nn.ParameterDict()
        if settings.likelihood == "nb":
            for name, width in decoded.items():
                self.dispersion[name] = nn.Parameter(torch.zeros(width))

    def fuse(self, x_np: torch.Tensor, present_nm: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the fused embedding (n, d) and that of each branch (n, m, d)."""
        z_nmd = torch.stack(
            [
                adapter(x_np[:, b.start : b.stop])
                for adapter, b in zip(self.adapters, self.branches, strict=True)
            ],
            dim=1,
        )
        return self.fusion(z_nmd, present_nm), z_nmd

    def forward(self, x_np: torch.Tensor, present_nm: torch.Tensor, b_nd: torch.Tensor) -> Embedded:
        """Embed cells, given their branches and batch vectors."""
        fused_nd, z_nmd = self.fuse(x_np, present_nm)
        return Embedded(self.refine(fused_nd, b_nd), fused_nd, z_nmd, present_nm)

    def along_axes(self, z_nd: torch.Tensor) -> torch.Tensor:
        """Return the embedding that is given out: z along the axes found after training."""
        return (z_nd - self.centre_d) @ self.axes_dd

    def batch_vectors(self, batch_n: torch.Tensor, dropped_n: torch.Tensor) -> torch.Tensor:
        """Return (n, d): learned batch vectors; estimates for cells whose batch is dropped."""
        b_nd = self.refine.b_kd[batch_n]
        if not dropped_n.any():
            return b_nd
        every_k = torch.arange(self.n_batches, device=batch_n.device)
        guess_kd = self.refine.estimate(self.refine.mean_kd, every_k)
        return torch.where(dropped_n[:, None], guess_kd[batch_n], b_nd)

    def shares(self, batch_n: torch.Tensor, dropped_n: torch.Tensor) -> torch.Tensor:
        """Return (n, k): one-hot batches, equal shares where the batch is dropped."""
        one_hot_nk = F.one_hot(batch_n, self.n_batches).to(torch.float32)
        return torch.where(dropped_n[:, None], 1 / self.n_batches, one_hot_nk)


def n_parameters(module: nn.Module) -> int:
    """Return the number of parameters that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
