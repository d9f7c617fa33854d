"""Environment groups: pins, virtual environments made once, and Harmony as published."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from morebench import environments
from morebench.errors import ConfigError, MorebenchError
from morebench.registry import ENVIRONMENTS, METHODS, EnvironmentSpec

ROOT = Path(__file__).resolve().parents[2]
ENV_FILES = sorted((ROOT / "envs").glob("*.yaml"))


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {normal(name): version.strip() for name, version in pairs}


def pinned(file):
    return {normal(n): v for n, v in (line.split("==") for line in environments.pins(file))}


# --- the environment files ------------------------------------------------------------


def test_every_registered_environment_has_its_file_and_every_file_is_registered():
    assert {ROOT / e.file for e in ENVIRONMENTS.values()} == set(ENV_FILES)
    assert {m.environment for m in METHODS.values()} <= set(ENVIRONMENTS)


@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_pins_equal_the_constraints_but_for_what_differs(name):
    spec = ENVIRONMENTS[name]
    pins, wanted = pinned(ROOT / spec.file), constraints()
    differs = {normal(p) for p in spec.differs}
    assert set(pins) <= set(wanted)
    assert {p for p in pins if pins[p] != wanted[p]} == differs
    assert spec.isolated == bool(differs)


def test_core_pins_exactly_the_direct_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = {normal(re.match(r"[\w.-]+", d)[0]) for d in project["dependencies"]}
    # pygments is the reports extra of snakemake
    assert set(pinned(ROOT / "envs/core.yaml")) == direct | {"pygments"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dependencies: [python=3.11]", "exactly one pip: list"),
        ("[]", "exactly one pip: list"),
        ("dependencies:\n- pip:\n  - numpy>=2", "found numpy>=2; valid is name==version"),
        ("dependencies:\n- pip:\n  - numpy==", "found numpy==; valid"),
    ],
)
def test_bad_environment_file(tmp_path, text, message):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        environments.pins(tmp_path / "e.yaml")


def test_missing_environment_file_and_unknown_group(tmp_path):
    with pytest.raises(ConfigError, match="no such environment file"):
        environments.pins(tmp_path / "e.yaml")
    with pytest.raises(ConfigError, match="found 'nope'; valid is core, harmony_published"):
        environments.interpreter("nope", root=tmp_path)


def test_main_environment_is_the_running_interpreter(tmp_path):
    assert environments.interpreter("core", root=tmp_path) == Path(sys.executable)
    assert list(tmp_path.iterdir()) == []


def test_versions():
    found = environments.versions(Path(sys.executable), ["numpy", "no-such-package"])
    assert found == {"numpy": np.__version__, "no-such-package": "not installed"}
    with pytest.raises(MorebenchError, match="no-python: does not run"):
        environments.versions(Path("no-python"), ["numpy"])


# --- virtual environments, from a package made here, without a network -----------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Register an isolated group that pins a one-line package found in a local folder."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    info = "tinypkg-1.0.dist-info"
    with zipfile.ZipFile(wheels / "tinypkg-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tinypkg.py", "ANSWER = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    for key, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": "/dev/null",
        "PYTHONPATH": str(ROOT / "src"),
    }.items():
        monkeypatch.setenv(key, value)
    root = tmp_path / "a root"  # paths with spaces must work
    root.mkdir()
    pin(root, "tinypkg==1.0")
    spec = EnvironmentSpec("tiny", "tiny.yaml", True, ("tinypkg",))
    monkeypatch.setattr(environments, "ENVIRONMENTS", {"tiny": spec})
    return root


def pin(root, line):
    (root / "tiny.yaml").write_text(f"dependencies:\n- pip:\n  - {line}\n")


def answer(python):
    command = [str(python), "-c", "import tinypkg, sys; print(tinypkg.ANSWER, sys.prefix)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.faults
@pytest.mark.slow
def test_made_once_then_reused_and_made_again_where_half_made(tiny):
    said = []
    python = environments.interpreter("tiny", root=tiny, on_progress=said.append)
    assert answer(python) == f"42 {python.parents[1]}"
    assert python.parents[2] == tiny / ".venvs" and python.parents[1].name.startswith("tiny-")
    assert said[0].startswith("making environment tiny") and said[-1] == "environment tiny is ready"
    marker = python.parents[1] / "ready.json"
    assert json.loads(marker.read_text())["packages"] == {"tinypkg": "1.0"}
    assert environments.versions(python, ["tinypkg", "numpy"]) == {
        "tinypkg": "1.0",
        "numpy": "not installed",
    }
    said.clear()
    assert environments.interpreter("tiny", root=tiny, on_progress=said.append) == python
    assert said == []
    marker.unlink()  # as an interrupted process would leave it
    (python.parents[1] / "rubbish").touch()
    assert environments.interpreter("tiny", root=tiny, on_progress=said.append) == python
    assert said and not (python.parents[1] / "rubbish").exists() and answer(python)


@pytest.mark.slow
def test_pins_with_hashes_take_no_other_file(tiny):
    wheels = tiny.parent / "wheels"
    file = tiny / "hashed" / "tiny.txt"
    file.parent.mkdir()
    digest = hashlib.sha256((wheels / "tinypkg-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    file.write_text(f"tinypkg==1.0 --hash=sha256:{digest[::-1]}\n")
    with pytest.raises(environments.EnvironmentBuildError, match="DO NOT MATCH THE HASHES"):
        environments.interpreter("tiny", root=tiny)
    file.write_text(f"tinypkg==1.1 --hash=sha256:{digest}\n")
    with pytest.raises(environments.EnvironmentBuildError, match="found tinypkg==1.1.*make hashes"):
        environments.interpreter("tiny", root=tiny)
    file.write_text(f"TinyPkg==1.0 --hash=sha256:{digest}\n")
    assert answer(environments.interpreter("tiny", root=tiny)).startswith("42 ")


def test_other_pins_are_another_environment(tiny):
    before = environments._key(environments.pins(tiny / "tiny.yaml"))
    pin(tiny, "tinypkg==1.1")
    assert environments._key(environments.pins(tiny / "tiny.yaml")) != before


@pytest.mark.faults
@pytest.mark.slow
def test_failure_shows_pips_words_and_leaves_no_environment(tiny):
    pin(tiny, "tinypkg==9.9")
    for _ in range(2):  # a failure is not remembered as success
        with pytest.raises(environments.EnvironmentBuildError) as error:
            environments.interpreter("tiny", root=tiny)
        assert "pip install failed with exit status 1" in str(error.value)
        assert "No matching distribution found for tinypkg==9.9" in str(error.value)
    left = sorted(p.suffix for p in (tiny / ".venvs").iterdir())
    assert left in ([".lock", ".log"], [".log"])


@pytest.mark.slow
def test_two_at_the_same_time_make_it_once(tiny):
    said, pythons = [], []

    def make():
        pythons.append(environments.interpreter("tiny", root=tiny, on_progress=said.append))

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pythons) == 3 and len(set(pythons)) == 1 and answer(pythons[0])
    assert sum(line.startswith("making") for line in said) == 1
    assert sum(line.startswith("waiting") for line in said) == 2


# --- Harmony as published -------------------------------------------------------------

CHILD = """
import sys, numpy as np, pandas as pd, scipy.sparse as sp, harmonypy
from morebench.methods import harmony
from morebench.contract import MethodInput
with np.load(sys.argv[1]) as file:
    pca, batch = file["pca"], file["batch"]
