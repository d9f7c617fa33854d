"""A fitted model on disk: ``model.safetensors`` (arrays) and ``model.json`` (the rest)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from morebench.errors import ContractError, Damaged, listed
from morebench.files import atomic_path, read_json, sha256_file, write_json
from morebench.models.more.annotate import Annotator
from morebench.models.more.expression import Expression
from morebench.models.more.features import FeatureSource
from morebench.models.more.inputs import FeatureBranch, Transforms
from morebench.models.more.network import BranchSpec, Network
from morebench.models.more.settings import Settings
from morebench.models.more.tokens import Background

FORMAT = 4
JSON_FILE, ARRAYS_FILE = "model.json", "model.safetensors"
_KEYS = (
    "settings", "modalities", "names", "batches", "classes", "branches", "scales",
    "feature_scales", "source", "annotator", "seed", "batch_key", "layer",
)  # fmt: skip
_EXPRESSION = (
    "mean_g", "weight_g", "components_gp", "shrinkage_p", "power_p", "frequency_g",
)  # fmt: skip


def to_state(model: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return a ``MoRE`` as arrays and as what JSON holds of it."""
    arrays = {f"network.{k}": v.cpu().numpy() for k, v in model.network.state_dict().items()}
    for name, part in model.transforms.expression.items():
        arrays |= {f"expression.{name}.{key}": getattr(part, key) for key in _EXPRESSION}
    for name, branch in model.transforms.features.items():
        arrays[f"features.{name}.mean_f"] = branch.mean_f
        arrays[f"features.{name}.components_fp"] = branch.components_fp
    for name, usual in model.source.usual.items():
        arrays[f"usual.{name}.mean_g"], arrays[f"usual.{name}.std_g"] = usual.mean_g, usual.std_g
    annotator: dict[str, Any] | None = None
    if model.annotator is not None:
        state, annotator = model.annotator.to_state()
        arrays |= {f"annotator.{k}": v for k, v in state.items()}
    content = {
        "format": FORMAT,
        "settings": model.settings.to_dict(),
        "modalities": list(model.names),  # their order, which JSON's sorted keys do not keep
        "names": {k: [str(n) for n in v] for k, v in model.names.items()},
        "batches": [str(b) for b in model.batches],
        "classes": [str(c) for c in model.classes],
        "branches": [[b.modality, b.kind, b.start, b.stop] for b in model.network.branches],
        "scales": {k: v.scale for k, v in model.transforms.expression.items()},
        "feature_scales": {k: v.scale for k, v in model.transforms.features.items()},
        "source": {
            "name": model.source.name,
            "n_tokens": model.source.n_tokens,
            "seed": model.source.seed,
            "texts": model.source.texts,
            "n_parameters": model.source.n_parameters,
            "weights_sha256": model.source.weights_sha256,
        },
        "annotator": annotator,
        "seed": model.seed,
        "batch_key": model.batch_key,
        "layer": model.layer,
    }
    return {k: np.ascontiguousarray(v) for k, v in arrays.items()}, content


def from_state(
    arrays: dict[str, np.ndarray], content: dict[str, Any], device: str, where: str
) -> dict[str, Any]:
    """Return the fields of a ``MoRE`` that ``to_state`` took apart.

    Raises
    ------
    ContractError
        Another format, or a part is missing; names ``where`` it was found.
    """
    import torch

    _check_content(content, where, _KEYS)
    settings = Settings.from_dict(content["settings"])
    transforms = _transforms(arrays, content)
    classes, batches = np.array(content["classes"], dtype=str), np.array(content["batches"])
    branches = [BranchSpec(*b) for b in content["branches"]]
    network = _network(branches, len(batches), len(classes), transforms, content, settings)
    state = {k: torch.as_tensor(v) for k, v in _below(arrays, "network.").items()}
    network.load_state_dict(state)
    source = FeatureSource(
        content["source"]["name"],
        content["source"]["n_tokens"],
        content["source"]["seed"],
        None,
        content["source"]["texts"],
        {
            name: Background(arrays[f"usual.{name}.mean_g"], arrays[f"usual.{name}.std_g"])
            for name in {k.split(".")[1] for k in arrays if k.startswith("usual.")}
        },
        content["source"]["n_parameters"],
        content["source"]["weights_sha256"],
    )
    annotator = None
    if content["annotator"] is not None:
        annotator = Annotator.from_state(_below(arrays, "annotator."), content["annotator"])
    return {
        "settings": settings,
        "network": network.to(device).eval(),
        "transforms": transforms,
        "source": source,
        "names": {k: np.array(content["names"][k], dtype=str) for k in content["modalities"]},
        "batches": batches,
        "classes": classes,
        "annotator": annotator,
        "seed": content["seed"],
        "device": device,
        "batch_key": content["batch_key"],
        "layer": content["layer"],
    }


