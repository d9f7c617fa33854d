"""Masked-expression training: hide values of genes, predict them from the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from morebench.errors import ConfigError, DataError
from morebench.models.scgpt.network import ScGPT
from morebench.models.scgpt.tokens import MASK_VALUE, PAD_VALUE, Tokens, collate
from morebench.models.scgpt.vocabulary import Vocabulary

MAX_GRADIENT = 1.0


@dataclass(frozen=True)
class Training:
    """How the network is trained; the registry says what is usual.

    Attributes
    ----------
    mask_ratio
        Share of a cell's genes whose value is hidden, above 0 and below 1.
    max_length
        Tokens of a cell in a step at most, <cls> included.
    steps, batch_size, learning_rate
        Of the optimiser (Adam, one cycle).
    """

    mask_ratio: float
    max_length: int
    steps: int
    batch_size: int
    learning_rate: float

    def check(self) -> None:
        """Raise ConfigError where a number makes no sense."""
        for name in ("steps", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: found {getattr(self, name)}; valid: above 0")
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio: found {self.mask_ratio}; valid: above 0, below 1")


def choose_masked(
    gene_bl: torch.Tensor, pad: int, ratio: float, rng: torch.Generator
) -> torch.Tensor:
    """Choose the genes whose values are hidden: a share of each cell's, at least one.

    Parameters
    ----------
    gene_bl : (b, l) tensor of int64
        <cls>, genes, padding.

    Returns
    -------
    (b, l) tensor of bool
        Never <cls>, never padding.
    """
    is_gene = gene_bl != pad
    is_gene[:, 0] = False
    n_b = torch.ceil(ratio * is_gene.sum(1))
    drawn = torch.rand(gene_bl.shape, generator=rng).masked_fill(~is_gene, 2.0)
    rank_bl = drawn.argsort(1).argsort(1)
    return (rank_bl < n_b[:, None]) & is_gene


def masked_error(
    predicted_bl: torch.Tensor, value_bl: torch.Tensor, masked_bl: torch.Tensor
) -> torch.Tensor:
    """Return the mean over masked places of (x - x_hat) ** 2.

    Parameters
    ----------
    predicted_bl, value_bl : (b, l) tensors
    masked_bl : (b, l) tensor of bool
        At least one is true.
    """
    return functional.mse_loss(predicted_bl[masked_bl], value_bl[masked_bl])


def predict_masked(
    network: ScGPT, gene_bl: torch.Tensor, value_bl: torch.Tensor, masked_bl: torch.Tensor
) -> torch.Tensor:
    """Predict the value at every token, with the masked ones hidden from the network.

    Returns
    -------
    (b, l) tensor
    """
    assert network.decoder is not None
    return network.decoder(network(gene_bl, value_bl.masked_fill(masked_bl, MASK_VALUE)))


def fit_masked(
    network: ScGPT,
    tokens: Tokens,
    cells: np.ndarray,
    vocabulary: Vocabulary,
    training: Training,
    *,
    seed: int,
    device: str = "cpu",
) -> list[float]:
    """Train the network on some cells.

    Parameters
    ----------
    network
        On ``device``, with its decoder; it is left in eval mode.
    tokens
        Of all n cells, at full length.
    cells : (m,) array of int
        Rows of the cells to learn from; those without a gene are left out.
    seed
        Of the order of cells, masks, chosen genes and dropout.

    Returns
    -------
    list of float
        The masked error of each step (squared bins), in training mode.

    Raises
    ------
    ConfigError
        A number of the training makes no sense.
    DataError
        No cell to learn from expresses a gene.
    """
    training.check()
    used = cells[tokens.length_n[cells] > 0]
    if len(used) == 0:
        raise DataError(f"counts: none of {len(cells)} cells to train on has a count; valid: some")
    rng = np.random.default_rng(seed)
    masks = torch.Generator().manual_seed(seed)
    _start(network, np.concatenate([_bins_of(tokens, cell) for cell in used]))
    optimiser = torch.optim.Adam(network.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, training.learning_rate, total_steps=training.steps + 1
    )
    network.train()
    errors = []
    for rows in _batches(used, training.batch_size, training.steps, rng):
        gene_bl, value_bl = collate(
            tokens, rows, cls=vocabulary.cls, pad=vocabulary.pad,
            max_length=training.max_length, rng=rng,
        )  # fmt: skip
        masked_bl = choose_masked(gene_bl, vocabulary.pad, training.mask_ratio, masks).to(device)
        gene_bl, value_bl = gene_bl.to(device), value_bl.to(device)
        predicted_bl = predict_masked(network, gene_bl, value_bl, masked_bl)
        error = masked_error(predicted_bl, value_bl, masked_bl)
        optimiser.zero_grad(set_to_none=True)
        error.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
        optimiser.step()
        schedule.step()
        errors.append(float(error.detach()))
    network.eval()
    return errors


def _bins_of(tokens: Tokens, cell: int) -> np.ndarray:
    return tokens.bin_t[tokens.start_n[cell] : tokens.start_n[cell + 1]]


def _start(network: ScGPT, bin_t: np.ndarray) -> None:
    """Start where values of 1 to 50 are usual: another start, the same network.

    Started as torch does, the network is all but blind to the values, and its predictions
    have to grow by an order of magnitude before a type of cell can show in them.
    """
    assert network.decoder is not None
    network.value_encoder.spread(PAD_VALUE, float(bin_t.max()))
    last = network.decoder.fc[-1]
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.weight.mul_(max(float(bin_t.std()), 1.0))
        last.bias.fill_(float(bin_t.mean()))


def _batches(
    cells: np.ndarray, size: int, steps: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield ``steps`` batches: every cell once in each pass over them."""
    waiting = np.zeros(0, dtype=cells.dtype)
    for _ in range(steps):
        if len(waiting) == 0:
            waiting = rng.permutation(cells)
        yield waiting[:size]
        waiting = waiting[size:]