n, p = pca.shape
data = MethodInput(
    np.array([f"c{i:06d}" for i in range(n)]), np.array(["g"]),
    sp.csr_matrix((n, 1), dtype=np.float32), pca, pd.DataFrame({"batch": batch}), np.ones(n, bool),
)
params = dict(theta=None, lamb=1.0, sigma=0.1, nclust=None, max_iter_harmony=10)
out = harmony.run(data, seed=4, threads=1, n_components=p, **params)
loaded = {name.split(".")[0] for name in sys.modules} & {"scanpy", "torch", "scvi", "anndata"}
assert not loaded, loaded
direct = out.embedding.T
if n >= 45:  # below, harmonypy 0.0.10 fails on its own with a plain number as sigma
    direct = harmonypy.run_harmony(
        pca.T.astype(float), pd.DataFrame({"batch": batch}), "batch", lamb=1.0, random_state=4
    ).Z_corr
np.savez(sys.argv[2], adapter=out.embedding, direct=direct, release=out.notes["harmonypy"])
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    yield environments.interpreter("harmony_published", root=root, files=ROOT)
    shutil.rmtree(root)  # half a gigabyte


@pytest.fixture
def child(published, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))

    def call(pca, batch):
        np.savez(tmp_path / "in.npz", pca=pca.astype(np.float32), batch=batch)
        command = [str(published), "-c", CHILD, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "out.npz") as file:
            return {key: file[key] for key in file.files}

    return call


def shifted(n, p, shift, seed=0):
    """Return three cell types in two batches that a shift sets apart, and the batches."""
    rng = np.random.default_rng(seed)
    batch = np.where(np.arange(n) % 2, "a", "b")
    centres, direction = rng.normal(0, 6, (3, p)), rng.normal(size=p)
    pca = centres[rng.integers(0, 3, n)] + rng.normal(size=(n, p))
    return pca + shift * (batch == "a")[:, None] * direction / np.linalg.norm(direction), batch


def same_batch_share(embedding, batch, k=15):
    """Return the mean share of a cell's k nearest neighbours that are of its own batch."""
    distance = ((embedding[:, None] - embedding[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return float((batch[distance.argsort(1)[:, :k]] == batch[:, None]).mean())


@pytest.mark.slow
@pytest.mark.parametrize(("n", "p"), [(150, 12), (50, 50)])
def test_published_adapter_equals_harmonypy_0_0_10(child, n, p):
    pca, batch = shifted(n, p, shift=4)
    out = child(pca, batch)
    assert out["release"] == "0.0.10" and out["direct"].shape == (p, n)
    np.testing.assert_allclose(out["adapter"], out["direct"].T, rtol=1e-5, atol=1e-5)
    rows = [np.corrcoef(a, b)[0, 1] for a, b in zip(out["adapter"], pca, strict=True)]
    assert np.median(rows) > 0.8  # each row is still its own cell


@pytest.mark.slow
def test_published_adapter_on_few_cells(child):
    pca, batch = shifted(24, 5, shift=2)
    out = child(pca, batch)
    assert out["adapter"].shape == (24, 5) and np.isfinite(out["adapter"]).all()


@pytest.mark.slow
def test_published_harmony_mixes_strongly_shifted_batches(child):
    pca, batch = shifted(400, 10, shift=12)
    assert same_batch_share(pca, batch) > 0.99
    out = child(pca, batch)
    # a perfect mixture of two equal batches has a share of .5
    assert same_batch_share(out["adapter"], batch) < 0.6


@pytest.mark.slow
def test_published_environment_holds_its_pins_only(published, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    names = [p.split("==")[0] for p in environments.pins(ROOT / "envs/harmony_published.yaml")]
    freeze = subprocess.run(
        [str(published), "-m", "pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {normal(line.split("==")[0]) for line in freeze} == {normal(name) for name in names}
    assert environments.versions(published, ["torch"]) == {"torch": "not installed"}
