"""Calibrate the suite against an independent run on cellbench; never part of a ranking.

    MOREBENCH_DATA=/path/to/data python benchmarks/calibration.py

All 1,408 cells are scored (doublets too), genes in at least 5 cells, 2,000 batch-aware
highly variable genes, 30 dimensions; scVI and scANVI with 2 layers, 30 latent dimensions,
nb, 200 epochs; scANVI with the labels of Dropseq_3cl hidden and scored on all cells.
Prints totals beside those of the independent run, and exits with 1 if one is further
than .03 away.
"""

from __future__ import annotations

import importlib
import sys
import time

import numpy as np

from morebench.data.features import make_input
from morebench.data.prepare import prepare
from morebench.data.spec import DatasetConfig, Features, Labels
from morebench.io.inputs import read_input, write_input
from morebench.registry import METHODS
from morebench.tasks.contract import Candidate, TaskData
from morebench.tasks.integration import score

HELD_OUT = "Dropseq_3cl"
REFERENCE = {"pca": 0.64, "harmony": 0.83, "scvi": 0.83, "scanvi": 0.85}
SCVI_REF = {"n_layers": 2, "n_latent": 30, "gene_likelihood": "nb"}
CHANGES = {
    "scvi": {**SCVI_REF, "max_epochs": 200},
    "scanvi": {**SCVI_REF, "pretrain_max_epochs": 200, "max_epochs": 20},
}
TOLERANCE = 0.03


def main() -> None:
    """Run the four methods, score them, compare."""
    import tempfile
    from pathlib import Path

    dataset = DatasetConfig(
        path="${MOREBENCH_DATA}/cellbench_lungcelllines_multitech_doublets.h5ad",
        batch="batch",
        labels=Labels(column="cell_type", source="expert"),
    )
    prepared = prepare("cellbench", dataset)
    n = len(prepared.truth)
    made = make_input(prepared.data, np.ones(n, dtype=bool), Features(), "cellbench")
    with tempfile.TemporaryDirectory() as folder:
        write_input(Path(folder) / "input.h5ad", made.data)
        data = read_input(Path(folder) / "input.h5ad")
    types = prepared.truth["cell_type"].to_numpy(dtype=object)
    hidden = types.copy()
    hidden[data.batch == HELD_OUT] = None
    candidates = []
    for name in REFERENCE:
        spec = METHODS[name]
        module, function = spec.entry.split(":")
        data.labels = hidden if spec.track == "semi-supervised" else None
        start = time.monotonic()
        run = getattr(importlib.import_module(module), function)
        output = run(data, seed=0, threads=1, **{**spec.params, **CHANGES.get(name, {})})
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
        candidates.append(Candidate(name, spec.track, 0, "ok", output))
    task = TaskData(
        dataset="cellbench",
        split="calibration",
        batch=data.batch,
        cell_type=types,
        is_doublet=np.full(n, np.nan),
        scored=np.ones(n, dtype=bool),
        shown=np.full(n, None, dtype=object),
        pca_np=data.pca_np[:, :30],
    )
    scores = score(task, candidates, seed=0, threads=2, params={})
    found = {(s.method, s.metric): s.value for s in scores}
    print("method    batch    bio  total  independent  difference")
    worst = 0.0
    for name, wanted in REFERENCE.items():
        batch, bio, total = (found[name, k] for k in ("batch_total", "bio_total", "total"))
        worst = max(worst, abs(total - wanted))
        print(
            f"{name:8s} {batch:6.3f} {bio:6.3f} {total:6.3f} {wanted:12.2f} {total - wanted:+11.3f}"
        )
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
