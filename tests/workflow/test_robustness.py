"""Robustness curves in the workflow: planned from the shipped configuration, run on a tiny one."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml

from morebench.plots.words import number
from tests.workflow.conftest import ROOT, Project

pytestmark = pytest.mark.workflow


def test_the_shipped_configuration_is_planned_without_a_network(tmp_path):
    """A file with Kang's batches and types stands in for the real one: planning reads headers."""
    config = yaml.safe_load((ROOT / "config/robustness.yaml").read_text())
    batches = [*config["datasets"]["kang_donors"]["splits"]["lobo"], "donor_107"]
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "batch": [batches[i % len(batches)] for i in range(400)],
            "cell_type": ["NK cells" if i % 10 == 0 else f"type {i % 3}" for i in range(400)],
        },
        index=[f"cell {i}" for i in range(400)],
    )
    counts = sp.csr_matrix(rng.poisson(1.0, (400, 60)).astype(np.float32))
    anndata.AnnData(counts, obs=obs).write_h5ad(tmp_path / "kang2018_pbmc_ctrl_8donors.h5ad")
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", config)
    done = project.snakemake("-n", MOREBENCH_DATA=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "draw robustness of kang_donors\n" in done.stdout
    assert "results/robustness/tables/robustness.tsv" in done.stdout
    # where labels change or a type is rare, annotation alone is scored
    assert "run logreg on kang_donors__noise02 / lobo-donor_1015, seed 0" in done.stdout
    assert "score annotation on kang_donors__noise02 / lobo-donor_1015" in done.stdout
    assert "score integration on kang_donors__depth16 / all" in done.stdout
    assert "score integration on kang_donors__noise02" not in done.stdout
    assert "run scanvi on kang_donors__missing098 / lobo-donor_1256, seed 0" in done.stdout
    assert "run scvi on kang_donors__nk0002_1" not in done.stdout


def test_curves_of_a_tiny_dataset(tmp_path, tiny_config):
    tiny = tiny_config["datasets"]["tiny"] | {
        "splits": {"lobo": ["batch1", "batch2"]}, "tasks": ["annotation"],
    }  # fmt: skip
    datasets = {
        "tiny": tiny,
        "tiny__noise": {"derive": {"from": "tiny", "label_noise": 0.7}},
    }
    methods = {"pca": {"n_components": 8}, "logreg": {"n_components": 8}}
    project = Project(tmp_path, {**tiny_config, "datasets": datasets, "methods": methods})
    assert "draw robustness of tiny" in project.planned()
    done = project.snakemake("results/report/index.html")
    assert done.returncode == 0, done.stdout
    tables = project.root / "results/tables"
    table = pd.read_csv(tables / "robustness.tsv", sep="\t")
    pooled = pd.read_csv(tables / "annotation_pooled.tsv", sep="\t")
    lacking = table[table["status"] != "ok"]  # logistic regression has no embedding to ask
    assert set(zip(lacking["method"], lacking["metric"], strict=True)) == {
        ("logreg", "macro_f1_knn")
    }
    assert set(lacking["status"]) == {"not_applicable"} and set(table["change"]) == {"label_noise"}
    for level, name in ((0.0, "tiny"), (0.7, "tiny__noise")):
        for method in methods:
            mine = table[(table["level"] == level) & (table["method"] == method)]
            same = pooled[(pooled["dataset"] == name) & (pooled["method"] == method)]
            assert mine["metric"].tolist() == same["metric"].tolist()
            for one, other in (("mean", "value"), ("low", "ci_low"), ("high", "ci_high")):
                np.testing.assert_array_equal(mine[one], same[other])
    known = table[table["status"] == "ok"]
    first, last = (known[known["level"] == x]["mean"].to_numpy() for x in (0.0, 0.7))
    assert (last < first).all(), "most labels are wrong: every metric of every method falls"
    text = (project.root / "results/figures/tiny/robustness.svg").read_text()
    assert "results/tables/robustness.tsv" in text and "Shown labels that are wrong" in text
    page = (project.root / "results/report/index.html").read_text()
    types = pd.read_csv(tables / "annotation_types.tsv", sep="\t")
    for name in datasets:
        text = (project.root / f"results/figures/{name}/types.svg").read_text()
        assert "results/tables/annotation_types.tsv" in text
        for row in types[types["dataset"] == name].to_dict("records"):
            assert f"({row['n_cells']:,})" in text and number(row["f1"]) in text
        for figure in ("types", "agreement"):
            assert f"../figures/{name}/{figure}.svg" in page


def test_without_derived_datasets_nothing_is_promised(tmp_path, tiny_config):
    project = Project(tmp_path, tiny_config)
    done = project.snakemake("-n")
    assert done.returncode == 0 and "robustness" not in done.stdout.replace(str(tmp_path), "")
