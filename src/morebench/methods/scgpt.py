"""scGPT, by models/scgpt: the published model as it is, and a small one trained on the split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ConfigError, DataError, Unavailable, listed
from morebench.methods.numbers import need_at_least, need_share

MIN_SHARE = 0.3  # of the split's genes that the vocabulary must know
MIN_GENES = 50


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    checkpoint: str | None,
    checkpoint_sha256: str | None,
    max_length: int,
    batch_size: int,
) -> MethodOutput:
    """Embed every cell by a published scGPT model, unchanged (zero-shot).

    Parameters
    ----------
    data
        The split's input; its genes are looked up by symbol.
    seed
        Of ties in binning, and of the genes that a cell longer than ``max_length`` keeps.
    threads
        Of torch.
    checkpoint
        Absolute path of a folder with ``args.json``, ``vocab.json`` and ``best_model.pt``.
    checkpoint_sha256
        Of the three files (``cat args.json vocab.json best_model.pt | sha256sum``), 64
        hexadecimal digits: others are refused. None: any are taken, and their hash stands in
        the notes.
    max_length
        Tokens of a cell at most, <cls> included.
    batch_size
        Cells at once.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, embsize), float32, rows of length 1; ``parameters_frozen``.

    Raises
    ------
    Unavailable
        No checkpoint is configured.
    ConfigError
        There is no such folder, it lacks a file, its files have another hash than the given
        one, that hash is none, or a number makes no sense.
    DataError
        A file is damaged or does not fit the others; or the vocabulary knows too few of the
        genes.
    Unsupported
        The checkpoint is of another kind of model.

    Notes
    -----
    Cui et al. 2024, Nature Methods 21, 1470-1480; ``embed_data`` of its code.
    """
    need_at_least(max_length=(max_length, 2), batch_size=(batch_size, 1))
    pinned = _pin(checkpoint_sha256)
    folder = _folder(checkpoint)
    from morebench.models.more.devices import choose_device, threads_of
    from morebench.models.scgpt.checkpoint import N_BINS, load_checkpoint
    from morebench.models.scgpt.embedding import embed_cells
    from morebench.models.scgpt.tokens import tokenise

    loaded = load_checkpoint(folder, pinned)
    number_g = loaded.vocabulary.of_genes(data.genes)
    _check_shared(data.genes, number_g, folder)
    tokens = tokenise(data.counts_ng, number_g, n_bins=N_BINS, seed=seed, max_length=max_length)
    device = choose_device("auto")
    with threads_of(threads):
        z_nd = embed_cells(
            loaded.network.to(device), tokens, loaded.vocabulary,
            batch_size=batch_size, device=device,
        )  # fmt: skip
    return MethodOutput(
        embedding=z_nd,
        parameters_frozen=sum(p.numel() for p in loaded.network.parameters()),
        notes={
            "checkpoint_sha256": loaded.sha256,
            "genes_known": f"{int((number_g >= 0).sum())} of {len(number_g)}",
            **_lengths(data, number_g, max_length),
        },
    )


def run_scratch(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    d_model: int,
    n_heads: int,
    n_layers: int,
    d_hid: int,
    n_bins: int,
    max_length: int,
    train_length: int,
    mask_ratio: float,
    steps: int,
    batch_size: int,
    learning_rate: float,
    dropout: float,
) -> MethodOutput:
    """Train scGPT's network, small, on the fit-visible cells, and embed every cell.

    Parameters
    ----------
    data
        The split's input.
    seed
        Of weights, order of cells, masks, dropout, ties in binning and chosen genes.
    threads
        Of torch.
    d_model, n_heads, n_layers, d_hid, dropout
        Of the network.
    n_bins
        Bins of the values, with the one for zeros.
    max_length, train_length
        Tokens of a cell at most, <cls> included: when it is embedded; in a step of training.
    mask_ratio
        Share of a cell's genes whose values are hidden in training.
    steps, batch_size, learning_rate
        Of the optimiser.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, d_model), float32, rows of length 1; ``parameters_trained``.

    Raises
    ------
    ConfigError
        A number makes no sense.
    DataError
        No fit-visible cell has a count.

    Notes
    -----
    Cui et al. 2024, Nature Methods 21, 1470-1480. Not the published model: nothing here was
    pre-trained.
    """
    need_at_least(
        d_model=(d_model, 1), n_heads=(n_heads, 1), n_layers=(n_layers, 1), d_hid=(d_hid, 1),
        n_bins=(n_bins, 3), max_length=(max_length, 2), train_length=(train_length, 2),
    )  # fmt: skip
    if d_model % n_heads:
        raise ConfigError(f"n_heads: found {n_heads}; valid: a divisor of d_model, {d_model}")
    need_share(dropout=dropout)
    import torch

    from morebench.models.more.devices import choose_device, threads_of
    from morebench.models.scgpt.embedding import embed_cells
    from morebench.models.scgpt.network import ScGPT, Shape
    from morebench.models.scgpt.tokens import tokenise
    from morebench.models.scgpt.train import Training, fit_masked
    from morebench.models.scgpt.vocabulary import vocabulary_of

    training = Training(mask_ratio, train_length, steps, batch_size, learning_rate)
    vocabulary = vocabulary_of(data.genes)
    shape = Shape(len(vocabulary), d_model, n_heads, n_layers, d_hid, dropout)
    number_g = vocabulary.of_genes(data.genes)
    tokens = tokenise(data.counts_ng, number_g, n_bins=n_bins, seed=seed)
    device = choose_device("auto")
    with threads_of(threads), torch.random.fork_rng():
        torch.manual_seed(seed)
        network = ScGPT(shape, vocabulary.pad, decoder=True).to(device)
        cells = np.flatnonzero(data.fit_visible)
        errors = fit_masked(network, tokens, cells, vocabulary, training, seed=seed, device=device)
        short = tokenise(data.counts_ng, number_g, n_bins=n_bins, seed=seed, max_length=max_length)
        z_nd = embed_cells(network, short, vocabulary, batch_size=batch_size, device=device)
    return MethodOutput(
        embedding=z_nd,
        parameters_trained=sum(p.numel() for p in network.parameters()),
        notes={
            "masked_error_first": round(float(np.mean(errors[:10])), 4),
            "masked_error_last": round(float(np.mean(errors[-10:])), 4),
            **_lengths(data, number_g, max_length),
        },
    )


def _pin(digest: str | None) -> str | None:
    if digest is None:
        return None
    if not re.fullmatch("[0-9a-fA-F]{64}", str(digest)):
        raise ConfigError(
            f"checkpoint_sha256: found {digest!r}; valid: the SHA-256 of the three files "
            "(cat args.json vocab.json best_model.pt | sha256sum), or null for any"
        )
    return str(digest).lower()


def _folder(checkpoint: str | None) -> Path:
    if checkpoint is None:
        raise Unavailable(
            "checkpoint: none is configured; download a published scGPT model and set "
            "'checkpoint:' to the absolute path of the folder that holds its args.json, "
            "vocab.json and best_model.pt"
        )
    folder = Path(checkpoint)
    if not folder.is_absolute():  # the method's process stands in a folder of its own
        raise ConfigError(f"checkpoint: found {checkpoint!r}; valid: an absolute path")
    return folder


def _check_shared(genes: np.ndarray, number_g: np.ndarray, folder: Path) -> None:
    known, share = int((number_g >= 0).sum()), float((number_g >= 0).mean())
    if known < MIN_GENES or share < MIN_SHARE:
        unknown = listed(genes[number_g < 0], limit=5)
        raise DataError(
            f"{folder / 'vocab.json'}: knows {known} of the {len(genes)} genes ({share:.0%}), not "
            f"{unknown}; valid: at least {MIN_GENES} genes and {MIN_SHARE:.0%}. It spells genes "
            "as human symbols"
        )


def _lengths(data: MethodInput, number_g: np.ndarray, max_length: int) -> dict[str, Any]:
    """Say how many cells were not read whole, or had nothing to read."""
    n_genes_n = np.asarray((data.counts_ng[:, number_g >= 0] > 0).sum(axis=1)).ravel()
    notes: dict[str, Any] = {}
    if n_long := int((n_genes_n > max_length - 1).sum()):
        notes["cut"] = f"{n_long} of {data.n_cells} cells have more genes than {max_length - 1}"
    if n_empty := int((n_genes_n == 0).sum()):
        notes["empty"] = f"{n_empty} cells without a count in known genes"
    return notes
