"""The configuration: what is filled in, what a run is named by, what its page says."""

import importlib.util
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from morebench.config import (
    RESERVED,
    Config,
    Evaluation,
    FeatureStage,
    Resources,
    Seeds,
    config_hash,
    load,
    load_file,
    methods_of,
    resolved,
)
from morebench.data.spec import (
    QC,
    Constant,
    DatasetConfig,
    Derive,
    Doublets,
    Features,
    Labels,
    Part,
    Partial,
    Shards,
    Splits,
    Titrate,
    resolve,
    slug,
    splits_of,
)
from morebench.data.spec_source import (
    About,
    Annotation,
    Cellxgene,
    Downloads,
    GeneNames,
    Geo,
    Read,
)
from morebench.errors import ConfigError
from morebench.registry import DATASETS, METHODS

CONFIG = Path(__file__).parents[2] / "config"


# --- what is filled in --------------------------------------------------------------------


def test_a_method_has_the_defaults_of_the_registry_and_what_is_changed(config_of):
    methods = methods_of(load(config_of(methods={"scvi": {"n_latent": 30}, "pca": None})))
    assert methods["scvi"].params == {**METHODS["scvi"].params, "n_latent": 30}
    assert methods["pca"].params == METHODS["pca"].params
    assert methods["scvi"].spec == METHODS["scvi"]
    assert METHODS["scvi"].params["n_latent"] == 10


def test_a_variant_is_its_method_under_its_own_name(config_of):
    entry = {"method": "scvi", "n_latent": 30, "resources": {"mem_mb": 500, "threads": 3}}
    variant = methods_of(load(config_of(methods={"scvi_d30": entry})))["scvi_d30"]
    assert (variant.name, variant.spec.name, variant.spec.title) == ("scvi_d30", "scvi", "scvi_d30")
    assert (variant.spec.mem_mb, variant.spec.threads) == (500, 3)
    assert variant.spec.runtime_min == METHODS["scvi"].runtime_min
    assert variant.settings()["name"] == "scvi_d30"
    assert variant.settings()["params"]["n_latent"] == 30
    assert not set(RESERVED) & set(variant.settings()["params"])
    entry["title"] = "scVI, 30 latent"
    variant = methods_of(load(config_of(methods={"scvi_d30": entry})))["scvi_d30"]
    assert variant.spec.title == "scVI, 30 latent"


def test_what_asks_for_resources_of_its_own_shares_no_submission(config_of):
    own = {"method": "pca", "resources": {"mem_mb": 500}}
    given = {"pca": {"n_components": 5}, "own": own, "scvi": {}}
    brief = {n: m.spec.brief for n, m in methods_of(load(config_of(methods=given))).items()}
    assert brief == {"pca": True, "own": False, "scvi": False}


def test_resources_do_not_decide_the_output(config_of):
    one, other = (
        methods_of(load(config_of(methods={"pca": {"resources": {"mem_mb": m}}})))["pca"]
        for m in (500, 900)
    )
    assert one.spec.mem_mb != other.spec.mem_mb
    assert one.settings() == other.settings()


def test_one_list_of_seeds_is_for_all_kinds(config_of):
    seeds = load(config_of(top={"seeds": [3, 1]})).seeds
    assert seeds == Seeds(all=[3, 1], partial=[3, 1], lobo=[3, 1], unseen=[3, 1], newtype=[3, 1])
    seeds = load(config_of(top={"seeds": {"all": [3, 1]}})).seeds
    assert (seeds.all, seeds.partial) == ([3, 1], [0])


def test_none_stands_for_a_packages_own_choice(config_of):
    methods = methods_of(load(config_of(methods={"harmony_published": {"lamb": None}})))
    assert methods["harmony_published"].params["lamb"] is None
    methods = methods_of(load(config_of(methods={"harmony": {"theta": [1.0, 2.0], "sigma": 1}})))
    assert methods["harmony"].params["theta"] == [1.0, 2.0]


def test_a_configuration_cannot_be_changed(config_of):
    config = load(config_of())
    with pytest.raises(ValidationError, match="frozen"):
        config.attempts = 3


# --- what names a run ---------------------------------------------------------------------


def test_the_resolved_configuration_is_whole_and_loads_to_itself(config_of):
    config = load(config_of(methods={"mine": {"method": "scvi", "n_latent": 5}}))
    content = resolved(config)
    entry = content["methods"]["mine"]
    assert set(METHODS["scvi"].params) | {"method", "title", "resources"} == set(entry)
    assert set(content["datasets"]["d"]) == set(DatasetConfig.model_fields)
    again = load(json.loads(json.dumps(content, default=list)))
    assert resolved(again) == content
    assert config_hash(again) == config_hash(config)


