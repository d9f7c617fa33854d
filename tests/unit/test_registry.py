"""The registry is complete, agrees with the code and the configuration, and is cheap."""

import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from morebench import registry
from morebench.data.spec import Labels, Splits
from morebench.models.more.annotate_settings import AnnotateSettings
from morebench.models.more.settings import Settings
from morebench.registry import DATASETS, ENVIRONMENTS, METHODS, METRICS, TASKS
from morebench.registry.specs import by_name

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text())
ENTRIES = [(s.name, s.entry) for s in (*DATASETS.values(), *METHODS.values(), *TASKS.values())]


def resolve(entry):
    module, function = entry.split(":")
    return getattr(importlib.import_module(module), function)


def keyword_only(function):
    """Keyword-only parameters; ``**settings`` stands for the fields of MoRE's settings."""
    parameters = inspect.signature(function).parameters.values()
    found = {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        found |= {
            f.name: inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY)
            for f in dataclasses.fields(Settings)
        }
        if "supervised" in function.__name__:
            steps = [k for k in METHODS["more_sup"].params if k.startswith("annotate_")]
            found |= {k: inspect.Parameter(k, inspect.Parameter.KEYWORD_ONLY) for k in steps}
    return found


def test_the_registered_settings_of_more_are_its_defaults():
    assert dict(METHODS["more"].params) == dataclasses.asdict(Settings())
    given = dict(METHODS["more_sup"].params)
    steps = {k: given.pop(k) for k in list(given) if k.startswith("annotate_")}
    assert given == dataclasses.asdict(Settings())
    default = dataclasses.asdict(AnnotateSettings())
    assert steps == {k: default[k.removeprefix("annotate_")] for k in steps} and len(steps) > 6


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=[e[0] for e in ENTRIES])
def test_every_entry_resolves_to_a_documented_function(name, entry):
    function = resolve(entry)
    assert inspect.isfunction(function) and function.__doc__


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_seed_threads_and_its_registered_parameters(name):
    found = keyword_only(resolve(METHODS[name].entry))
    assert set(found) == {"seed", "threads", *METHODS[name].params}
    # a default in the code would be a second place that states it
    assert all(p.default is inspect.Parameter.empty for p in found.values())


@pytest.mark.parametrize("name", DATASETS)
def test_a_bundled_dataset_takes_its_registered_parameters(name):
    assert set(keyword_only(resolve(DATASETS[name].entry))) == set(DATASETS[name].params)


@pytest.mark.parametrize("name", [n for n, e in CONFIG["methods"].items() if "method" not in e])
def test_the_default_configuration_states_every_parameter_with_its_default(name):
    stated = {k: v for k, v in CONFIG["methods"][name].items() if k not in ("title", "resources")}
    stated = {k: tuple(v) if isinstance(v, list) else v for k, v in stated.items()}
    assert stated == dict(METHODS[name].params)
    assert all(type(stated[k]) is type(v) for k, v in METHODS[name].params.items())


def test_the_default_configuration_names_what_there_is():
    assert {e.get("method", name) for name, e in CONFIG["methods"].items()} == set(METHODS)
    for dataset in CONFIG["datasets"].values():
        assert dataset["bundled"] in DATASETS
        assert set(dataset["tasks"]) <= set(TASKS)
        given = dataset.get("params", {})
        if DATASETS[dataset["bundled"]].params and given:
            assert set(given) == set(DATASETS[dataset["bundled"]].params)


def test_words_are_those_of_the_lists():
    for method in METHODS.values():
        assert method.track in registry.TRACKS, method.name
        assert method.outputs and set(method.outputs) <= set(registry.OUTPUT_KINDS), method.name
        assert method.environment in ENVIRONMENTS, method.name
        assert method.packages and method.source and method.licence, method.name
        assert method.threads >= 1 and method.mem_mb >= 500 and method.runtime_min > 0, method.name
    for task in TASKS.values():
        assert task.splits and set(task.splits) <= set(registry.SPLIT_KINDS), task.name
        assert task.outputs and set(task.outputs) <= set(registry.OUTPUT_KINDS), task.name
        assert set(task.needs) <= {"two_batches", "labels", "trusted_labels", "doublets"}
        assert any(set(m.outputs) & set(task.outputs) for m in METHODS.values()), task.name
    assert set(registry.ACCEPTED_STATES) < set(registry.STATES)
    sources = set(get_args(Labels.model_fields["source"].annotation))
    assert set(registry.TRUSTED_LABEL_SOURCES) == sources - {"derived"}
    assert {"all", *Splits.model_fields} == set(registry.SPLIT_KINDS)


def test_metrics_belong_to_tasks_and_totals_are_those_of_the_design():
    assert {m.task for m in METRICS.values()} == set(TASKS)
    total = {m.name: m.aspect for m in METRICS.values() if m.in_total}
    assert {n for n, aspect in total.items() if aspect == "batch"} == {
        "bras", "ilisi", "kbet", "graph_connectivity", "pcr",
    }  # fmt: skip
    assert {n for n, aspect in total.items() if aspect == "bio"} == {
        "nmi_leiden", "ari_leiden", "silhouette_label", "clisi",
    }  # fmt: skip
    assert set(total.values()) == {"batch", "bio"}


def test_environment_files_exist():
    for spec in ENVIRONMENTS.values():
        assert (ROOT / spec.file).is_file(), spec.file
        assert spec.isolated == bool(spec.differs)


def test_names_are_keys_and_specs_are_frozen():
    for table in (DATASETS, METHODS, TASKS, METRICS, ENVIRONMENTS):
        assert all(name == spec.name for name, spec in table.items())
        with pytest.raises(TypeError):
            table["new"] = None
    with pytest.raises(AttributeError):
        METHODS["pca"].threads = 2
    with pytest.raises(TypeError):
        METHODS["pca"].params["n_components"] = 2
    with pytest.raises(AssertionError, match="registered twice"):
        by_name(METHODS["pca"], METHODS["pca"])


def test_importing_the_registry_loads_the_standard_library_alone():
    """What would cost time there is packages: without any, importing it takes 0.02 s."""
    code = "import sys, json, morebench.registry; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert loaded - set(sys.stdlib_module_names) <= {"morebench", "__main__"}
