"""What morebench knows: one line a dataset, method, task and metric.

Only the standard library is imported here, so that a dry run costs nothing. An
``entry`` is ``module:function``, imported where it is called.
"""

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
    "expression",
    "model",
)
SPLIT_KINDS = ("all", "partial", "lobo", "unseen", "newtype")
STATES = ("ok", "failed", "out_of_memory", "timeout", "unsupported", "unavailable")
ACCEPTED_STATES = ("ok", "unsupported", "unavailable")
TRUSTED_LABEL_SOURCES = ("expert", "assay", "planted")


def _frozen(**params: Any) -> Mapping[str, Any]:
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
    params: Mapping[str, Any] = field(default_factory=_frozen)


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
    """

    name: str
    title: str
    entry: str
    track: str
    outputs: tuple[str, ...]
    source: str
    licence: str
    params: Mapping[str, Any] = field(default_factory=_frozen)
    packages: tuple[str, ...] = ()
    environment: str = "core"
    all_genes: bool = False
    seeded: bool = True
    inductive: bool = False
    features: bool = False
    pretrained: str = ""
    threads: int = 1
    mem_mb: int = 6000
    runtime_min: int = 120
    gpu: int = 0


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
    """

    name: str
    title: str
    task: str
    aspect: str
    in_total: bool = False
    entry: str = ""


def _by_name(*specs: Any) -> Mapping[str, Any]:
    names = [s.name for s in specs]
    assert len(set(names)) == len(names), f"a name is registered twice: {sorted(names)}"
    return MappingProxyType({s.name: s for s in specs})


ENVIRONMENTS: Mapping[str, EnvironmentSpec] = _by_name(
    EnvironmentSpec("core", "envs/core.yaml"),
    EnvironmentSpec("harmony_published", "envs/harmony_published.yaml", True, ("harmonypy",)),
)

DATASETS: Mapping[str, DatasetSpec] = _by_name(
    DatasetSpec("pbmc68k", "morebench.data.bundled:pbmc68k", "700 real PBMCs (Zheng et al. 2017)"),
    DatasetSpec(
        "pbmc68k_batches",
        "morebench.data.bundled:pbmc68k_batches",
        "pbmc68k with planted technical effects and doublets",
        _frozen(
            n_batches=3,
            gene_effect=0.4,
            depth=(1.0, 0.7, 0.5),
            ambient=0.05,
            imbalance=1.0,
            doublet_rate=0.06,
            doublet_heterotypic=0.8,
            seed=0,
        ),
    ),
    DatasetSpec(
        "sim_multiome",
        "morebench.data.simulate:sim_multiome",
        "simulated RNA + ATAC + protein with shared cell states",
        _frozen(
            n_cells=900,
            n_genes=800,
            n_peaks=1200,
            n_proteins=30,
            n_types=8,
            n_rare=2,
            rare_fraction=0.02,
            n_batches=3,
            batch_effect=0.4,
            missing_fraction=0.15,
            seed=0,
        ),
    ),
)

# Settings of MoRE, all of them: those of models/more/settings.py (a test compares).
_MORE = _frozen(
    backbone="minilm",
    n_tokens=16,
    n_components=30,
    spectrum=0.75,
    feature_spectrum=0.5,
    shrink=False,
    features=True,
    structure=False,
    structure_steps=(2,),
    n_latent=48,
    n_hidden=128,
    dropout=0.1,
    fusion="adaptive",
    refine_steps=3,
    axes=True,
    axes_power=0.25,
    axes_batches=4.0,
    mask=0.1,
    batch_dropout=0.05,
    modality_dropout=0.2,
    likelihood="gaussian",
    w_reconstruction=3.0,
    w_dense=0.0,
    w_means=5.0,
    w_prototype=1.0,
    w_sparse=0.2,
    w_modalities=0.1,
    w_classes=0.5,
    w_contrast=0.2,
    w_compact=0.1,
    loss_weights="fixed",
    n_prototypes=30,
    n_pairs=5,
    temperature=0.1,
    steps=300,
    batch_size=512,
    learning_rate=0.002,
    weight_decay=0.0001,
    min_epochs=5,
)

# The steps of its annotation: of models/more/annotate_settings.py.
_ANNOTATION = _frozen(
    annotate_weight_power=0.5,
    annotate_use_embedding=False,
    annotate_calibrate=True,
    annotate_refine=True,
    annotate_markers=True,
    annotate_clusters=False,
    annotate_vote=False,
    annotate_unknown=0.15,
    annotate_usual_share=0.99,
)

