"""A dataset in ranges: the same output as in one piece, a stated sample, a typed failure."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from morebench.files import atomic_directory
from morebench.io.inputs import read_input
from morebench.io.outputs import read_output, read_status, write_status
from morebench.models.more.cache import find_features
from tests.workflow.conftest import ROOT, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

RUNS = [
    *[(d, run) for d in ("whole", "parts") for run in ("all/more", "partial/more_sup")],
    *[("sampled", f"all/{method}") for method in ("pca", "more_none", "more_broken")],
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    config = yaml.safe_load((ROOT / "tests/configs/shards.yaml").read_text())
    return Project(tmp_path_factory.mktemp("shards"), config)


@pytest.fixture(scope="module")
def done(project):
    runs = [f"results/embeddings/{d}/{run}/0" for d, run in RUNS]
    return project.root / "results", project.snakemake("--", *runs, timeout=1800)


def output(results, dataset, method, split="all", kinds=("embedding", "model")):
    data = read_input(results / "inputs" / dataset / "all.h5ad")
    directory = results / "embeddings" / dataset / split / method / "0"
    return read_output(directory, data.cell_ids, len(data.genes), kinds), read_status(directory)


def test_a_run_in_ranges_sums_its_parts(done):
    results, run = done
    (_, one), (_, many) = (output(results, d, "more") for d in ("whole", "parts"))
    assert many.state == one.state == "ok", run.stdout
    features = [find_features(results / f"features/{d}/all/minilm.16") for d in ("whole", "parts")]
    # the backbone may run in bfloat16, where the cells beside a cell in its batch matter
    one_nf, many_nf = (np.asarray(x_nf, dtype=float) for x_nf in features)
    cosine = (one_nf * many_nf).sum(1) / np.linalg.norm(one_nf, axis=1)
    assert (cosine / np.linalg.norm(many_nf, axis=1)).min() > 0.999
    assert many.notes["shards"] == 3
    folder = results / "shards" / "parts" / "all" / "more" / "0"
    fitted, *ranges = (read_status(folder / part) for part in ("fit", "0", "1", "2"))
    assert many.cpu_s == pytest.approx(sum(s.cpu_s for s in [fitted, *ranges]), abs=0.01)
    assert many.peak_rss_mb == max(s.peak_rss_mb for s in [fitted, *ranges])


def test_ranges_are_embedded_and_annotated_as_the_whole_is(done):
    results, _ = done
    kinds = ("embedding", "labels", "probabilities", "novelty", "model")
    whole, _ = output(results, "whole", "more_sup", "partial", kinds)
    parts, _ = output(results, "parts", "more_sup", "partial", kinds)
    assert list(parts.probabilities.columns) == list(whole.probabilities.columns)
    assert (parts.labels == whole.labels).mean() > 0.97  # cells decide with their neighbours
    np.testing.assert_allclose(parts.embedding, whole.embedding, atol=1e-5)


def test_a_model_fitted_on_a_sample_says_so(done):
    results, _ = done
    facts = json.loads((results / "inputs" / "sampled" / "all.json").read_text())
    assert facts["n_fitted"] == 300
    found, status = output(results, "sampled", "more_none")
    assert status.state == "ok" and len(found.embedding) == 743
    sampled = results / "shards" / "sampled" / "all" / "more_none" / "0"
    import anndata

    cells = anndata.read_h5ad(sampled / "fit" / "output.h5ad").obs_names
    data = read_input(results / "inputs" / "sampled" / "all.h5ad")
    batches = pd.Series(data.batch, index=data.cell_ids)
    assert 300 <= len(cells) <= 330
    assert set(batches[cells]) == set(data.batch)
    whole, _ = output(results, "sampled", "pca", kinds=("embedding",))
    assert whole.embedding.shape == (743, 10)  # a method that knows no ranges runs in one piece


def test_what_a_range_cannot_do_is_typed(done):
    results, _ = done
    status = read_status(results / "embeddings" / "sampled" / "all" / "more_broken" / "0")
    assert status.state == "unsupported"
    assert status.reason.startswith("range 0 of 2: structure: a range of cells")


@pytest.mark.faults
def test_retry_repairs_a_run_of_which_a_range_failed(project):
    """Without the range itself, what is gathered again of it would fail again."""
    target = "results/embeddings/sampled/all/more_none/0"
    first = project.snakemake(target, timeout=1800)
    assert first.returncode == 0, first.stdout
    parts = project.root / "results/shards/sampled/all/more_none/0"
    for folder in (parts / "1", project.root / target):
        status = read_status(folder)
        status.state, status.reason = "failed", "a node that was lost"
        with atomic_directory(folder) as temporary:
            write_status(temporary, status)
    again = subprocess.run(
        [sys.executable, "-m", "morebench.cli", "retry", "--cores", "2", target,
         "--configfile", "test.yaml"],
        cwd=project.root, env={**os.environ, "PYTHONPATH": str(project.root / "src")},
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert read_status(project.root / target).state == "ok"
    ran = re.findall(r"^Job \d+: (\w+ more_none on .*), seed 0$", again.stderr, re.M)
    assert sorted(ran) == [
        "gather more_none on sampled / all", "run more_none on range 1 of sampled / all",
    ]  # fmt: skip
