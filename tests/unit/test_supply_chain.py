"""What is installed is what was pinned: versions, hashes, weights."""

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from morebench import environments
from morebench.registry import ENVIRONMENTS

ROOT = Path(__file__).resolve().parents[2]
HASHED = ROOT / "envs/hashed"
_spec = importlib.util.spec_from_file_location("make_hashed", HASHED / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)

CONSTRAINTS = make.pinned((ROOT / "constraints.txt").read_text().splitlines())
FILES = sorted(HASHED.glob("*.txt"))
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")
# Releases of a maintainer's stolen account: they send credentials away when imported.
COMPROMISED = {"lightning": ("2.6.2", "2.6.3")}


def named(name: str) -> dict[str, str]:
    return make.pinned((HASHED / f"{name}.txt").read_text().splitlines())


def test_names_and_versions_are_those_of_the_constraints():
    again = "run: make hashes"
    assert named("main") == {k: v for k, v in CONSTRAINTS.items() if k != "torch"}, again
    assert named("torch-cpu") == {"torch": CONSTRAINTS["torch"]}, again
    assert named("torch")["torch"] == CONSTRAINTS["torch"], again
    assert not (set(named("torch")) - {"torch"}) & set(CONSTRAINTS)
    assert named("build").items() <= named("main").items(), again
    told = make.pinned((HASHED / "tools.in").read_text().splitlines())
    assert told and told.items() <= named("tools").items(), again


@pytest.mark.parametrize("name", [n for n, e in ENVIRONMENTS.items() if e.isolated])
def test_isolated_environments_have_their_pins_hashed(name):
    file = ROOT / ENVIRONMENTS[name].file
    hashed = file.parent / environments.HASHED / f"{file.stem}.txt"
    words = environments._requested(hashed, environments.pins(file))
    assert words == ["--require-hashes", "--requirement", str(hashed)]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_package_has_hashes_and_no_line_names_an_index(file):
    text = file.read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    entries = make.entries(text)
    assert list(entries) == list(make.pinned(text.splitlines()))
    for name, entry in entries.items():
        first, *hashes = entry.splitlines()
        assert re.fullmatch(r"[\w.-]+==[\w.+!-]+ \\", first), first
        assert hashes and all(HASH.match(line) for line in hashes), name
        continued = [line.endswith("\\") for line in hashes]
        assert all(continued[:-1]) and not continued[-1], name


def test_torch_for_cpus_is_the_file_of_its_version():
    assert make.CPU_WHEEL.startswith(f"torch-{CONSTRAINTS['torch']}+cpu-")
    assert make.CPU_SHA256 in (HASHED / "torch-cpu.txt").read_text()
    assert make.CPU_SHA256 not in (HASHED / "torch.txt").read_text()


def test_compromised_releases_are_shut_out():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    for name, versions in COMPROMISED.items():
        for version in versions:
            assert not asked[name].contains(version), f"pyproject.toml allows {name} {version}"
            assert CONSTRAINTS[name] != version
            for file in FILES:
                assert make.pinned(file.read_text().splitlines()).get(name) != version
    assert asked["lightning"].contains(CONSTRAINTS["lightning"])


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt"])
def test_minilm_is_the_pinned_one_or_none(name, tmp_path, monkeypatch):
    from morebench.errors import Unavailable
    from morebench.models.more import backbone

    folder = backbone._minilm_folder()
    copy = tmp_path / "changed_minilm"
    shutil.copytree(folder, copy / "model")
    (copy / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(backbone, "MINILM_PACKAGE", copy.name)
    assert backbone._minilm_folder() == copy / "model"
    content = bytearray((copy / "model" / name).read_bytes())
    content[-2] ^= 1  # one bit
    (copy / "model" / name).write_bytes(content)
    with pytest.raises(Unavailable, match=f"{name}.*: SHA-256 is .*, expected"):
        backbone._minilm_folder()
