"""A training run's tensors, and the steps, prototypes and axes that are made of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from morebench.models.more.axes import fit_axes
from morebench.models.more.cells import Cells
from morebench.models.more.clusters import k_means
from morebench.models.more.inputs import EXPRESSION_KIND, Inputs
from morebench.models.more.neighbors import unit
from morebench.models.more.network import Embedded, Network
from morebench.models.more.objective import Objective, Step, check_terms
from morebench.models.more.settings import Settings
from morebench.models.more.structure import mutual_pairs

SAMPLE = 5_000  # cells that prototypes and batch means are taken from
AXES_SAMPLE = 20_000  # cells that the axes are taken from
PAIRS_PER = 4  # a step has one mutual pair for so many of its cells


class Trainer:
    """The tensors of a training run, and the steps made of them."""

    def __init__(
        self,
        inputs: Inputs,
        cells: Cells,
        batch_n: np.ndarray,
        label_n: np.ndarray,
        n_classes: int,
        settings: Settings,
        seed: int,
        device: str,
    ) -> None:
        self.settings, self.device, self.cells, self.seed = settings, device, cells, seed
        self.rng = np.random.default_rng(seed)
        self.noise = torch.Generator(device).manual_seed(seed)
        self.branches = inputs.branches
        self.x_np = torch.as_tensor(inputs.x_np, device=device)
        self.present_nm = torch.as_tensor(inputs.present_nm, device=device)
        self.batch_n = torch.as_tensor(batch_n, device=device).long()
        self.label_n = torch.as_tensor(label_n, device=device).long()
        self.n_batches = int(batch_n.max()) + 1
        self.targets = {b.modality: b for b in inputs.branches if b.kind == EXPRESSION_KIND}
        self.modality_m = np.unique([b.modality for b in inputs.branches], return_inverse=True)[1]
        check_terms(settings, self.n_batches, len(self.branches), n_classes)
        self.pairs = self._pairs(inputs, cells)
        self.network = Network(
            inputs.branches,
            self.n_batches,
            n_classes,
            {name: self._decoded(name) for name in self.targets},
            settings,
        ).to(device)
        self.objective = Objective(settings, self._class_weights(n_classes)).to(device)

    def _decoded(self, name: str) -> int:
        branch = self.targets[name]
        if self.settings.likelihood == "nb":
            return self.cells.modalities[name].counts_ng.shape[1]
        return branch.stop - branch.start

    def _pairs(self, inputs: Inputs, cells: Cells) -> np.ndarray:
        """Mutual pairs in every modality's expression branch, of the cells that have it."""
        found = [np.empty((0, 2), dtype=np.int64)]
        if self.settings.w_sparse > 0 and self.n_batches > 1:
            for name, branch in self.targets.items():
                has = np.flatnonzero(cells.modalities[name].present)
                x_np = inputs.x_np[has, branch.start : branch.stop]
                pairs = mutual_pairs(x_np, cells.batch[has], self.settings.n_pairs, seed=self.seed)
                found.append(has[pairs])
        return np.concatenate(found)

    def _class_weights(self, n_classes: int) -> torch.Tensor | None:
        """Inverse square roots of class sizes, mean 1 over cells: rare classes survive."""
        if not n_classes:
            return None
        count_c = torch.bincount(self.label_n[self.label_n >= 0], minlength=n_classes).float()
        weight_c = count_c.clamp(min=1).rsqrt()
        return weight_c * count_c.sum() / (weight_c * count_c).sum()

    def batches(self, total: int) -> Iterator[np.ndarray]:
        """Yield the rows of each step: no cell twice an epoch, in a new order each time.

        What is left at the end of an epoch and fills no step is dropped.
        """
        n = len(self.batch_n)
        size = min(self.settings.batch_size, n)
        order, at = self.rng.permutation(n), 0
        for _ in range(total):
            if at + size > n:
                order, at = self.rng.permutation(n), 0
            yield order[at : at + size]
            at += size

    def step(self, rows: np.ndarray) -> tuple[Embedded, Step]:
        """Run the network on the rows and on mutual pairs."""
        s, n_single = self.settings, len(rows)
        if len(self.pairs):
            drawn = self.pairs[self.rng.integers(0, len(self.pairs), s.batch_size // PAIRS_PER)]
            rows = np.concatenate([rows, drawn[:, 0], drawn[:, 1]])
        at = torch.as_tensor(rows, device=self.device)
        x_np, present_nm, batch_n = self.x_np[at], self.present_nm[at], self.batch_n[at]
        if s.modality_dropout and len(self.targets) > 1:
            present_nm = self._without_a_modality(present_nm)
        masked_np = x_np
        if s.mask:
            keep = torch.rand(x_np.shape, generator=self.noise, device=self.device) >= s.mask
            masked_np = x_np * keep
        dropped_n = torch.rand(len(at), generator=self.noise, device=self.device) < s.batch_dropout
        if self.n_batches < 2:
            dropped_n = torch.zeros_like(dropped_n)
        b_nd = self.network.batch_vectors(batch_n, dropped_n)
        embedded = self.network(masked_np, present_nm, b_nd)
        target, library = {}, {}
        for name, branch in self.targets.items():
            has_n = self.present_nm[at, self.branches.index(branch)]
            values_ng = x_np[:, branch.start : branch.stop]
            if s.likelihood == "nb":
                counts = self.cells.modalities[name].counts_ng[rows].toarray()
                values_ng = torch.as_tensor(counts, device=self.device)
                library[name] = values_ng.sum(1, keepdim=True)
            target[name] = (values_ng, has_n)
        no_batch = torch.zeros_like(dropped_n)
        return embedded, Step(
            n_single,
            batch_n,
            self.network.shares(batch_n, no_batch),
            self.network.shares(batch_n, dropped_n),
            self.label_n[at],
            target,
            library,
        )

    def _without_a_modality(self, present_nm: torch.Tensor) -> torch.Tensor:
        """Hide one modality of some cells; a cell's last one stays."""
        n, names = len(present_nm), len(self.targets)
        lost_n = torch.randint(0, names, (n,), generator=self.noise, device=self.device)
        chosen_n = torch.rand(n, generator=self.noise, device=self.device)
        of_branch_m = torch.as_tensor(self.modality_m, device=self.device)
        hide_nm = (of_branch_m[None] == lost_n[:, None]) & (
            chosen_n < self.settings.modality_dropout
        )[:, None]
        left_nm = present_nm & ~hide_nm
        return torch.where(left_nm.any(1, keepdim=True), left_nm, present_nm)

    def _sample(self, at_most: int) -> torch.Tensor:
        n = len(self.batch_n)
        rows = self.rng.choice(n, min(n, at_most), replace=False)
        return torch.as_tensor(np.sort(rows), device=self.device)

    @torch.no_grad()
    def remember_batches(self) -> None:
        """Refresh the batches' means, which estimates of unseen batches rest on."""
        rows = self._sample(SAMPLE)
        self.network.eval()
        fused_nd, _ = self.network.fuse(self.x_np[rows], self.present_nm[rows])
        self.network.refine.remember(fused_nd, self.batch_n[rows])
        self.network.train()

    def find_prototypes(self) -> None:
        """Cluster a sample of the present embedding: the prototypes of the dense alignment."""
        unit_nd = unit(self._embedded(self._sample(SAMPLE)))
        clusters = self._clusters(unit_nd)
        if clusters is not None:
            centres_pd = torch.as_tensor(unit(clusters[0]), device=self.device)
            self.objective.prototypes_pd = centres_pd

    def find_axes(self) -> None:
        """Find the axes that the trained embedding is given out along."""
        rows, s = self._sample(AXES_SAMPLE), self.settings
        z_nd = self._embedded(rows)
        clusters = self._clusters(unit(z_nd))
        if clusters is None:
            return
        batch_n = self.batch_n[rows].cpu().numpy()
        centre_d, axes_dd = fit_axes(
            z_nd, batch_n, clusters[1], power=s.axes_power, batches=s.axes_batches
        )
        self.network.centre_d.copy_(torch.as_tensor(centre_d))
        self.network.axes_dd.copy_(torch.as_tensor(axes_dd))

    def _clusters(self, unit_nd: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return prototypes of cells, and the cells' prototypes; None of too few cells."""
        k = min(self.settings.n_prototypes, len(unit_nd) // 4)
        return k_means(unit_nd, k, seed=self.seed) if k > 1 else None

    @torch.no_grad()
    def _embedded(self, rows: torch.Tensor) -> np.ndarray:
        """Return the present embedding of some cells, each with its own batch."""
        self.network.eval()
        b_nd = self.network.refine.b_kd[self.batch_n[rows]]
        z_nd = self.network(self.x_np[rows], self.present_nm[rows], b_nd).z_nd
        self.network.train()
        return z_nd.float().cpu().numpy()