def test_the_hash_is_of_what_is_meant_not_of_how_it_is_written(config_of):
    config = config_of(methods={"scvi": {}, "pca": {}})
    same = {k: config[k] for k in reversed(config)}
    same["methods"] = {"pca": None, "scvi": {"n_latent": 10}}
    same["attempts"] = 2
    assert config_hash(load(same)) == config_hash(load(config))
    assert re.fullmatch(r"[0-9a-f]{12}", config_hash(load(config)))
    for changed in (
        config_of(methods={"scvi": {"n_latent": 11}, "pca": {}}),
        config_of(methods={"scvi": {}, "pca": {}}, batch="donor"),
        config_of(methods={"scvi": {}, "pca": {}}, top={"seeds": [1]}),
        config_of(methods={"scvi": {}}),
    ):
        assert config_hash(load(changed)) != config_hash(load(config))


# --- splits and paths ---------------------------------------------------------------------


def test_splits_are_named_after_what_they_hold_out(config_of):
    content = config_of(
        splits={"partial": {}, "lobo": ["b1", "P 0/7"], "newtype": ["CD14+ Monocyte"]}
    )
    assert splits_of(load(content).datasets["d"]) == {
        "all": None, "partial": None, "lobo-b1": "b1", "lobo-P_0_7": "P 0/7",
        "newtype-CD14_Monocyte": "CD14+ Monocyte",
    }  # fmt: skip