METHODS: Mapping[str, MethodSpec] = _by_name(
    MethodSpec(
        "more",
        "MoRE",
        "morebench.methods.more:run",
        "unsupervised",
        ("embedding",),
        "this project, docs/methods/more.md",
        "BSD-3-Clause",
        _MORE,
        packages=("torch", "transformers", "safetensors"),
        all_genes=True,
        inductive=True,
        features=True,
    ),
    MethodSpec(
        "more_sup",
        "MoRE, semi-supervised",
        "morebench.methods.more:run_supervised",
        "semi-supervised",
        ("embedding", "labels", "probabilities"),
        "this project, docs/methods/more.md",
        "BSD-3-Clause",
        _frozen(**_MORE, **_ANNOTATION),
        packages=("torch", "transformers", "safetensors"),
        all_genes=True,
        inductive=True,
        features=True,
    ),
    MethodSpec(
        "more_zeroshot",
        "MoRE, untrained",
        "morebench.methods.more:run_zeroshot",
        "unsupervised",
        ("embedding",),
        "this project, docs/methods/more.md",
        "BSD-3-Clause",
        _frozen(
            backbone="minilm",
            n_tokens=16,
            n_components=30,
            spectrum=0.75,
            feature_spectrum=0.5,
            n_pairs=5,
        ),
        packages=("torch", "transformers", "safetensors"),
        all_genes=True,
        features=True,
    ),
    MethodSpec(
        "pca",
        "PCA, uncorrected",
        "morebench.methods.pca:run",
        "control",
        ("embedding",),
        "scikit-learn PCA of scaled log counts",
        "BSD-3-Clause",
        _frozen(n_components=30),
        packages=("scikit-learn",),
        seeded=False,
        inductive=True,
    ),
    MethodSpec(
        "random",
        "Random embedding",
        "morebench.methods.random:run",
        "control",
        ("embedding",),
        "standard normal numbers",
        "BSD-3-Clause",
        _frozen(n_components=30),
        packages=("numpy",),
        inductive=True,
    ),
    MethodSpec(
        "harmony",
        "Harmony (harmonypy 2)",
        "morebench.methods.harmony:run",
        "unsupervised",
        ("embedding",),
        "Korsunsky et al. 2019; harmonypy 2.1 at its defaults",
        "GPL-3.0",
        _frozen(
            n_components=30,
            theta=None,
            lamb=None,
            sigma=0.1,
            nclust=None,
            max_iter_harmony=10,
        ),
        packages=("harmonypy",),
    ),
    MethodSpec(
        "harmony_published",
        "Harmony (as published)",
        "morebench.methods.harmony:run",
        "unsupervised",
        ("embedding",),
        "Korsunsky et al. 2019; harmonypy 0.0.10 with lambda = 1, as in the paper",
        "GPL-3.0",
        _frozen(
            n_components=30,
            theta=None,
            lamb=1.0,
            sigma=0.1,
            nclust=None,
            max_iter_harmony=10,
        ),
        packages=("harmonypy",),
        environment="harmony_published",
    ),
    MethodSpec(
        "scvi",
        "scVI",
        "morebench.methods.scvi:run",
        "unsupervised",
        ("embedding", "model"),
        "Lopez et al. 2018; scvi-tools",
        "BSD-3-Clause",
        _frozen(
            n_hidden=128,
            n_latent=10,
            n_layers=1,
            dropout_rate=0.1,
            dispersion="gene",
            gene_likelihood="zinb",
            max_epochs=None,
            batch_size=128,
        ),
        packages=("scvi-tools", "torch"),
        inductive=True,
    ),
    MethodSpec(
        "scanvi",
        "scANVI",
        "morebench.methods.scvi:run_scanvi",
        "semi-supervised",
        ("embedding", "labels", "probabilities"),
        "Xu et al. 2021; scvi-tools, pre-trained by scVI",
        "BSD-3-Clause",
        _frozen(
            n_hidden=128,
            n_latent=10,
            n_layers=1,
            dropout_rate=0.1,
            dispersion="gene",
            gene_likelihood="zinb",
            pretrain_max_epochs=None,
            max_epochs=None,
            batch_size=128,
        ),
        packages=("scvi-tools", "torch"),
        inductive=True,
        pretrained="scvi",
    ),
    MethodSpec(
        "scrublet",
        "Scrublet",
        "morebench.methods.scrublet:run",
        "unsupervised",
        ("doublet_score",),
        "Wolock et al. 2019; scrublet 0.2.3, one run a batch",
        "MIT",
        _frozen(
            expected_doublet_rate=0.1,
            sim_doublet_ratio=2.0,
            min_counts=3,
            min_cells=3,
            min_gene_variability_pctl=85.0,
            n_prin_comps=30,
        ),
        packages=("scrublet",),
        all_genes=True,
    ),
    MethodSpec(
        "logreg",
        "Logistic regression on PCA",
        "morebench.methods.logreg:run",
        "semi-supervised",
        ("labels", "probabilities"),
        "scikit-learn LogisticRegression on scaled principal components",
        "BSD-3-Clause",
        _frozen(n_components=30, C=1.0, max_iter=1000, class_weight=None),
        packages=("scikit-learn",),
        seeded=False,
        inductive=True,
    ),
    MethodSpec(
        "celltypist",
        "CellTypist",
        "morebench.methods.celltypist:run",
        "semi-supervised",
        ("labels", "probabilities"),
        "Dominguez Conde et al. 2022; celltypist 1.7.1, trained on the cells shown",
        "MIT",
        _frozen(
            C=1.0,
            solver=None,
            max_iter=None,
            use_SGD=False,
            alpha=0.0001,
            feature_selection=False,
            top_genes=300,
            majority_voting=False,
        ),
        packages=("celltypist", "scikit-learn"),
        all_genes=True,
        seeded=False,
        inductive=True,
    ),
)

