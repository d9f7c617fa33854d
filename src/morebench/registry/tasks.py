"""Tasks and their metrics: a line each."""

from __future__ import annotations

from collections.abc import Mapping

from morebench.registry.specs import MetricSpec, TaskSpec, by_name

TASKS: Mapping[str, TaskSpec] = by_name(
    TaskSpec(
        "integration",
        "Integration",
        "morebench.tasks.integration:score",
        ("all", "partial"),
        ("embedding", "graph"),
        "total",
        ("two_batches", "labels"),
    ),
    TaskSpec(
        "annotation",
        "Annotation",
        "morebench.tasks.annotation:score",
        ("lobo", "unseen"),
        ("labels", "embedding"),
        "macro_f1",
        ("two_batches", "trusted_labels"),
    ),
    TaskSpec(
        "open_set",
        "Open set",
        "morebench.tasks.open_set:score",
        ("newtype",),
        ("novelty", "probabilities", "embedding"),
        "unknown_auroc",
        ("trusted_labels",),
    ),
    TaskSpec(
        "zero_shot",
        "Zero-shot embedding",
        "morebench.tasks.zero_shot:score",
        ("unseen", "newtype"),
        ("embedding",),
        "unseen_nmi",
        ("labels",),
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

METRICS: Mapping[str, MetricSpec] = by_name(
    MetricSpec("bras", "BRAS", "integration", "batch", in_total=True, rises=True),
    MetricSpec("ilisi", "iLISI", "integration", "batch", in_total=True),
    MetricSpec("kbet", "kBET", "integration", "batch", in_total=True),
    MetricSpec("graph_connectivity", "Graph connectivity", "integration", "batch", in_total=True),
    MetricSpec("pcr", "PCR comparison", "integration", "batch", in_total=True, rises=True),
    MetricSpec("cilisi", "CiLISI", "integration", "batch"),
    MetricSpec("nmi_leiden", "NMI (Leiden)", "integration", "bio", in_total=True),
    MetricSpec("ari_leiden", "ARI (Leiden)", "integration", "bio", in_total=True),
    MetricSpec("silhouette_label", "Silhouette (label)", "integration", "bio", in_total=True),
    MetricSpec("clisi", "cLISI", "integration", "bio", in_total=True),
    MetricSpec("nmi_kmeans", "NMI (k-means)", "integration", "bio"),
    MetricSpec("ari_kmeans", "ARI (k-means)", "integration", "bio"),
    MetricSpec("isolated_labels", "Isolated labels", "integration", "bio"),
    MetricSpec("scgraph", "scGraph", "integration", "structure"),
    MetricSpec("batch_total", "Batch removal", "integration", "total"),
    MetricSpec("bio_total", "Biology kept", "integration", "total"),
    MetricSpec("total", "Total", "integration", "total"),
    MetricSpec("accuracy", "Accuracy", "annotation", "annotation"),
    MetricSpec("macro_f1", "Macro F1", "annotation", "annotation"),
    MetricSpec("balanced_accuracy", "Balanced accuracy", "annotation", "annotation"),
    MetricSpec("macro_f1_voted", "Macro F1, voted", "annotation", "annotation"),
    MetricSpec("macro_f1_knn", "Macro F1, nearest cells", "annotation", "annotation"),
    MetricSpec("rare_f1", "F1 of rare types", "annotation", "rare"),
    MetricSpec("rare_recall", "Recall of rare types", "annotation", "rare"),
    MetricSpec("calibration", "Calibration (1 - ECE)", "annotation", "calibration"),
    MetricSpec("unknown_auroc", "AUROC of unknown", "open_set", "open set"),
    MetricSpec("unknown_auprc", "AUPRC of unknown", "open_set", "open set"),
    MetricSpec("unseen_ilisi", "iLISI of unseen cells", "zero_shot", "batch"),
    MetricSpec("unseen_clisi", "cLISI of unseen cells", "zero_shot", "bio"),
    MetricSpec("unseen_silhouette", "Silhouette of unseen cells", "zero_shot", "bio"),
    MetricSpec("unseen_nmi", "NMI of unseen cells", "zero_shot", "bio"),
    MetricSpec("unseen_ari", "ARI of unseen cells", "zero_shot", "bio"),
    MetricSpec("auroc", "AUROC", "doublets", "doublets"),
    MetricSpec("auprc", "AUPRC", "doublets", "doublets"),
    MetricSpec("recall_at_rate", "Recall at the doublet rate", "doublets", "doublets"),
)