@given(st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_a_slug_is_fit_for_a_file_and_a_rule(text):
    found = slug(text)
    assert re.fullmatch(r"[A-Za-z0-9._]*", found)
    assert slug(found) == found


def test_paths_expand_variables(monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/data")
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    assert resolve("${SOME_FOLDER}/a.h5ad", "d") == Path("/data/a.h5ad")
    assert resolve("$SOME_FOLDER/a.h5ad", "d") == Path("/data/a.h5ad")
    assert resolve("~/a.h5ad", "d") == Path.home() / "a.h5ad"
    for path in ("${NO_SUCH_FOLDER}/a.h5ad", "$NO_SUCH_FOLDER/a.h5ad"):
        with pytest.raises(ConfigError, match="^d: .*NO_SUCH_FOLDER in .* is not set"):
            resolve(path, "d")


# --- the files that are delivered ---------------------------------------------------------


def test_the_configuration_of_very_many_cells_holds():
    config = load_file(CONFIG / "scale.yaml")
    shards = config.datasets["sim_large"].shards
    assert shards is not None and 1_000_000 / shards.number <= 100_000


@pytest.mark.parametrize("name", ["config.yaml", "real.yaml", "paper.yaml"])
def test_the_delivered_configurations_hold(name, monkeypatch):
    monkeypatch.delenv("MOREBENCH_DATA", raising=False)
    config = load_file(CONFIG / name)
    methods = methods_of(config)  # variants come beside the method they are one of
    assert set(METHODS) == set(methods) & set(METHODS) == {m.spec.name for m in methods.values()}
    assert config.datasets


def test_the_default_configuration_states_every_default():
    content = yaml.safe_load((CONFIG / "config.yaml").read_text())
    for name, entry in content["methods"].items():
        if "method" in entry:  # a variant states what it changes
            continue
        assert entry == json.loads(json.dumps(dict(METHODS[name].params))), name
    for entry in content["datasets"].values():
        params = {
            k: v
            for k, v in DATASETS[entry["bundled"]].params.items()
            if k in entry.get("params", {})
        }
        assert entry.get("params", {}) == json.loads(json.dumps(params))


def _schema_script():
    path = CONFIG / "schemas" / "make.py"
    spec = importlib.util.spec_from_file_location("make_schema", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schema_is_that_of_the_models():
    script = _schema_script()
    assert script.FILE.read_text() == json.dumps(script.schema(), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIG.glob("*.yaml")))
def test_the_schema_accepts_what_the_models_accept(name):
    schema = json.loads(_schema_script().FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((CONFIG / name).read_text()), schema)


@pytest.mark.parametrize(
    "changes",
    [
        {"top": {"seed": [0]}}, {"lables": {}}, {"batch": 3}, {"top": {"seeds": []}},
        {"labels": {"column": "x", "source": "hearsay"}}, {"path": {"prot": "a.h5ad"}},
        {"methods": {"my-method": {}}}, {"methods": {"pca": {"resources": {"thread": 1}}}},
        {"methods": {"mine": {"method": "scvii"}}}, {"derive": {"dropout": 0.5}},
        {"derive": {"from": "x", "titrate": {"type": "a"}}},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_models_refuse(changes, config_of):
    schema = json.loads(_schema_script().FILE.read_text())
    jsonschema.validate(config_of(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config_of(**changes), schema)
    with pytest.raises(ConfigError):
        load(config_of(**changes))


# --- the page -----------------------------------------------------------------------------

SECTIONS = {
    "Top level": Config,
    "Seeds": Seeds,
    "Evaluation": Evaluation,
    "Frozen features": FeatureStage,
    "Downloads": Downloads,
    "Datasets": DatasetConfig,
    "Constant": Constant,
    "Labels": Labels,
    "Doublets": Doublets,
    "Several files": Part,
    "GEO": Geo,
    "CELLxGENE": Cellxgene,
    "Reading files": Read,
    "Gene names": GeneNames,
    "Annotation": Annotation,
    "About": About,
    "Derived datasets": Derive,
    "Titration": Titrate,
    "Quality control": QC,
    "Features": Features,
    "Splits": Splits,
    "Shards": Shards,
    "Partial": Partial,
    "Resources": Resources,
}


def _page():
    return (CONFIG / "README.md").read_text()


def _rows(section):
    """Return key: (type, default, meaning) of a section's table."""
    text = re.split(rf"^#+ {re.escape(section)}$", _page(), flags=re.M)[1]
    text = re.split(r"^#+ ", text, flags=re.M)[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*) \|$", text, flags=re.M)
    assert len({r[0] for r in rows}) == len(rows)
    return {r[0]: r[1:] for r in rows}


def _models(model, seen):
    """Collect the models below a model."""
    seen.add(model)
    for field in model.model_fields.values():
        for found in re.findall(r"\b[A-Z]\w+", str(field.annotation)):
            known = [m for m in SECTIONS.values() if m.__name__ == found]
            for one in known:
                if one not in seen:
                    _models(one, seen)
    return seen


def test_every_model_has_a_section():
    assert _models(Config, {Resources}) == set(SECTIONS.values())
    names = set(Config.model_json_schema()["$defs"]) | {"Config", "Resources"}
    assert names == {m.__name__ for m in SECTIONS.values()}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_is_on_the_page_with_its_default(section):
    fields = {f.alias or name: f for name, f in SECTIONS[section].model_fields.items()}
    rows = _rows(section)
    assert list(rows) == list(fields)
    for name, field in fields.items():
        kind, default, meaning = rows[name]
        assert kind and meaning
        if field.is_required():
            assert default == "required", name
        elif default.startswith("`") and name not in ("seeds", "layer", "splits"):
            stated = yaml.safe_load(default.strip("`"))
            value = field.get_default(call_default_factory=True)
            assert stated == value, name
        else:
            value = field.get_default(call_default_factory=True)
            assert value is None or value in ([], {}) or name in (
                "seeds", "evaluation", "qc", "features", "splits", "downloads"
            ), f"{name}: its default {value!r} is not stated"  # fmt: skip


def test_reserved_keys_of_a_method_are_on_the_page():
    assert list(_rows("Methods")) == list(RESERVED)


def test_links_within_the_page_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", _page(), flags=re.M)
    anchors = {h.lower().replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#([\w-]+)\)", _page())
    assert links and set(links) <= anchors


def test_the_examples_of_the_page_hold():
    blocks = re.findall(r"```yaml\n(.*?)```", _page(), flags=re.S)
    assert len(blocks) >= 3
    for block in blocks:
        config = load(yaml.safe_load(block), "example")
        assert methods_of(config)


def test_the_inline_examples_of_the_page_hold(config_of):
    """Rows such as ``batch: {value: zheng}`` are read as a key of their section."""
    places = {
        "Datasets": lambda x: config_of(**x),
        "Quality control": lambda x: config_of(qc=x),
        "Splits": lambda x: config_of(splits=x),
        "Constant": lambda x: config_of(tasks=[], **x),
        "Seeds": lambda x: config_of(top=x),
    }
    read = [{"files": "*", "format": "h5ad"}]
    extra = {
        "params": {"path": None, "bundled": "sim_multiome"},
        "modalities": {"path": "a.h5mu"},
        "url": {"path": None, "read": read},
        "from_id": {"read": read},
    }
    found = 0
    for section, place in places.items():
        text = " ".join(f"{r[0]} {r[2]}" for r in _rows(section).values())
        for example in re.findall(r"`(\w+: [^`]+)`", text):
            content = yaml.safe_load(example)
            content |= extra.get(next(iter(content)), {})
            load(place(content))
            found += 1
    assert found >= 7
