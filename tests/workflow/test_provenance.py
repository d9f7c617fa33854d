"""A finished run twice: the same tables, figures that name their origin, and its crate."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from morebench.crate import write_crate
from morebench.errors import Damaged, MorebenchError
from morebench.files import copy
from tests.seal import seal
from tests.workflow.conftest import ROOT, Project

pytestmark = pytest.mark.workflow
DC = "{http://purl.org/dc/elements/1.1/}"
# What a run took, and when it was made: nothing else may differ between two runs.
OF_THE_MOMENT = {"runtime.tsv", "run.json"}


def git(folder: Path, *words: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(folder), *author, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def tables(project: Project) -> dict[str, bytes]:
    folder = project.root / "results/tables"
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".tsv", ".json")}


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny_config):
    """A run of a committed checkout."""
    project = Project(tmp_path_factory.mktemp("first"), tiny_config)
    for name in ("CITATION.cff", "LICENSE", "README.md", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, project.root / name)
    git(project.root, "init", "-q")
    git(project.root, "add", *(p.name for p in project.root.iterdir() if p.name != ".git"))
    git(project.root, "commit", "-qm", "code")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout
    return project


def test_the_same_tables_again_with_another_number_of_cores(ran, tmp_path, tiny_config):
    other = Project(tmp_path, tiny_config)
    done = other.snakemake("results/tables/run.json", "--cores", "1")  # no figures
    assert done.returncode == 0, done.stdout
    first, second = tables(ran), tables(other)
    assert set(first) == set(second) and len(first) > 10
    differ = {name for name in first if first[name] != second[name]}
    assert differ <= OF_THE_MOMENT


def test_every_figure_names_its_table_the_configuration_and_the_commit(ran):
    figures = sorted((ran.root / "results/figures").rglob("*.svg"))
    assert len(figures) == 5
    run = json.loads((ran.root / "results/tables/run.json").read_text())
    assert run["commit"] == git(ran.root, "rev-parse", "--short=12", "HEAD")
    for figure in figures:
        tree = ET.parse(figure)
        source = [e.text for e in tree.iter(f"{DC}source")]
        assert len(source) == 1 and (ran.root / source[0]).is_file(), figure
        described = [e.text for e in tree.iter(f"{DC}description")]
        wanted = f"table: {source[0]}; config: {run['config_hash']}; commit: {run['commit']}"
        assert described == [wanted], figure


def test_every_status_says_what_ran_where(ran):
    files = sorted((ran.root / "results/embeddings").rglob("status.json"))
    assert len(files) == 3
    for file in files:
        status = json.loads(file.read_text())
        assert {"python", "system", "blas", "numpy", "scipy", "anndata"} <= set(status["versions"])
        assert "cores" in status["hardware"] and "GiB" in status["hardware"]


# --- the crate ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(ran, tmp_path_factory):
    """The crate as the command line writes it."""
    output = tmp_path_factory.mktemp("crate") / "run.zip"
    command = [sys.executable, "-m", "morebench.cli", "crate", "results", str(output)]
    env = {**os.environ, "PYTHONPATH": str(ran.root / "src")}
    done = subprocess.run(command, cwd=ran.root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def test_every_file_of_the_crate_is_described_and_has_its_hash(archive, ran):
    crate = ROCrate(archive)
    described = {e.id: e for e in crate.data_entities}
    with zipfile.ZipFile(archive) as members:
        names = set(members.namelist())
        assert names - {"ro-crate-metadata.json"} == set(described)
        for name, entity in described.items():
            content = members.read(name)
            assert entity["sha256"] == hashlib.sha256(content).hexdigest(), name
            assert int(entity["contentSize"]) == len(content)
    results = {n.removeprefix("results/") for n in names if n.startswith("results/")}
    for made in ("config.yaml", "tables/scores.tsv", "tables/check.txt", "report/index.html"):
        assert made in results
        assert (
            described[f"results/{made}"]["sha256"]
            == hashlib.sha256((ran.root / "results" / made).read_bytes()).hexdigest()
        )
    assert len([r for r in results if r.endswith("status.json")]) == 3
    assert len([r for r in results if r.endswith(".svg")]) == 5
    assert not [r for r in results if r.endswith((".h5ad", ".h5mu", ".parquet"))]
    assert {"rules/embed.smk", "workflow_scripts/embed.py", "src/morebench/cli.py"} <= names


def test_the_crate_is_a_workflow_run(archive, ran):
    crate = ROCrate(archive)
    run = json.loads((ran.root / "results/tables/run.json").read_text())
    root = crate.root_dataset
    assert [e.id.rsplit("/", 2)[-2] for e in root["conformsTo"]] == [
        "process", "workflow", "workflow-ro-crate",
    ]  # fmt: skip
    assert root["datePublished"] == run["finished"] and run["commit"] in root["description"]
    assert root["license"].id == "https://spdx.org/licenses/BSD-3-Clause"
    assert root["author"]["name"] == "The morebench authors"
    workflow = crate.mainEntity
    assert workflow.id == "Snakefile" and "ComputationalWorkflow" in workflow.type
    assert workflow["programmingLanguage"]["name"] == "Snakemake"
    [action] = crate.get_by_type("CreateAction")
    assert root["mentions"] is action
    assert action["instrument"] is workflow and action["endTime"] == run["finished"]
    assert action["object"].id == "results/config.yaml"
    results = {e.id for e in action["result"]}
    assert {"results/tables/scores.tsv", "results/report/index.html"} <= results
    assert "GiB" in action["description"] and "blas: openblas" in action["description"]
    software = {(e["name"], e["softwareVersion"]) for e in workflow["softwareRequirements"]}
    assert ("snakemake", run["packages"]["snakemake"]) in software
    assert {"harmonypy", "numpy", "scikit-learn", "python"} <= {name for name, _ in software}


def test_the_same_run_is_the_same_crate(archive, ran, tmp_path):
    again = tmp_path / "again.zip"
    results = ran.root / "results"
    for file in results.rglob("*"):
        os.utime(file, (1, 1))  # no date of a file stands in the crate
    write_crate(results, again, root=ran.root)
    assert again.read_bytes() == archive.read_bytes()
    folder = tmp_path / "folder"
    n_files = write_crate(results, folder, root=ran.root)
    with zipfile.ZipFile(archive) as members:
        assert len(members.namelist()) == n_files + 1
        for name in members.namelist():
            assert (folder / name).read_bytes() == members.read(name)
    with pytest.raises(MorebenchError, match="is there already"):
        write_crate(results, folder, root=ran.root)


def test_what_is_no_finished_run_of_its_configuration_has_no_crate(ran, tmp_path):
    results = tmp_path / "results"
    for name in ("tables/run.json", "tables/check.txt", "config.yaml"):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ran.root / "results" / name, results / name)
    config = (results / "config.yaml").read_text()
    (results / "config.yaml").write_text(config.replace("n_boot: 100", "n_boot: 101"))
    with pytest.raises(Damaged, match="config.yaml: its SHA-256"):
        write_crate(results, tmp_path / "out", root=ran.root)
    seal(results / "config.yaml")
    with pytest.raises(MorebenchError, match="of another configuration"):
        write_crate(results, tmp_path / "out", root=ran.root)
    (results / "config.yaml").write_text(config)
    seal(results / "config.yaml")
    with pytest.raises(MorebenchError, match="needs the checkout"):
        write_crate(results, tmp_path / "out", root=tmp_path)
    (results / "tables/check.txt").unlink()
    with pytest.raises(MorebenchError, match="the run is not finished"):
        write_crate(results, tmp_path / "out", root=ran.root)
    assert not (tmp_path / "out").exists()
