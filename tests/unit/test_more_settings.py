"""Settings of MoRE: what is refused, and that they survive JSON."""

import json

import pytest

from morebench.errors import ConfigError
from morebench.models.more.settings import Settings


def test_settings_survive_json():
    made = Settings(structure=True, structure_steps=(1, 3), backbone="none", w_dense=0)
    assert Settings.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert Settings(structure_steps=[1, 3]).structure_steps == (1, 3)


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("likelihood", "poisson", "gaussian, nb"),
        ("fusion", "concat", "adaptive, mean"),
        ("loss_weights", "free", "fixed, learned"),
        ("mask", 1.0, "a share below 1"),
        ("batch_dropout", 1.5, "a share below 1"),
        ("modality_dropout", 1, "a share below 1"),
        ("dropout", -0.1, "0 or more"),
        ("w_dense", -1, "0 or more"),
        ("learning_rate", float("nan"), "0 or more"),
        ("n_latent", 1, "2 or more"),
        ("batch_size", 4, "8 or more"),
        ("n_prototypes", 1, "2 or more"),
        ("steps", 0, "1 or more"),
        ("temperature", 0, "above 0"),
    ],
)
def test_what_cannot_be_meant_is_named_with_what_is_valid(key, value, valid):
    with pytest.raises(ConfigError, match=f"{key}: found .*valid: .*{valid}"):
        Settings(**{key: value})


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("n_latent", 8.5, "int"),
        ("steps", "many", "int"),
        ("n_tokens", True, "int"),
        ("features", 1, "bool"),
        ("mask", "0.1", "float"),
        ("backbone", None, "str"),
    ],
)
def test_a_value_of_another_type_is_named(key, value, valid):
    with pytest.raises(ConfigError, match=f"{key}: found .*; valid: .*{valid}"):
        Settings(**{key: value})


@pytest.mark.parametrize("steps", [(), (0,), (2, -1), 2, (1.5,), "12"])
def test_steps_of_the_structure_branch(steps):
    with pytest.raises(ConfigError, match="structure_steps: found"):
        Settings(structure=True, structure_steps=steps)


def test_an_objective_without_a_term_is_refused():
    weights = {k: 0 for k in Settings().to_dict() if k.startswith("w_")}
    with pytest.raises(ConfigError, match="w_reconstruction.*all 0"):
        Settings(**weights)
    assert Settings(**{**weights, "w_means": 1}).w_means == 1


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match="unknown setting 'n_layers'; valid: backbone, "):
        Settings.from_dict({"n_layers": 2})


@pytest.mark.parametrize(
    ("changes", "used"),
    [({}, True), ({"features": False}, False), ({"backbone": "none"}, False)],
)
def test_frozen_features_take_part_unless_switched_off(changes, used):
    assert Settings(**changes).uses_backbone is used
