"""The configuration of a run: read, checked, and turned into plain objects."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from morebench.data.inherit import check_derived, inherit
from morebench.data.remote import remotes_of
from morebench.data.spec import DatasetConfig, check_tasks, splits_of
from morebench.data.spec_source import Downloads
from morebench.data.strict import Name, Strict
from morebench.errors import ConfigError, listed
from morebench.registry import DATASETS, METHODS, SPLIT_KINDS, TASKS, MethodSpec

RESERVED = ("method", "title", "resources")
# Steps of a validation error's location that name a branch of a type, not a key.
BRANCHES = ("str", "bool", "int", "float", "Constant", "[key]")


def _once(values: list[Any]) -> list[Any]:
    doubled = [v for i, v in enumerate(values) if v in values[:i]]
    if doubled:
        raise ValueError(f"{doubled[0]!r} is listed twice")
    return values


SeedList = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1), AfterValidator(_once)
]


class Seeds(Strict):
    """Seeds of the methods for each kind of split."""

    all: SeedList = [0]
    partial: SeedList = [0]
    lobo: SeedList = [0]
    unseen: SeedList = [0]
    newtype: SeedList = [0]

    @model_validator(mode="before")
    @classmethod
    def _one_list_for_all(cls, value: Any) -> Any:
        return dict.fromkeys(SPLIT_KINDS, value) if isinstance(value, list) else value


class Resources(Strict):
    """What a method may use; the defaults stand in the registry."""

    threads: int | None = Field(None, ge=1)
    mem_mb: int | None = Field(None, ge=100)
    runtime_min: int | None = Field(None, ge=1)  # whole: Snakemake rounds, .4 would be none
    gpu: int | None = Field(None, ge=0)


class Evaluation(Strict):
    """Settings of scoring that are not a method's."""

    seed: int = 0
    n_boot: int = Field(1000, ge=100)
    sample: int | None = Field(
        None, ge=1000, description="cells that embeddings are scored on; null: all scored cells"
    )
    repeats: int = Field(3, ge=2, description="samples drawn; their spread is the stated error")
    threads: int = Field(1, ge=1)
    mem_mb: int = Field(8000, ge=500)


class FeatureStage(Strict):
    """How frozen features are made."""

    descriptions: str | None = Field(
        None, description="table of NCBI gene_info, which adds a description to each symbol"
    )
    threads: int = Field(1, ge=1)
    mem_mb: int = Field(6000, ge=500)
    gpu: int = Field(0, ge=0)


def _empty_is_mapping(value: Any) -> Any:
    return {} if value is None else value


class Config(Strict):
    """The whole configuration file."""

    results: Annotated[str, StringConstraints(pattern=r"^[\w./-]+$")] = "results"
    seeds: Seeds = Seeds()
    attempts: int = Field(2, ge=1, le=5, description="tries of a method that runs out of memory")
    evaluation: Evaluation = Evaluation()
    features: FeatureStage = FeatureStage()
    downloads: Downloads = Downloads()
    datasets: dict[Name, Annotated[DatasetConfig, BeforeValidator(_empty_is_mapping)]]
    methods: dict[Name, Annotated[dict[str, Any], BeforeValidator(_empty_is_mapping)]]


@dataclass(frozen=True)
class Method:
    """A configured method: a registered one, or a variant of it under its own name."""

    name: str
    spec: MethodSpec
    params: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Return what decides the method's output, for its process and for re-runs."""
        return {
            "name": self.name,
            "entry": self.spec.entry,
            "track": self.spec.track,
            "truth": self.spec.truth,
            "outputs": list(self.spec.outputs),
            "inductive": self.spec.inductive,
            "packages": list(self.spec.packages),
            "environment": self.spec.environment,
            "params": dict(self.params),
        }


