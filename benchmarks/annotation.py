"""What each step of MoRE's annotation does: batches held out in turn, one step changed at a time.

    MOREBENCH_DATA=/path/to/data snakemake --cores 2 --configfile config/real.yaml
    python benchmarks/annotation.py [--results results/real] [--datasets kang_stim kang_donors]

Reads the inputs, splits and frozen features that the first command makes. The network is fitted
once for each held-out batch (one seed) and the annotator once for each line. Printed, over the
pooled cells: macro F1, accuracy, recall of the types below 5 % of the cells, expected
calibration error (15 bins; mean over batches by their cells), share of cells called
``unknown``, which count as wrong.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

RARE = 0.05
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no class weights": {"weight_power": 0.0},
    "no calibration": {"calibrate": False},
    "no refinement": {"refine": False},
    "refinement without markers": {"markers": False},
    "refinement with clusters": {"clusters": True},
    "with majority voting": {"vote": True},
    "without the nearest cells": {"w_embedding": 0.0},
    "nearest cells at the classifier's weight": {"w_embedding": 1.0},
    "head sees the embedding": {"use_embedding": True},
    "no whitened components": {"whitened": 0},
    "never unknown": {"unknown": 0.0, "usual_share": 1.0},
}


def answers(results: Path, dataset: str, batch: str) -> tuple[np.ndarray, dict[str, tuple]]:
    """Return the true types of a held-out batch, and each variant's labels and probabilities."""
    import torch

    from morebench.evaluate import task_data
    from morebench.io.inputs import read_input
    from morebench.methods import more as adapter
    from morebench.models.more.annotate import Annotator
    from morebench.models.more.annotate_settings import AnnotateSettings
    from morebench.models.more.cache import find_features
    from morebench.models.more.labels import label_codes
    from morebench.models.more.model import MoRE
    from morebench.models.more.settings import Settings

    torch.set_num_threads(1)
    input_file = results / f"inputs/{dataset}/all.h5ad"
    given = read_input(input_file)
    _, task = task_data(
        dataset, f"lobo-{batch}", input_file,
        results / f"splits/{dataset}/lobo-{batch}.parquet", results / f"truth/{dataset}.parquet",
    )  # fmt: skip
    given.all_genes_file = results / f"prepared/{dataset}.h5mu"
    cells = adapter._cells(given)
    settings = Settings()
    folder = results / f"features/{dataset}/all/{settings.backbone}.{settings.n_tokens}"
    features = {adapter._main_modality(given): np.array(find_features(folder))}
    model = MoRE.fit_cells(cells, task.shown, settings, features=features, device="cpu", threads=1)
    inputs = model._inputs(cells, features)
    z_nd, x_np = model._embed(cells, inputs)[0], model._expression(inputs)
    classes, label_n = label_codes(task.shown, len(cells))
    usable = np.array([v is not None for v in task.cell_type]) & task.scored
    truth, found = task.cell_type[usable].astype(str), {}
    for name, change in VARIANTS.items():
        annotator = Annotator.fit(
            x_np, z_nd, label_n, classes, cells.batch,
            log_ng=model._logs(cells), counts_ng=model._counts(cells),
            settings=replace(AnnotateSettings(), **change),
        )  # fmt: skip
        told = annotator.predict(
            x_np, z_nd, cells.batch, log_ng=model._logs(cells), counts_ng=model._counts(cells)
        )
        code_n = np.array([np.flatnonzero(classes == t)[0] if t in classes else -1 for t in truth])
        found[name] = told.labels[usable], told.probabilities[usable], code_n
    return truth, found


def main() -> None:
    """Fit, annotate, pool, print."""
    import yaml
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    from morebench.metrics.classification import calibration_errors

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results/real"))
    parser.add_argument("--datasets", nargs="+", default=["cellbench", "kang_stim", "kang_donors"])
    given = parser.parse_args()
    content = yaml.safe_load((Path(__file__).parents[1] / "config/real.yaml").read_text())
    for dataset in given.datasets:
        pooled = [
            answers(given.results, dataset, b)
            for b in content["datasets"][dataset]["splits"]["lobo"]
        ]
        truth = np.concatenate([t for t, _ in pooled])
        names, count = np.unique(truth, return_counts=True)
        rare = names[count < RARE * len(truth)]
        print(f"{dataset}: {len(truth)} cells, rare: {', '.join(rare) or 'none'}")
        print(
            "| variant | macro F1 | accuracy | recall of rare types | calibration error | unknown |"
        )
        print("|---|---|---|---|---|---|")
        for variant in VARIANTS:
            labels = np.concatenate([found[variant][0] for _, found in pooled])
            f1 = f1_score(truth, labels, labels=names, average="macro", zero_division=0)
            recall = (
                recall_score(truth, labels, labels=rare, average="macro", zero_division=0)
                if len(rare)
                else np.nan
            )
            errors = [
                calibration_errors(p.max(1), p.argmax(1) == code, np.arange(len(p))[None])[0]
                for _, p, code in (f[variant] for _, f in pooled)
            ]
            error = np.average(errors, weights=[len(t) for t, _ in pooled])
            print(
                f"| {variant} | {f1:.3f} | {accuracy_score(truth, labels):.3f} | {recall:.3f} | "
                f"{error:.3f} | {(labels == 'unknown').mean():.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
