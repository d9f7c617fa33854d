"""The official checkpoint: a folder of ``args.json``, ``vocab.json`` and ``best_model.pt``."""

from __future__ import annotations

import hashlib
import io
import json
import pickle  # only for the name of an error: nothing is unpickled here
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from morebench.errors import ConfigError, DataError, Unsupported, listed
from morebench.models.scgpt.network import ScGPT, Shape
from morebench.models.scgpt.tokens import PAD_VALUE
from morebench.models.scgpt.vocabulary import PAD, Vocabulary, read_vocabulary

ARGS, VOCAB, WEIGHTS = FILES = ("args.json", "vocab.json", "best_model.pt")
N_BINS = 51  # the official embedding bins so whatever args.json says
# Parts of a checkpoint that embedding does not use: heads, and the flag of generated genes.
UNUSED = (
    "decoder.",
    "mvc_decoder.",
    "cls_decoder.",
    "grad_reverse_discriminator.",
    "flag_encoder.",
)
# What embedding presumes; another value would give numbers that mean nothing.
PRESUMED = {
    "input_emb_style": "continuous",
    "cell_emb_style": "cls",
    "pre_norm": False,
    "pad_token": PAD,
    "pad_value": PAD_VALUE,
    "n_bins": N_BINS,
}
_SIZES = {"embsize": "d_model", "nheads": "n_heads", "nlayers": "n_layers", "d_hid": "d_hid"}


@dataclass(frozen=True)
class Checkpoint:
    """A frozen network with its vocabulary.

    Attributes
    ----------
    network
        In eval mode; no parameter asks for a gradient.
    sha256
        Of the three files, one after the other in the order of ``FILES``: of the very bytes
        that were loaded.
    unused
        Keys of ``best_model.pt`` that embedding has no use for.
    """

    network: ScGPT
    vocabulary: Vocabulary
    sha256: str
    unused: tuple[str, ...]


def load_checkpoint(folder: Path, sha256: str | None = None) -> Checkpoint:
    """Load a published scGPT checkpoint. No code of it runs.

    Parameters
    ----------
    folder
        With the three files, as published.
    sha256
        Of the three files (``cat args.json vocab.json best_model.pt | sha256sum``), in
        lower-case hexadecimal digits: others are refused before they are parsed. None: any
        are taken.

    Raises
    ------
    ConfigError
        There is no such folder, a file of it is missing, or the files have another hash.
    DataError
        A file is damaged, holds anything but weights, or the three do not fit together;
        keys that are missing or unknown are named.
    Unsupported
        The model is of another kind than ``embed_data`` embeds with.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; valid: a folder with {listed(FILES)}")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{folder}: lacks {listed(missing)}; valid: a folder with {listed(FILES)}"
        )
    held, digest = _read_checked(folder, sha256)
    vocabulary = read_vocabulary(held[VOCAB], folder / VOCAB)
    shape = _read_shape(held[ARGS], folder / ARGS, len(vocabulary))
    network = ScGPT(shape, vocabulary.pad, decoder=False)
    found = official_to_torch(_weights(held[WEIGHTS], folder / WEIGHTS), folder / WEIGHTS)
    unused = tuple(sorted(k for k in found if k.startswith(UNUSED)))
    weights = {k: v.float() for k, v in found.items() if k not in set(unused)}
    _check_weights(weights, network.state_dict(), folder)
    network.load_state_dict(weights)
    network.requires_grad_(False).eval()
    return Checkpoint(network, vocabulary, digest, unused)


def official_to_torch(weights: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Rename flash-attention's ``Wqkv.*`` to torch's ``in_proj_*``: the same rows, q, k, v.

    Raises
    ------
    DataError
        Both names are there for one layer.
    """
    renamed = {k.replace(".self_attn.Wqkv.", ".self_attn.in_proj_"): v for k, v in weights.items()}
    if len(renamed) != len(weights):
        raise DataError(
            f"{path}: a layer has both self_attn.Wqkv and self_attn.in_proj; valid: one"
        )
    return renamed


def _read_shape(text: bytes, path: Path, n_tokens: int) -> Shape:
    try:
        args: Any = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(args, dict):
        raise DataError(f"{path}: holds a {type(args).__name__}; valid: an object with {_SIZES}")
    sizes = {}
    for key, name in _SIZES.items():
        size = args.get(key)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise DataError(f"{path}: {key}: found {size!r}; valid: a whole number above 0")
        sizes[name] = size
    if sizes["d_model"] % sizes["n_heads"]:
        raise DataError(
            f"{path}: embsize {sizes['d_model']} is not a multiple of nheads {sizes['n_heads']}"
        )
    for key, valid in PRESUMED.items():
        if key in args and args[key] != valid:
            raise Unsupported(f"{path}: {key}: found {args[key]!r}; embedding needs {valid!r}")
    return Shape(n_tokens=n_tokens, dropout=0.0, **sizes)  # frozen: dropout never acts


def _read_checked(folder: Path, wanted: str | None) -> tuple[dict[str, bytes], str]:
    """Return what the files hold and their SHA-256, which is the wanted one."""
    held = {}
    for name in FILES:  # once: what is loaded later is what was hashed, whatever becomes of them
        try:
            held[name] = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read ({_first_line(error)})") from error
    digest = hashlib.sha256()
    for content in held.values():
        digest.update(content)
    found = digest.hexdigest()
    if wanted is not None and found != wanted:
        raise ConfigError(
            f"{folder}: {listed(FILES)} have the SHA-256 {found}, and checkpoint_sha256 says "
            f"{wanted}; they were not loaded. Valid: the files that the hash was taken of (cat "
            f"{' '.join(FILES)} | sha256sum)"
        )
    return held, found


def _weights(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: damaged, or holds more than weights, which is never run "
            f"({_first_line(error)}); valid: a file that torch.load reads with weights_only=True"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise DataError(
            f"{path}: damaged or cut short, {len(content)} bytes ({_first_line(error)}); "
            "download it anew"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        inside = listed(found) if isinstance(found, dict) else type(found).__name__
        raise DataError(f"{path}: holds {inside}; valid: a dictionary of names and tensors")
    return {str(key): value for key, value in found.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _check_weights(
    weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], folder: Path
) -> None:
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    if missing or unknown:
        raise DataError(
            f"{folder / WEIGHTS}: missing: {listed(missing)}; unknown: {listed(unknown)}; valid: "
            f"the network that {ARGS} describes"
        )
    wrong = [
        f"{key}: found {tuple(weights[key].shape)}, valid: {tuple(expected[key].shape)}"
        for key in expected
        if weights[key].shape != expected[key].shape
    ]
    if wrong:
        raise DataError(
            f"{folder / WEIGHTS}: does not fit {ARGS} and {VOCAB}: {listed(wrong, limit=4)}"
        )
    broken = [key for key, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise DataError(f"{folder / WEIGHTS}: not finite: {listed(broken)}")
