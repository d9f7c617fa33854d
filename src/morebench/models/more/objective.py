"""The objective of a training step: every term that applies, weighted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from morebench.errors import ConfigError, listed
from morebench.models.more import losses
from morebench.models.more.network import Embedded, Network
from morebench.models.more.settings import Settings

PROTOTYPE_SOFTNESS = 0.05  # of memberships, in units of the cosine
CONTRASTED = 512  # labelled cells of a step that the supervised contrast compares


@dataclass
class Step:
    """The cells of one training step; pairs stand behind the ``n_single`` sampled cells.

    Attributes
    ----------
    target
        By modality: what is reconstructed (n, g), and which cells have it (n,).
    library
        By modality, for counts: (n, 1) totals.
    label_n
        Class codes, -1 where hidden.
    """

    n_single: int
    batch_n: torch.Tensor
    batch_nk: torch.Tensor
    shares_nk: torch.Tensor
    label_n: torch.Tensor
    target: dict[str, tuple[torch.Tensor, torch.Tensor]]
    library: dict[str, torch.Tensor]


def check_terms(settings: Settings, n_batches: int, n_branches: int, n_classes: int) -> None:
    """Raise ConfigError where no term of weight above 0 applies to the data at all."""
    s, batches = settings, n_batches > 1
    applies = {
        "w_reconstruction": s.w_reconstruction,
        **{k: batches * getattr(s, k) for k in ("w_dense", "w_means", "w_prototype", "w_sparse")},
        "w_modalities": (n_branches > 1) * s.w_modalities,
        **{k: (n_classes > 0) * getattr(s, k) for k in ("w_classes", "w_contrast", "w_compact")},
    }
    if not any(applies.values()):
        raise ConfigError(
            f"no term of the objective applies to {n_batches} batches, {n_branches} branches and "
            f"{n_classes} classes; valid: one of {listed(applies)} above 0 that does"
        )


class Objective(torch.nn.Module):
    """Terms and their weights; ``prototypes_pd`` are set in the course of training."""

    def __init__(self, settings: Settings, class_weight_c: torch.Tensor | None) -> None:
        super().__init__()
        s = self.settings = settings
        self.weight = losses.LossWeights(
            {
                "reconstruction": s.w_reconstruction,
                "dense": s.w_dense,
                "means": s.w_means,
                "prototype": s.w_prototype,
                "sparse": s.w_sparse,
                "modalities": s.w_modalities,
                "classes": s.w_classes,
                "contrast": s.w_contrast,
                "compact": s.w_compact,
            },
            s.loss_weights == "learned",
        )
        self.class_weight_c = class_weight_c
        self.prototypes_pd: torch.Tensor | None = None

    def forward(self, network: Network, cells: Embedded, step: Step) -> torch.Tensor:
        """Return the weighted sum of the terms that apply to this step."""
        # Distances and logarithms need full precision, also where the network had less.
        with torch.autocast(cells.z_nd.device.type, enabled=False):
            terms = self.terms(network, cells, step)
            return self.weight(terms) if terms else cells.z_nd.sum() * 0

    def terms(self, network: Network, cells: Embedded, step: Step) -> dict[str, torch.Tensor]:
        """Return every term of weight above 0 that has cells to act on, unweighted."""
        used, s = self.weight.weights, self.settings
        found: dict[str, torch.Tensor] = {}
        z_nd = cells.z_nd.float()
        single_nd, batch_nk = z_nd[: step.n_single], step.batch_nk[: step.n_single]
        logit_nc = network.classifier(z_nd) if network.classifier is not None else None
        if "reconstruction" in used:
            found["reconstruction"] = self._reconstruction(network, cells, step)
        if step.batch_nk.shape[1] > 1:
            if "dense" in used:
                found["dense"] = losses.batch_discrepancy(single_nd, batch_nk)
            if "prototype" in used and self.prototypes_pd is not None:
                member_np = self._memberships(single_nd, logit_nc, step)
                found["prototype"] = losses.batch_discrepancy(single_nd, batch_nk, member_np)
            if "means" in used:
                found["means"] = losses.batch_means(single_nd, batch_nk)
            if "sparse" in used and len(z_nd) > step.n_single:
                a_nd, b_nd = z_nd[step.n_single :].chunk(2)
                found["sparse"] = losses.pair_contrast(a_nd, b_nd, s.temperature)
        if "modalities" in used and cells.z_nmd.shape[1] > 1:
            found["modalities"] = losses.modality_alignment(cells.z_nmd.float(), cells.present_nm)
        shown = torch.nonzero(step.label_n >= 0)[:, 0]
        if logit_nc is not None and len(shown):
            found |= self._of_labels(z_nd[shown], logit_nc[shown], step.label_n[shown])
        return found

    def _of_labels(
        self, z_nd: torch.Tensor, logit_nc: torch.Tensor, label_n: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Terms of cells whose label is shown."""
        used, found = self.weight.weights, {}
        if "classes" in used:
            found["classes"] = F.cross_entropy(logit_nc, label_n, self.class_weight_c)
        if "contrast" in used:
            found["contrast"] = losses.supervised_contrast(
                z_nd[:CONTRASTED], label_n[:CONTRASTED], self.settings.temperature
            )
        if "compact" in used:
            found["compact"] = losses.intra_class_variance(z_nd, label_n, logit_nc.shape[1])
        return found

    def _memberships(
        self, z_nd: torch.Tensor, logit_nc: torch.Tensor | None, step: Step
    ) -> torch.Tensor:
        """Classes where there are labels (the predicted ones of hidden cells), else prototypes."""
        with torch.no_grad():
            if logit_nc is not None:
                member_nc = logit_nc[: len(z_nd)].softmax(1)
                label_n = step.label_n[: len(z_nd)]
                shown_nc = F.one_hot(label_n.clamp(min=0), member_nc.shape[1]).to(z_nd.dtype)
                return torch.where((label_n >= 0)[:, None], shown_nc, member_nc)
            assert self.prototypes_pd is not None
            cosine_np = F.normalize(z_nd, dim=1) @ self.prototypes_pd.T
            return (cosine_np / PROTOTYPE_SOFTNESS).softmax(1)

    def _reconstruction(self, network: Network, cells: Embedded, step: Step) -> torch.Tensor:
        """Mean over modalities of the loss on the cells that have the modality."""
        parts = []
        for name, (target_ng, has_n) in step.target.items():
            out_ng = network.decoders[name](cells.z_nd.float(), step.shares_nk)
            if self.settings.likelihood == "nb":
                mean_ng = out_ng.softmax(1) * step.library[name]
                if has_n.any():
                    parts.append(
                        losses.negative_binomial(
                            target_ng[has_n], mean_ng[has_n], network.dispersion[name]
                        )
                    )
            else:
                error_n = ((out_ng - target_ng) ** 2).mean(1)
                parts.append((error_n * has_n).sum() / has_n.sum().clamp(min=1))
        return torch.stack(parts).mean() if parts else cells.z_nd.sum() * 0
