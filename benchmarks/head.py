"""Speed and memory of MoRE's head: training and embedding, frozen features at hand.

    python benchmarks/head.py --threads 2                  # distinct cells a second of training
    python benchmarks/head.py --scale 10000 100000         # time a cell and peak memory

Cells are simulated (sparse counts of 2,000 genes, 4 batches, 8 types) and features are random
numbers of the backbone's width: neither changes what a step costs. ``--scale`` fits and
embeds in a process of its own for each size, prints the peak of its resident memory, and
exits with 1 above 6 GB or if a cell at the largest size takes over 1.2 times as long as at
the smallest. The first form exits with 1 below 20,000 distinct cells a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import scipy.sparse as sp

LEAST_PER_SECOND, MOST_GB, MOST_RATIO = 20_000, 6.0, 1.2
N_GENES, N_TYPES, N_BATCHES, WIDTH = 2_000, 8, 4, 768
CHUNK = 5_000


def simulate(n: int, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Return counts (n, 2000), batches and frozen features (n, 768) of simulated cells."""
    rng = np.random.default_rng(seed)
    base_g = rng.lognormal(-3.0, 1.0, N_GENES)
    type_cg = base_g * rng.lognormal(0, 0.7, (N_TYPES, N_GENES))
    batch_bg = rng.lognormal(0, 0.2, (N_BATCHES, N_GENES))
    kind_n, batch_n = rng.integers(0, N_TYPES, n), rng.integers(0, N_BATCHES, n)
    parts = []
    for start in range(0, n, CHUNK):
        rows = slice(start, start + CHUNK)
        mean_ng = type_cg[kind_n[rows]] * batch_bg[batch_n[rows]]
        parts.append(sp.csr_matrix(rng.poisson(mean_ng).astype(np.float32)))
    features = rng.normal(size=(n, WIDTH)).astype(np.float16)
    return sp.vstack(parts, format="csr"), batch_n.astype(str), features


def speed(n: int, threads: int) -> float:
    """Train with every default and return distinct cells a second of the training loop."""
    import torch

    from morebench.models.more import train
    from morebench.models.more.cells import one_modality
    from morebench.models.more.inputs import fit_transforms, make_inputs
    from morebench.models.more.settings import Settings

    torch.set_num_threads(threads)
    counts_ng, batch, features = simulate(n)
    settings = Settings()
    cells = one_modality(counts_ng, [f"g{i}" for i in range(N_GENES)], batch)
    transforms = fit_transforms(cells, {"rna": features}, settings, seed=0)
    inputs = make_inputs(cells, transforms, {"rna": features}, settings, seed=0)
    batch_n = np.unique(batch, return_inverse=True)[1]
    none = np.full(n, -1)
    begun = [0.0]

    def started(done: int, _total: int) -> None:
        if done == 1:
            begun[0] = time.perf_counter()

    train.fit_network(inputs, cells, batch_n, none, 0, settings, seed=0, progress=started)
    took = time.perf_counter() - begun[0]
    return (train.n_steps(n, settings) - 1) * min(settings.batch_size, n) / took


def one_size(n: int, threads: int) -> dict[str, float]:
    """Fit and embed; return seconds and the peak of resident memory in GB."""
    from morebench.models.more.cells import one_modality
    from morebench.models.more.model import MoRE
    from morebench.models.more.settings import Settings

    counts_ng, batch, features = simulate(n)
    cells = one_modality(counts_ng, [f"g{i}" for i in range(N_GENES)], batch)
    given = {"rna": features}
    begun = time.perf_counter()
    model = MoRE.fit_cells(cells, None, Settings(), features=given, device="cpu", threads=threads)
    model.embed(cells, features=given)
    took = time.perf_counter() - begun
    scale = 2**20 if sys.platform == "linux" else 2**30  # KiB on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    return {"cells": n, "seconds": took, "gb": peak}


def main() -> None:
    """Measure, print, and fail below the targets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--scale", type=int, nargs="+")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one_size(given.one, given.threads)))
        return
    if not given.scale:
        rate = speed(given.cells, given.threads)
        print(f"{rate:,.0f} distinct cells a second, {given.threads} threads (>= 20,000)")
        sys.exit(rate < LEAST_PER_SECOND)
    found = []
    for n in sorted(given.scale):
        command = [sys.executable, __file__, "--one", str(n), "--threads", str(given.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        each = 1e3 * found[-1]["seconds"] / n
        print(f"{n:>9,} cells: {found[-1]['seconds']:7.1f} s, {each:.3f} ms a cell, "
              f"{found[-1]['gb']:.2f} GB")  # fmt: skip
    first, last = (f["seconds"] / f["cells"] for f in (found[0], found[-1]))
    print(f"time a cell, largest to smallest: {last / first:.2f} (<= {MOST_RATIO})")
    sys.exit(last / first > MOST_RATIO or found[-1]["gb"] > MOST_GB)


if __name__ == "__main__":
    main()
