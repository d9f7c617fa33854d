"""What a registered line says: one dataclass each for datasets, methods, tasks, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

TRACKS = ("unsupervised", "semi-supervised", "control")
OUTPUT_KINDS = (
    "embedding",
    "graph",
    "labels",
    "probabilities",
    "doublet_score",
    "novelty",
    "expression",
    "model",
)
SPLIT_KINDS = ("all", "partial", "lobo", "unseen", "newtype")
STATES = ("ok", "failed", "out_of_memory", "timeout", "unsupported", "unavailable")
ACCEPTED_STATES = ("ok", "unsupported", "unavailable")
TRUSTED_LABEL_SOURCES = ("expert", "assay", "planted")


def frozen(**params: Any) -> Mapping[str, Any]:
    """Return parameters that nothing can change."""
    return MappingProxyType(params)


@dataclass(frozen=True)
class EnvironmentSpec:
    """Where a method's process runs: the main environment, or one of its own.

    Attributes
    ----------
    file
        Conda environment file; its ``pip:`` section also builds the virtual environment.
    isolated
        Whether the pins conflict with the main environment.
    differs
        Packages whose pin departs from ``constraints.txt``.
    """

    name: str
    file: str
    isolated: bool = False
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset that morebench can make by itself, without a network."""

    name: str
    entry: str
    title: str
    params: Mapping[str, Any] = field(default_factory=frozen)


@dataclass(frozen=True)
class MethodSpec:
    """A method: where it is, what it may see, what it returns, what it may use.

    Attributes
    ----------
    entry
        ``module:function``, called as ``function(data, seed=, threads=, **params)``.
    track
        ``semi-supervised`` methods get the labels that the split shows; no other does.
    outputs
        What the method's output holds, out of ``OUTPUT_KINDS``.
    params
        The documented defaults of the package; every parameter the method takes.
    all_genes
        Whether the method reads the counts of all genes beside the split's input.
    truth
        Column of the truth that it is given for labels, of every cell, ``cell_type`` or
        ``is_doublet``: controls only.
    seeded
        A method without randomness runs once, whatever the number of seeds.
    inductive
        Whether it can embed cells that it was not fitted on.
    features
        Whether the method reads frozen features, made once by its parameters ``backbone``
        and ``n_tokens`` and shared by every method, split and seed with the same ones.
    pretrained
        Method whose fitted model it starts from, where that one is configured too with
        the same parameters (``pretrain_x`` here is ``x`` there): fitted once, not for
        every split and method again.
    sharded
        Whether it can be fitted on a sample of cells and, started from its own ``model``,
        give its output range by range; done so where a dataset has ``shards``.
    brief
        Whether a run takes seconds: on a cluster, where to submit a job takes seconds too,
        such runs share a submission.
    """

    name: str
    title: str
    entry: str
    track: str
    outputs: tuple[str, ...]
    source: str
    licence: str
    params: Mapping[str, Any] = field(default_factory=frozen)
    packages: tuple[str, ...] = ()
    environment: str = "core"
    all_genes: bool = False
    truth: str = ""
    seeded: bool = True
    inductive: bool = False
    features: bool = False
    pretrained: str = ""
    sharded: bool = False
    brief: bool = False
    threads: int = 1
    mem_mb: int = 6000
    runtime_min: int = 120
    gpu: int = 0


# Runs of seconds: all that share a submission ask for the same.
BRIEF = frozen(brief=True, runtime_min=60)


@dataclass(frozen=True)
class TaskSpec:
    """A task: on which splits, for which outputs, and what it needs of a dataset.

    Attributes
    ----------
    splits
        Kinds of split the task is scored on.
    outputs
        A method takes part if it returns one of these.
    needs
        Any of ``two_batches``, ``labels``, ``trusted_labels``, ``doublets``.
    rank_by
        The metric that orders methods in figures and the report.
    """

    name: str
    title: str
    entry: str
    splits: tuple[str, ...]
    outputs: tuple[str, ...]
    rank_by: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricSpec:
    """A metric of a task; ``aspect`` groups it, ``in_total`` says whether totals use it.

    ``entry`` is ``module:function`` of an integration metric that shares no computation
    with others: called as ``function(x_nd, labels, batch, seed=)``, it returns a number or
    raises ``UndefinedMetric``. The others are computed where their task shares their work.
    ``rises`` says that it rises with over-correction, as the self-test finds on
    ``pbmc68k_batches`` (a test compares): a run without a self-test of its own marks it so.
    """

    name: str
    title: str
    task: str
    aspect: str
    in_total: bool = False
    entry: str = ""
    rises: bool = False


def by_name(*specs: Any) -> Mapping[str, Any]:
    """Return specs by their names, each of which may be taken once."""
    names = [s.name for s in specs]
    assert len(set(names)) == len(names), f"a name is registered twice: {sorted(names)}"
    return MappingProxyType({s.name: s for s in specs})


def split_kind(split: str) -> str:
    """Return the kind of a split id: ``lobo-donor_1`` is a ``lobo`` split."""
    return split.split("-", 1)[0]


def fit_split(split: str) -> str:
    """Return the split whose fit-visible cells a split shares.

    ``all``, ``partial`` and ``lobo-*`` show a method the same cells and differ in the
    labels only, so they share one input and the embeddings that need no labels.
    """
    return "all" if split_kind(split) in ("all", "partial", "lobo") else split
