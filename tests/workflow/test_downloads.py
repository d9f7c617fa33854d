"""The paper's datasets from a server to tables: planned without data, fetched, kept, locked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from morebench.data.lock import read_lock
from morebench.io.prepared import read_prepared, read_truth
from tests.geo import downloads, lay_out
from tests.servers import Server
from tests.workflow.conftest import ROOT, Project

pytestmark = pytest.mark.workflow
PAPER = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
INTEGRATED = "baron"
# Read by Python as it starts: whatever asks for a name or a connection ends the run.
NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise RuntimeError(f"no network here: {event} {arguments[1:]}")

sys.addaudithook(refuse)
"""
TARGETS = ["results/tables/summary.tsv", *(f"results/truth/{d}.parquet" for d in PAPER["datasets"])]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of every dataset of paper.yaml; one of them is integrated by two methods."""
    folder = tmp_path_factory.mktemp("paper")
    made = lay_out(folder / "files")
    (folder / "project").mkdir()
    config = {**PAPER, "results": "results", "seeds": [0], "evaluation": {"n_boot": 100}}
    config["methods"] = {"pca": {"n_components": 5}, "random": {"n_components": 5}}
    config["datasets"] = {}
    for name, dataset in PAPER["datasets"].items():
        small = {"features": {"n_top": 40, "n_pcs": 5, "min_cells": 1}, "sha256": {}}
        config["datasets"][name] = {**dataset, **small, "splits": {}, "tasks": []}
    config["datasets"][INTEGRATED] |= {"splits": {"partial": {}}, "tasks": ["integration"]}
    with Server(folder / "files") as server:
        config["downloads"] = downloads(server.url, folder / "cache", "config/data.lock")
        project = Project(folder / "project", config)
        yield project, project.snakemake("--", *TARGETS, timeout=1500), made, server


def test_the_paper_is_planned_offline_without_any_data(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(tmp_path), "--configfile", str(ROOT / "config/paper.yaml")]
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(NO_NETWORK)
    environment = {
        **os.environ,
        "MOREBENCH_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(tmp_path / "site"),
    }
    asked = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    refused = subprocess.run(asked, env=environment, capture_output=True, text=True)
    assert "no network here: socket.getaddrinfo" in refused.stderr
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    text = run.stdout + run.stderr
    assert run.returncode == 0, text
    planned = set(re.findall(r"^(?:Job|localjob|local job) ?\d*: (.+)$", text, re.M))
    for name, dataset in PAPER["datasets"].items():
        assert {f"download {name}", f"prepare {name}"} <= planned
        for task in {"integration"} & set(dataset["tasks"]):
            assert f"score {task} on {name} / partial" in planned
            assert f"run scvi on {name} / all, seed 2" in planned
    assert not (tmp_path / "cache").exists()


def test_every_dataset_is_fetched_prepared_and_one_is_scored(done):
    project, run, made, server = done
    assert run.returncode == 0, run.stdout
    results = project.root / "results"
    for name, whole in made.items():
        truth = read_truth(results / f"truth/{name}.parquet").set_index("original_id")
        assert set(truth.index) == set(whole.counts.index), name
        data = read_prepared(results / f"prepared/{name}.h5mu")
        total = sum(part.X.sum() for part in data.mod.values())
        assert total == whole.counts.to_numpy().sum(), name
    summary = pd.read_csv(results / "tables/summary.tsv", sep="\t")
    totals = summary[(summary["metric"] == "total") & (summary["method"] == "pca")]
    assert set(totals["dataset"]) == {INTEGRATED} and totals["mean"].between(0, 1).all()


def test_the_lock_holds_every_file_and_a_shared_one_once(done):
    project, _, _, server = done
    lock = read_lock(project.root / "config/data.lock")
    names = [name for name in lock if "GSE96583_RAW.tar" in name]
    assert names == ["geo/GSE96583/GSE96583_RAW.tar"]  # three datasets need it
    for name, entry in lock.items():
        path = server.folder.parent / "cache" / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
        assert entry.url.startswith(server.url)
    tar = "geo/series/GSE96nnn/GSE96583/suppl/GSE96583_RAW.tar"
    assert len(server.ranges[tar]) == 1
    manifest = json.loads((project.root / "results/downloads/snare.json").read_text())
    assert len(manifest["files"]) == 7
    assert {f["sha256"] for f in manifest["files"]} <= {e.sha256 for e in lock.values()}


def test_offline_goes_from_the_cache(done):
    project, _, _, server = done
    before = dict(server.bytes_sent)
    project.config["downloads"]["offline"] = True
    assert "Nothing to be done" in project.snakemake("--", *TARGETS).stdout
    shutil.rmtree(project.root / "results/downloads")
    truth = project.root / f"results/truth/{INTEGRATED}.parquet"
    kept = truth.read_bytes()
    again = project.snakemake("--forcerun", "download", "--", str(truth.relative_to(project.root)))
    assert again.returncode == 0, again.stdout
    assert truth.read_bytes() == kept
    assert dict(server.bytes_sent) == before
    project.config["downloads"]["offline"] = False


def test_offline_without_the_files_says_which_before_any_job(done, tmp_path):
    project, _, _, _ = done
    config = {**project.config, "datasets": {"snare": project.config["datasets"]["snare"]}}
    config["downloads"] = {**config["downloads"], "offline": True, "cache": str(tmp_path / "no")}
    (tmp_path / "other").mkdir()
    run = Project(tmp_path / "other", config).snakemake("-n")
    assert run.returncode != 0
    assert "offline, and 7 of 7 files are not there" in run.stdout
    for name in ("meta_c1.csv", "GSE126074_AdBrainCortex_SNAREseq_cDNA.counts.mtx.gz"):
        assert re.search(rf"{tmp_path}/no/\S+/{name} from http\S+/{name}", run.stdout)


@pytest.mark.faults
def test_a_file_that_changed_on_the_server_is_refused(done):
    project, _, _, server = done
    name = "GSE153935_TLDS_AllCells.txt.gz"
    old = server.folder / "geo/series/GSE153nnn/GSE153935/suppl" / name
    kept, cached = old.read_bytes(), server.folder.parent / "cache/geo/GSE153935" / name
    changed = kept[:-9] + bytes([kept[-9] ^ 1]) + kept[-8:]
    old.write_bytes(changed)
    cached.unlink()
    run = project.snakemake("--forcerun", "download", "--", "results/downloads/gse153935.json")
    assert run.returncode != 0
    for content in (kept, changed):
        assert hashlib.sha256(content).hexdigest() in run.stdout
    assert f"delete the entry of geo/GSE153935/{name} in config/data.lock" in run.stdout
    assert not cached.exists()
