"""Doublet scores on real truth: the suite's methods, and Scrublet called by itself.

    MOREBENCH_DATA=/path/to/data python benchmarks/doublets.py [--datasets chcl] [--seeds 0]

Datasets are those of ``config/real.yaml``, prepared as the workflow prepares them; every
method runs at its registered defaults and is scored by the task ``doublets`` (1000
resamples). ``scrublet (direct)`` is the package itself on the counts of each batch, at its
defaults; its AUPRC and the adapter's must agree within 0.02, or the script ends with an
error. ``scrublet (exact)`` is the same with exact neighbours: what annoy's change.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

CONFIG = Path(__file__).parents[1] / "config" / "real.yaml"
METHODS = ("scrublet", "knn_doublets", "more_doublets", "random")
DIRECT = {"scrublet (direct)": True, "scrublet (exact)": False}  # approximate neighbours
TOLERANCE = 0.02


def prepared_input(name: str, folder: Path):
    """Prepare a dataset and the input of its split ``all``; return (MethodInput, truth)."""
    from morebench import config
    from morebench.data.features import make_input
    from morebench.data.prepare import prepare
    from morebench.io.inputs import read_input, write_input
    from morebench.io.prepared import write_prepared

    dataset = config.load_file(CONFIG).datasets[name]
    found = prepare(name, dataset)
    path, input_path = folder / f"{name}.h5mu", folder / f"{name}.h5ad"
    write_prepared(path, found.data, found.truth)
    every = np.ones(found.data.n_obs, dtype=bool)
    write_input(input_path, make_input(found.data, every, dataset.features, name).data)
    data = replace(read_input(input_path), all_genes_file=path)
    return data, found.truth["is_doublet"].to_numpy(dtype=float)


def direct(data, seed: int, approximate: bool) -> np.ndarray:
    """Scores of the scrublet package, one run a batch."""
    import scrublet

    from morebench.methods.scrublet import read_counts

    counts = read_counts(data)
    scores = np.empty(data.n_cells)
    for name in np.unique(data.batch):
        cells = np.flatnonzero(data.batch == name)
        scrub = scrublet.Scrublet(sp.csc_matrix(counts[cells]), random_state=seed)
        scores[cells] = scrub.scrub_doublets(use_approx_neighbors=approximate, verbose=False)[0]
    return scores


def main() -> None:
    """Run, score, print, compare."""
    from morebench.contract import MethodOutput
    from morebench.registry import METHODS as SPECS
    from morebench.tasks import doublets
    from morebench.tasks.contract import Candidate, TaskData

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", default=["cellbench", "chcl"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    apart = []
    for name in given.datasets:
        with tempfile.TemporaryDirectory() as folder:
            data, truth = prepared_input(name, Path(folder))
            known = ~np.isnan(truth)
            print(
                f"{name}: {data.n_cells} cells, {int(known.sum())} with truth, "
                f"{int((truth == 1).sum())} doublets ({truth[known].mean():.3f})"
            )
            nothing = np.full(data.n_cells, None, dtype=object)
            task = TaskData(name, "all", data.batch, nothing, truth, known, nothing, data.pca_np)
            for seed in given.seeds:
                values = {}
                for method in (*DIRECT, *METHODS):
                    start = time.perf_counter()
                    if method in DIRECT:
                        score = direct(data, seed, DIRECT[method])
                    else:
                        module, function = SPECS[method].entry.split(":")
                        call = getattr(importlib.import_module(module), function)
                        score = call(data, seed=seed, threads=1, **SPECS[method].params)
                        score = score.doublet_score
                    seconds = time.perf_counter() - start
                    output = MethodOutput(doublet_score=score)
                    run = Candidate(method, "unsupervised", seed, "ok", output)
                    found = doublets.score(task, [run], seed=0, threads=1, params={})
                    values[method] = {s.metric: s.value for s in found}
                    numbers = "  ".join(
                        f"{s.metric} {s.value:.3f} [{s.ci_low:.3f}, {s.ci_high:.3f}]" for s in found
                    )
                    print(f"  seed {seed}  {method:18s} {numbers}  {seconds:.1f} s", flush=True)
                gap = abs(values["scrublet"]["auprc"] - values["scrublet (direct)"]["auprc"])
                if gap > TOLERANCE:
                    apart.append(f"{name}, seed {seed}: {gap:.3f}")
    if apart:
        raise SystemExit(f"AUPRC of the adapter and of scrublet itself are apart: {apart}")


if __name__ == "__main__":
    main()
