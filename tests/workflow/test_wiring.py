"""What rules hand to a method: labels, truth, all genes and models only where declared."""

from __future__ import annotations

import re
import shlex
from copy import deepcopy

import pytest

from morebench.registry import METHODS, fit_split
from tests.workflow.conftest import Project

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def commands(tmp_path_factory, tiny_config):
    """Every command that a dry run with all methods and kinds of split would start, in words."""
    config = deepcopy(tiny_config)
    config["methods"] = {name: {} for name in METHODS}
    config["datasets"]["tiny"]["splits"] = {
        "partial": {}, "lobo": ["batch1"], "unseen": ["batch2"], "newtype": ["type01"],
    }  # fmt: skip
    config["datasets"]["tiny"]["tasks"] = ["integration", "annotation", "open_set", "zero_shot"]
    config["datasets"]["pairs"] = {
        "bundled": "pbmc68k_batches", "batch": "batch", "doublets": {"column": "is_doublet"},
        "tasks": ["doublets"],
    }  # fmt: skip
    done = Project(tmp_path_factory.mktemp("wiring"), config).snakemake("-n", "-p")
    assert done.returncode == 0, done.stdout
    return [
        shlex.split(line.split("2>>")[0])
        for line in done.stdout.splitlines()
        if "workflow_scripts/embed.py" in line
    ]


def given(words):
    """Return what an embed command is given, by option."""
    return {k: v for k, v in zip(words, words[1:], strict=False) if k.startswith("--")}


def test_methods_are_given_what_they_declare_and_nothing_else(commands):
    seen = set()
    for words in commands:
        told = given(words)
        place = words[[w.endswith("/embed.py") for w in words].index(True) + 1]
        dataset, split, name, _ = place.split("/")[2:]
        spec = METHODS[name]
        assert told["--input"] == f"results/inputs/{dataset}/{fit_split(split)}.h5ad"
        labels = f"results/splits/{dataset}/{split}.parquet"
        semi = spec.track == "semi-supervised"
        assert told.get("--labels") == (labels if semi else None), name
        truth = f"results/truth/{dataset}.parquet"
        assert told.get("--truth") == (truth if spec.truth else None), name
        genes = f"results/prepared/{dataset}.h5mu"
        assert told.get("--all-genes") == (genes if spec.all_genes else None), name
        earlier = told.get("--pretrained")
        assert bool(earlier) == bool(spec.pretrained), name
        if earlier:
            wanted = rf"results/embeddings/{dataset}/{fit_split(split)}/{spec.pretrained}/\d+"
            assert re.fullmatch(wanted, earlier)
        # no other word leads to labels
        others = [w for k, w in told.items() if k not in ("--labels", "--truth")]
        assert not [w for w in others if "/splits/" in w or "/truth/" in w], name
        seen.add((name, dataset, split))
    assert {name for name, _, _ in seen} == set(METHODS)
    of_doublets = {n for n, spec in METHODS.items() if "doublet_score" in spec.outputs}
    assert {name for name, dataset, _ in seen if dataset == "pairs"} == of_doublets
    assert {split for *_, split in seen} == {
        "all", "partial", "lobo-batch1", "unseen-batch2", "newtype-type01",
    }  # fmt: skip