def _check_content(content: dict[str, Any], where: str, keys: tuple[str, ...]) -> None:
    """Raise ContractError unless the content is of this format and whole."""
    if content.get("format") != FORMAT:
        raise ContractError(f"{where}: format {content.get('format')!r}; valid: {FORMAT}")
    lacking = [key for key in keys if key not in content]
    if lacking:
        raise ContractError(f"{where}: lacks {lacking[0]!r}; valid: {listed(keys)}")


def to_arrays(model: Any) -> dict[str, np.ndarray]:
    """Return a ``MoRE`` as arrays alone: the rest as the bytes of its JSON."""
    arrays, content = to_state(model)
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return {**arrays, JSON_FILE: np.frombuffer(text.encode(), dtype=np.uint8)}


def from_arrays(arrays: dict[str, np.ndarray], device: str, where: str) -> dict[str, Any]:
    """Return the fields of a ``MoRE`` that ``to_arrays`` made arrays of."""
    if JSON_FILE not in arrays:
        raise ContractError(f"{where}: holds no MoRE: {JSON_FILE} is missing")
    content = json.loads(arrays[JSON_FILE].tobytes())
    return from_state({k: v for k, v in arrays.items() if k != JSON_FILE}, content, device, where)


def write_model(model: Any, folder: Path) -> None:
    """Write a ``MoRE``; a file of the same name is replaced once the new one is whole."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    arrays, content = to_state(model)
    with atomic_path(folder / ARRAYS_FILE, checksum=False) as temporary:  # the JSON has it
        temporary.write_bytes(save(arrays))
    content["arrays_sha256"] = sha256_file(folder / ARRAYS_FILE)
    write_json(folder / JSON_FILE, content)


def read_model(folder: Path, device: str) -> dict[str, Any]:
    """Return the fields of a saved ``MoRE``.

    Raises
    ------
    ContractError
        A file is missing, or of another format.
    Damaged
        A file is not what was written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    for name in (JSON_FILE, ARRAYS_FILE):
        if not (folder / name).is_file():
            raise ContractError(f"{folder}: is no saved model: {name} is missing")
    content = read_json(folder / JSON_FILE)
    _check_content(content, str(folder / JSON_FILE), ("arrays_sha256", *_KEYS))
    found, told = sha256_file(folder / ARRAYS_FILE), content["arrays_sha256"]
    if found != told:
        raise Damaged(
            f"{folder / ARRAYS_FILE}: its SHA-256 is {found}, {JSON_FILE} says {told}: it was "
            "damaged, or is of another model; fit the model again"
        )
    try:
        arrays = load_file(folder / ARRAYS_FILE)
    except SafetensorError as error:
        raise ContractError(f"{folder / ARRAYS_FILE}: cannot be read: {error}") from error
    return from_state(arrays, content, device, str(folder / JSON_FILE))


def _below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _transforms(arrays: dict[str, np.ndarray], content: dict[str, Any]) -> Transforms:
    expression = {}
    for name in content["modalities"]:
        part = {key: arrays[f"expression.{name}.{key}"] for key in _EXPRESSION}
        expression[name] = Expression(kind=name, scale=content["scales"][name], **part)
    features = {
        name: FeatureBranch(
            arrays[f"features.{name}.mean_f"], arrays[f"features.{name}.components_fp"], scale
        )
        for name, scale in content["feature_scales"].items()
    }
    return Transforms(expression, features)


def _network(
    branches: list[BranchSpec],
    n_batches: int,
    n_classes: int,
    transforms: Transforms,
    content: dict[str, Any],
    settings: Settings,
) -> Network:
    counts = settings.likelihood == "nb"
    decoded = {
        name: len(content["names"][name]) if counts else part.width
        for name, part in transforms.expression.items()
    }
    return Network(branches, n_batches, n_classes, decoded, settings)
