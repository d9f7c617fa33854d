"""How much of a hidden type MoRE calls unknown, and how much of other hidden cells by mistake.

    MOREBENCH_DATA=/path/to/data snakemake --cores 2 --configfile config/newtypes.yaml
    python benchmarks/unknown.py [--results results/newtypes]

Reads what the first command makes. Printed for each set: means over its types, each hidden in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np


def shares(results: Path, dataset: str, split: str) -> tuple[float, float]:
    """Return the shares called unknown of the scored cells of the new type, and of the others."""
    from morebench.contract import UNKNOWN
    from morebench.evaluate import task_data
    from morebench.io.outputs import read_output
    from morebench.registry import METHODS

    given, task = task_data(
        dataset, split, results / f"inputs/{dataset}/{split}.h5ad",
        results / f"splits/{dataset}/{split}.parquet", results / f"truth/{dataset}.parquet",
    )  # fmt: skip
    folder = results / f"embeddings/{dataset}/{split}/more_sup/0"
    n_genes, declared = len(given.genes), METHODS["more_sup"].outputs
    output = read_output(folder, given.cell_ids, n_genes, declared).labels
    if output is None:
        raise SystemExit(f"{folder}: more_sup wrote no labels")
    labels = output[task.labelled]
    taught = {str(label) for label in task.shown if label is not None}
    new = ~np.isin(task.cell_type[task.labelled].astype(str), sorted(taught))
    unknown = labels == UNKNOWN
    return float(unknown[new].mean()), float(unknown[~new].mean())


def main() -> None:
    """Read, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results/newtypes"))
    results = parser.parse_args().results
    print("| set | types | of the hidden type | of other hidden cells |\n|---|---|---|---|")
    for folder in sorted((results / "splits").iterdir()):
        splits = sorted(p.stem for p in folder.glob("newtype-*.parquet"))
        found = np.mean([shares(results, folder.name, split) for split in splits], axis=0)
        print(f"| {folder.name} | {len(splits)} | {found[0]:.3f} | {found[1]:.3f} |")


if __name__ == "__main__":
    main()