TASKS: Mapping[str, TaskSpec] = _by_name(
    TaskSpec(
        "integration",
        "Integration",
        "morebench.tasks.integration:score",
        ("all", "partial"),
        ("embedding",),
        "total",
        ("two_batches", "labels"),
    ),
    TaskSpec(
        "annotation",
        "Annotation",
        "morebench.tasks.annotation:score",
        ("lobo",),
        ("labels",),
        "macro_f1",
        ("two_batches", "trusted_labels"),
    ),
    TaskSpec(
        "doublets",
        "Doublets",
        "morebench.tasks.doublets:score",
        ("all",),
        ("doublet_score",),
        "auprc",
        ("doublets",),
    ),
)

METRICS: Mapping[str, MetricSpec] = _by_name(
    MetricSpec("bras", "BRAS", "integration", "batch", in_total=True),
    MetricSpec("ilisi", "iLISI", "integration", "batch", in_total=True),
    MetricSpec("kbet", "kBET", "integration", "batch", in_total=True),
    MetricSpec("graph_connectivity", "Graph connectivity", "integration", "batch", in_total=True),
    MetricSpec("pcr", "PCR comparison", "integration", "batch", in_total=True),
    MetricSpec("cilisi", "CiLISI", "integration", "batch"),
    MetricSpec("nmi_leiden", "NMI (Leiden)", "integration", "bio", in_total=True),
    MetricSpec("ari_leiden", "ARI (Leiden)", "integration", "bio", in_total=True),
    MetricSpec("silhouette_label", "Silhouette (label)", "integration", "bio", in_total=True),
    MetricSpec("clisi", "cLISI", "integration", "bio", in_total=True),
    MetricSpec("nmi_kmeans", "NMI (k-means)", "integration", "bio"),
    MetricSpec("ari_kmeans", "ARI (k-means)", "integration", "bio"),
    MetricSpec("isolated_labels", "Isolated labels", "integration", "bio"),
    MetricSpec("batch_total", "Batch removal", "integration", "total"),
    MetricSpec("bio_total", "Biology kept", "integration", "total"),
    MetricSpec("total", "Total", "integration", "total"),
    MetricSpec("accuracy", "Accuracy", "annotation", "annotation"),
    MetricSpec("macro_f1", "Macro F1", "annotation", "annotation"),
    MetricSpec("balanced_accuracy", "Balanced accuracy", "annotation", "annotation"),
    MetricSpec("auroc", "AUROC", "doublets", "doublets"),
    MetricSpec("auprc", "AUPRC", "doublets", "doublets"),
)


def split_kind(split: str) -> str:
    """Return the kind of a split id: ``lobo-donor_1`` is a ``lobo`` split."""
    return split.split("-", 1)[0]


def fit_split(split: str) -> str:
    """Return the split whose fit-visible cells a split shares.

    ``all``, ``partial`` and ``lobo-*`` show a method the same cells and differ in the
    labels only, so they share one input and the embeddings that need no labels.
    """
    return "all" if split_kind(split) in ("all", "partial", "lobo") else split
