"""Training of the network: one loop for both tracks, on a CPU or a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from morebench.models.more.cells import Cells
from morebench.models.more.inputs import Inputs
from morebench.models.more.network import Network
from morebench.models.more.optimiser import AdamW
from morebench.models.more.settings import Settings
from morebench.models.more.trainer import Trainer

Progress = Callable[[int, int], None]
MAX_GRADIENT = 5.0
PROTOTYPES_AT = (0.3, 0.6)  # shares of training after which prototypes are found anew
REMEMBER_EVERY = 50  # steps between refreshed means of the batches
EMBED_AT_ONCE = 16_384


def n_steps(n_cells: int, settings: Settings) -> int:
    """Return the number of training steps: the least number, or that of the least epochs."""
    an_epoch = math.ceil(n_cells / min(settings.batch_size, n_cells))
    return max(settings.steps, settings.min_epochs * an_epoch)


def fit_network(
    inputs: Inputs,
    cells: Cells,
    batch_n: np.ndarray,
    label_n: np.ndarray,
    n_classes: int,
    settings: Settings,
    *,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Network:
    """Train the network.

    Parameters
    ----------
    batch_n : (n,) int
        Codes 0 to k - 1, every one of them present.
    label_n : (n,) int
        Class codes; -1 where the label is hidden. ``n_classes`` 0: no labels at all.
    progress
        Called with the steps done and all steps.
    """
    torch.manual_seed(seed)
    trainer = Trainer(inputs, cells, batch_n, label_n, n_classes, settings, seed, device)
    total = n_steps(len(batch_n), settings)
    network, objective = trainer.network, trainer.objective
    parameters = [p for p in [*network.parameters(), *objective.parameters()] if p.requires_grad]
    optimiser = AdamW(parameters, settings.learning_rate, settings.weight_decay, total + 1)
    network.train()
    renew = {int(total * share) for share in PROTOTYPES_AT}
    for done, rows in enumerate(trainer.batches(total)):
        if done % REMEMBER_EVERY == 0:
            trainer.remember_batches()
        if done in renew and settings.w_prototype > 0:
            trainer.find_prototypes()
        with autocast(device):
            loss = objective(network, *trainer.step(rows))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT)
        optimiser.step()
        if progress is not None:
            progress(done + 1, total)
    trainer.remember_batches()
    if settings.axes and not n_classes:  # labels have made the types compact already
        trainer.find_axes()
    return network.eval()


def autocast(device: str) -> AbstractContextManager[object]:
    """Return bfloat16 autocast on a GPU; full precision elsewhere."""
    if device.startswith("cuda"):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def embed(
    network: Network, inputs: Inputs, b_nd: torch.Tensor, *, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the embedding (n, d) and the fused embedding before refinement, as float32."""
    found: list[np.ndarray] = []
    before: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(inputs.x_np), EMBED_AT_ONCE):
            rows = slice(start, start + EMBED_AT_ONCE)
            x_np = torch.as_tensor(inputs.x_np[rows], device=device)
            present_nm = torch.as_tensor(inputs.present_nm[rows], device=device)
            with autocast(device):
                cells = network(x_np, present_nm, b_nd[rows])
            found.append(cells.z_nd.float().cpu().numpy())
            before.append(cells.fused_nd.float().cpu().numpy())
    return np.concatenate(found), np.concatenate(before)
