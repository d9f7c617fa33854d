"""The expected cells of small configurations, written out by hand."""

import pytest

from morebench import plan
from morebench.config import load
from morebench.plan import Cell, Run
from morebench.registry import fit_split, split_kind

LABELS = {"column": "cell_type", "source": "expert"}


def config_of(methods, seeds, **datasets):
    return load({"seeds": seeds, "datasets": datasets, "methods": dict.fromkeys(methods)})


def dataset(tasks, splits=None, **more):
    return {
        "path": "x.h5ad", "batch": "batch", "labels": LABELS, "tasks": tasks,
        "splits": splits or {}, **more,
    }  # fmt: skip


@pytest.fixture
def config():
    return config_of(
        ["pca", "scvi", "scanvi", "scrublet"],
        {"all": [0, 1], "partial": [1, 2], "lobo": [5], "unseen": [0], "newtype": [0]},
        one=dataset(
            ["integration", "annotation", "doublets"],
            {"partial": {}, "lobo": ["a b"], "unseen": ["c"]},
            doublets={"column": "is_doublet"},
        ),
        two=dataset(["integration"], methods=["scvi"]),
        three=dataset([], {"partial": {}}),
    )


def test_expected_cells_written_out_by_hand(config):
    def cell(split, task, *run):
        return Cell(split, task, Run(*run))

    assert plan.expected(config) == [
        # unsupervised methods; scANVI needs labels, Scrublet gives no embedding
        cell("all", "integration", "one", "all", "pca", 0),
        cell("all", "integration", "one", "all", "scvi", 0),
        cell("all", "integration", "one", "all", "scvi", 1),
        # the same fits scored on the hidden half, beside scANVI's own
        cell("partial", "integration", "one", "all", "pca", 0),
        cell("partial", "integration", "one", "all", "scvi", 1),
        cell("partial", "integration", "one", "all", "scvi", 2),
        cell("partial", "integration", "one", "partial", "scanvi", 1),
        cell("partial", "integration", "one", "partial", "scanvi", 2),
        # embeddings take part by the labels of the nearest shown cells
        cell("lobo-a_b", "annotation", "one", "all", "pca", 0),
        cell("lobo-a_b", "annotation", "one", "all", "scvi", 5),
        cell("lobo-a_b", "annotation", "one", "lobo-a_b", "scanvi", 5),
        cell("unseen-c", "annotation", "one", "unseen-c", "pca", 0),
        cell("unseen-c", "annotation", "one", "unseen-c", "scvi", 0),
        cell("unseen-c", "annotation", "one", "unseen-c", "scanvi", 0),
        cell("all", "doublets", "one", "all", "scrublet", 0),
        cell("all", "doublets", "one", "all", "scrublet", 1),
        cell("all", "integration", "two", "all", "scvi", 0),
        cell("all", "integration", "two", "all", "scvi", 1),
    ]


def test_runs_are_shared_between_splits_and_stand_once(config):
    assert plan.runs(config) == [
        Run("one", "all", "pca", 0),
        Run("one", "all", "scvi", 0),
        Run("one", "all", "scvi", 1),
        Run("one", "all", "scvi", 2),
        Run("one", "partial", "scanvi", 1),
        Run("one", "partial", "scanvi", 2),
        Run("one", "all", "scvi", 5),
        Run("one", "lobo-a_b", "scanvi", 5),
        Run("one", "unseen-c", "pca", 0),
        Run("one", "unseen-c", "scvi", 0),
        Run("one", "unseen-c", "scanvi", 0),
        Run("one", "all", "scrublet", 0),
        Run("one", "all", "scrublet", 1),
        Run("two", "all", "scvi", 0),
        Run("two", "all", "scvi", 1),
    ]


def test_scored_triples_are_those_with_a_method(config):
    assert plan.scored(config) == [
        ("one", "all", "integration"),
        ("one", "partial", "integration"),
        ("one", "lobo-a_b", "annotation"),
        ("one", "unseen-c", "annotation"),
        ("one", "all", "doublets"),
        ("two", "all", "integration"),
    ]
    none = config_of(["scrublet"], [0], one=dataset(["annotation"], {"lobo": ["a"]}))
    assert plan.scored(none) == plan.runs(none) == plan.expected(none) == []


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2], [4, 2, 0]])
def test_a_method_without_randomness_runs_once_whatever_the_seeds(seeds):
    config = config_of(
        ["pca"], {"all": seeds, "partial": [9, 8]}, one=dataset(["integration"], {"partial": {}})
    )
    assert plan.runs(config) == [Run("one", "all", "pca", seeds[0])]
    assert [c.split for c in plan.expected(config)] == ["all", "partial"]


def test_a_variant_has_runs_of_its_own():
    config = load(
        {
            "seeds": [3],
            "datasets": {"one": dataset(["integration"])},
            "methods": {"pca": None, "pca_d10": {"method": "pca", "n_components": 10}},
        }
    )
    assert plan.runs(config) == [Run("one", "all", "pca", 3), Run("one", "all", "pca_d10", 3)]


@pytest.mark.parametrize(
    ("split", "kind", "fitted"),
    [
        ("all", "all", "all"),
        ("partial", "partial", "all"),
        ("lobo-b1", "lobo", "all"),
        ("unseen-b1", "unseen", "unseen-b1"),
        ("newtype-t_1", "newtype", "newtype-t_1"),
        ("lobo-a-b", "lobo", "all"),
    ],
)
def test_fit_split(split, kind, fitted):
    assert split_kind(split) == kind
    assert fit_split(split) == fitted
