"""The workflow on 10,000 to a million cells: CPU seconds and peak of memory, stage by stage.

    python benchmarks/scale.py                        # 10,000 and 100,000 cells
    python benchmarks/scale.py 10000 100000 1000000   # by hand

Runs config/scale.yaml with other numbers of cells, one Snakemake call a stage, and takes what
its processes used from the system. The simulated cells are written to an h5ad first, in a process
of its own that does not count: the workflow then reads a file, as it does of a user's. Seconds are
of CPU, since other work may share the machine; those of Snakemake itself are in them. Exits with
1 above 16 GB, or if time grows faster than n^1.1 (slope of log seconds over log cells, all
stages together).
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MOST_GB, MOST_SLOPE = 16.0, 1.1
CELLS_A_RANGE = 100_000
DATASET = "sim_large"
STAGES = {
    "prepare and split": "splits/{d}/all.parquet",
    "genes and PCA": "inputs/{d}/all.h5ad",
    "more: fit on the sample": "shards/{d}/all/more/0/fit",
    "more: embed the ranges, gather": "embeddings/{d}/all/more/0",
    "PCA as a method, neighbours and metrics": "scores/{d}/all/integration.parquet",
    "tables, figures, report": "tables/check.txt",
}


def write_cells(path: Path, n: int) -> None:
    """Write the simulated cells of config/scale.yaml as an h5ad."""
    from morebench.data.simulate_large import sim_large
    from morebench.registry import DATASETS

    data = sim_large(**{**DATASETS[DATASET].params, "n_cells": n})
    rna = data["rna"]
    rna.obs = data.obs.loc[rna.obs_names]
    rna.write_h5ad(path)


def measured(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return CPU seconds and the largest resident memory in GB below it."""
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit((folder / "log.txt").read_text()[-3000:])
    scale = 2**20 if sys.platform == "linux" else 2**30  # KiB on Linux, bytes on macOS
    return used.ru_utime + used.ru_stime, used.ru_maxrss / scale


def one_size(n: int, cores: int) -> dict[str, tuple[float, float]]:
    """Return (CPU seconds, GB) by stage of the workflow on n cells."""
    config = yaml.safe_load((ROOT / "config" / "scale.yaml").read_text())
    found = {}
    with tempfile.TemporaryDirectory(prefix="morebench-scale-") as name:
        folder = Path(name)
        dataset = config["datasets"][DATASET]
        cells = folder / "cells.h5ad"
        _, gb = measured([sys.executable, __file__, "--write", str(cells), str(n)], folder)
        print(f"{n:>9,} cells, {cells.stat().st_size / 2**30:.2f} GB, written with {gb:.2f} GB")
        del dataset["bundled"], dataset["params"]
        dataset["path"] = str(cells)
        dataset["shards"]["number"] = max(2, math.ceil(n / CELLS_A_RANGE))
        config["results"] = os.path.relpath(folder / "results", ROOT)
        file = folder / "scale.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--nolock"]
        for stage, target in STAGES.items():
            path = f"{config['results']}/{target.format(d=DATASET)}"
            found[stage] = measured([*command, "--configfile", str(file), "--", path], folder)
            print(f"{n:>9,} cells, {stage}: {found[stage][0]:.1f} s of CPU, "
                  f"{found[stage][1]:.2f} GB", flush=True)  # fmt: skip
    return found


def slope(sizes: list[int], seconds: list[float]) -> float:
    """Return the exponent of growth by least squares on logarithms; NaN of one size."""
    if len(sizes) < 2:
        return math.nan
    x, y = [math.log(n) for n in sizes], [math.log(s) for s in seconds]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mx) ** 2 for a in x)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / spread


def main() -> None:
    """Measure, print the table, and fail beyond the targets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cells", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="FILE", help="only write the cells")
    given = parser.parse_args()
    if given.write is not None:
        write_cells(given.write, given.cells[0])
        return
    sizes = sorted(given.cells)
    runs = {n: one_size(n, given.cores) for n in sizes}
    last = " to ".join(f"{n:,}" for n in sizes[-2:])
    print("\n| stage | " + " | ".join(f"{n:,} cells" for n in sizes) + f" | exponent, {last} |")
    print("|---|" + "---|" * (len(sizes) + 1))
    for stage in STAGES:
        cells = [f"{runs[n][stage][0]:.0f} s, {runs[n][stage][1]:.1f} GB" for n in sizes]
        grows = slope(sizes[-2:], [runs[n][stage][0] for n in sizes[-2:]])
        print(f"| {stage} | " + " | ".join(cells) + f" | {grows:.2f} |")
    total = [sum(s for s, _ in runs[n].values()) for n in sizes]
    peak = max(gb for n in sizes for _, gb in runs[n].values())
    grows = slope(sizes, total)
    end = slope(sizes[-2:], total[-2:])
    print("| all | " + " | ".join(f"{t:.0f} s" for t in total) + f" | {end:.2f} |")
    print(
        f"\npeak {peak:.1f} GB (<= {MOST_GB}), exponent of all sizes {grows:.2f} (<= {MOST_SLOPE})"
    )
    sys.exit(peak > MOST_GB or grows > MOST_SLOPE)


if __name__ == "__main__":
    main()