def closest(name: str, valid: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'scvi'? valid: ...``."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"valid: {listed(names, 40)}"


def _explain(error: ValidationError, source: str, root: Any = None, at: str = "") -> str:
    """Say in one line what is wrong; ``root`` is the model that stands at the key ``at``."""
    lines = []
    for item in error.errors():
        keys = [str(k) for k in item["loc"] if k not in BRANCHES and "[" not in str(k)]
        key = ".".join([at, *keys] if at else keys)
        if item["type"] == "extra_forbidden":
            model: Any = root or Config
            for part in item["loc"][:-1]:
                model = _field_model(model, part)
            fields = model.model_fields.items() if model is not None else ()
            valid = [field.alias or name for name, field in fields]
            lines.append(f"unknown key {key!r}; {closest(str(item['loc'][-1]), valid)}")
            continue
        text = str(item["msg"]).removeprefix("Value error, ")
        if item["type"] == "string_pattern_mismatch":
            text = "a name is letters, digits and underscores, a letter first"
        # What a validator of ours found stands in its own words.
        told = item["type"] in ("missing", "value_error")
        lines.append(f"{key}: {text}" + ("" if told else f" (found {_short(item['input'])})"))
    return f"{source}: " + "; ".join(dict.fromkeys(lines))


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _field_model(model: Any, part: Any) -> Any:
    """Follow one step of a validation error's location to the model that stands there."""
    if model is Config and part in ("datasets", "methods"):
        return {"datasets": DatasetConfig}.get(part)
    if model is None or not hasattr(model, "model_fields") or part not in model.model_fields:
        return model  # a key of a mapping or an index: the model below it stays the same
    annotation = model.model_fields[part].annotation
    options = [annotation, *getattr(annotation, "__args__", ())]
    models = [a for a in options if isinstance(a, type) and issubclass(a, Strict)]
    return models[0] if models else None


def load(content: Mapping[str, Any], source: str = "config") -> Config:
    """Check a configuration given as a mapping.

    Raises
    ------
    ConfigError
        One line that names the key, the value found and what would be valid.
    """
    given = {**content, "datasets": inherit(content.get("datasets"), source)}
    if "datasets" not in content:
        del given["datasets"]
    try:
        config = Config.model_validate(given)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from None
    for name, entry in config.methods.items():
        _method(name, entry, source)
    for name, dataset in config.datasets.items():
        _check_dataset(name, dataset, config, source)
    return config


def load_file(path: str | Path) -> Config:
    """Read and check a YAML configuration file."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds {type(content).__name__}, expected keys and values")
    return load(content, str(path))


def _check_dataset(name: str, dataset: DatasetConfig, config: Config, source: str) -> None:
    at = f"{source}: datasets.{name}"
    if dataset.bundled is not None:
        if dataset.bundled not in DATASETS:
            raise ConfigError(
                f"{at}.bundled: unknown dataset {dataset.bundled!r}; "
                f"{closest(dataset.bundled, DATASETS)}"
            )
        valid = DATASETS[dataset.bundled].params
        for key, value in dataset.params.items():
            if key not in valid:
                raise ConfigError(f"{at}.params: unknown key {key!r}; {closest(key, valid)}")
            _check_type(value, valid[key], f"{at}.params.{key}")
    for task in dataset.tasks:
        if task not in TASKS:
            raise ConfigError(f"{at}.tasks: unknown task {task!r}; {closest(task, TASKS)}")
    for method in dataset.methods or []:
        if method not in config.methods:
            raise ConfigError(
                f"{at}.methods: {method!r} is not configured; {closest(method, config.methods)}"
            )
    for key in ("tasks", "methods"):
        try:
            _once(getattr(dataset, key) or [])
        except ValueError as error:
            raise ConfigError(f"{at}.{key}: {error}") from None
    try:
        splits_of(dataset)
    except ConfigError as error:
        raise ConfigError(f"{at}.{error}") from None
    if dataset.remote:
        remotes_of(dataset, config.downloads, at)
    check_tasks(dataset, at)
    check_derived(dataset, config.datasets, at)


def _check_type(value: Any, default: Any, at: str) -> None:
    """Raise ConfigError unless a parameter is of its default's kind.

    A default of None says nothing about the kind, and None stands for the package's own.
    """
    kinds: tuple[tuple[type, tuple[type, ...], str], ...] = (
        (bool, (bool,), "true or false"),
        (int, (int,), "a whole number"),
        (float, (int, float), "a number"),
        (str, (str,), "a text"),
        (tuple, (list, tuple), "a list"),
    )
    for kind, accepted, words in kinds:
        if value is not None and isinstance(default, kind):
            if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
                raise ConfigError(f"{at}: found {_short(value)}, expected {words}")
            return


def _method(name: str, entry: Mapping[str, Any], source: str) -> Method:
    at = f"{source}: methods.{name}"
    base = entry.get("method", name)
    if not isinstance(base, str) or base not in METHODS:
        raise ConfigError(f"{at}: unknown method {base!r}; {closest(str(base), METHODS)}")
    spec = METHODS[base]
    given = {k: v for k, v in entry.items() if k not in RESERVED}
    for key, value in given.items():
        if key not in spec.params:
            raise ConfigError(
                f"{at}: unknown parameter {key!r} of {base}; "
                f"{closest(key, [*spec.params, *RESERVED])}"
            )
        _check_type(value, spec.params[key], f"{at}.{key}")
    try:
        limits = Resources.model_validate(entry.get("resources") or {})
    except ValidationError as error:
        place = f"methods.{name}.resources"
        raise ConfigError(_explain(error, source, Resources, place)) from None
    changed = {k: v for k, v in limits.model_dump().items() if v is not None}
    title = entry.get("title", spec.title if name == base else name)
    _check_type(title, "", f"{at}.title")
    # What asks for other resources shares none.
    changed["brief"] = spec.brief and not changed
    return Method(name, replace(spec, title=title, **changed), {**spec.params, **given})


def methods_of(config: Config) -> dict[str, Method]:
    """Return the configured methods by name, parameters filled with the defaults."""
    return {name: _method(name, entry, "config") for name, entry in config.methods.items()}


def backbone_of(method: Method) -> str | None:
    """Return the name of the frozen features that a method reads: a slug; None for none."""
    backbone = method.params.get("backbone")
    if (
        not method.spec.features
        or backbone in (None, "none")
        or not method.params.get("features", True)
    ):
        return None
    name = str(backbone)
    slug = re.sub(r"\W+", "_", name).strip("_")
    if slug != name:  # a path or a hub id: two of them must not share a slug
        slug += "_" + hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{slug}.{method.params['n_tokens']}"


def pretrained_of(method: Method, methods: Mapping[str, Method]) -> str | None:
    """Return the configured method whose fitted model a method starts from; None for none."""
    for name, other in methods.items():
        if other.spec.name == method.spec.pretrained and all(
            method.params.get(f"pretrain_{key}", method.params.get(key)) == value
            for key, value in other.params.items()
        ):
            return name
    return None


def backbones_of(config: Config) -> dict[str, dict[str, Any]]:
    """Return the settings of every set of frozen features that the methods read."""
    found = {}
    for method in methods_of(config).values():
        slug = backbone_of(method)
        if slug is not None:
            found[slug] = {
                "backbone": method.params["backbone"],
                "n_tokens": method.params["n_tokens"],
                "descriptions": config.features.descriptions,
            }
    return found


def resolved(config: Config) -> dict[str, Any]:
    """Return the configuration with every default written out.

    Where downloads come from and lie is left out: their hashes decide the results.
    """
    content = config.model_dump(mode="json", exclude={"downloads"})
    content["methods"] = {
        name: {
            "method": config.methods[name].get("method", name),
            "title": m.spec.title,
            **m.params,
            "resources": {
                k: getattr(m.spec, k) for k in ("threads", "mem_mb", "runtime_min", "gpu")
            },
        }
        for name, m in methods_of(config).items()
    }
    return content


def config_hash(config: Config) -> str:
    """Return the first 12 hex digits of the SHA-256 of the resolved configuration."""
    text = json.dumps(resolved(config), sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
