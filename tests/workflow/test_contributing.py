"""CONTRIBUTING.md, done: a dataset, a method and a metric, one file and one line each."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from tests.workflow.conftest import ROOT, Project

pytestmark = pytest.mark.workflow

DATASET = '''"""A dataset of one's own."""

import anndata
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp


def mine(*, n_cells: int) -> mudata.MuData:
    """Return two batches of two types."""
    rng = np.random.default_rng(0)
    kind = np.arange(n_cells) % 2
    counts = rng.poisson(1 + 3 * np.outer(kind, np.arange(60) % 2), (n_cells, 60))
    data = mudata.MuData({"rna": anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)))})
    data.obs["batch"] = np.where(np.arange(n_cells) < n_cells // 2, "a", "b")
    data.obs["cell_type"] = np.where(kind == 1, "odd", "even")
    return data
'''


def code_of(heading: str) -> str:
    """Return the Python block under a heading of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    block = re.search(r"```python\n(.*?)```", section, re.S)
    assert block is not None, f"no code under {heading}"
    lines = block.group(1).splitlines()
    return "\n".join(line.removeprefix("   ") for line in lines) + "\n"


def test_a_dataset_a_method_and_a_metric_take_one_file_and_one_line_each(tmp_path, tiny_config):
    config = {
        **tiny_config,
        "datasets": {
            "mine": {
                "bundled": "mine",
                "batch": "batch",
                "labels": {"column": "cell_type", "source": "planted"},
                "features": {"n_top": 50, "n_pcs": 5, "min_cells": 1},
                "tasks": ["integration"],
            }
        },
        "methods": {"mine": {"n_components": 3}, "random": {"n_components": 3}},
    }
    project = Project(tmp_path, config)
    library = project.root / "src" / "morebench"
    (library / "data" / "mine.py").write_text(DATASET)
    (library / "methods" / "mine.py").write_text(code_of("A method"))
    (library / "metrics" / "mine.py").write_text(code_of("A metric"))
    lines = {
        "DATASETS": 'DatasetSpec("mine", "morebench.data.mine:mine", "Mine", frozen(n_cells=80))',
        "METHODS": 'MethodSpec("mine", "Mine", "morebench.methods.mine:run", "unsupervised", '
        '("embedding",), "a test", "BSD-3-Clause", frozen(n_components=4))',
        "METRICS": 'MetricSpec("mine", "Mine", "integration", "bio", '
        'entry="morebench.metrics.mine:mine")',
    }
    files = {"DATASETS": "datasets.py", "METHODS": "methods.py", "METRICS": "tasks.py"}
    for name, line in lines.items():
        file = library / "registry" / files[name]
        text, count = re.subn(
            rf"(?m)^({name}: .*by_name\()$", rf"\1\n    {line},", file.read_text()
        )
        assert count == 1, name
        file.write_text(text)

    done = project.snakemake("results/tables/summary.tsv")
    assert done.returncode == 0, done.stdout
    summary = pd.read_csv(project.root / "results/tables/summary.tsv", sep="\t")
    found = summary[(summary["dataset"] == "mine") & (summary["method"] == "mine")]
    values = found.set_index("metric")["mean"]
    assert 0 < values["mine"] < 1
    assert 0 < values["total"] < 1
    assert set(found["title"]) == {"Mine"}
