"""Run all of config/paper.yaml on small files of its layout, from a server on this machine.

    python benchmarks/rehearsal.py FOLDER [--cores 2] [--datasets baron snare] [WORDS]

Every source is fetched as from GEO, and every method, split and task of every dataset runs.
Smaller than the paper's are the files (``tests/geo.py``: some hundred cells, 60 genes), hence the
genes and components that are chosen, fits (``tests/quick.py``), one seed and fewer resamples.
Printed: the runs by state, and each that is neither ok nor what its method cannot do; exits with 1
for any. What is done in FOLDER stays, and is not done again. WORDS are Snakemake's, and then
nothing is counted: ``-n`` shows what would run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def configuration(folder: Path, url: str, chosen: list[str]) -> dict:
    """Return the paper's configuration for small files."""
    from tests.geo import downloads
    from tests.quick import QUICK

    config = yaml.safe_load((ROOT / "config" / "paper.yaml").read_text())
    config |= {"results": str(folder / "results"), "seeds": [0]}
    config["evaluation"] = {"n_boot": 100}
    config["downloads"] = downloads(url, folder / "cache", str(folder / "data.lock"))
    for name in [name for name in config["datasets"] if chosen and name not in chosen]:
        del config["datasets"][name]
    for dataset in config["datasets"].values():
        dataset["features"] = {"n_top": 50, "n_pcs": 30, "min_cells": 1}
        dataset["sha256"] = {}  # of the published files
    for name, params in QUICK.items():
        config["methods"][name] = {**config["methods"][name], **params}
    return config


def main() -> None:
    """Lay out, serve, run, count."""
    from tests.geo import lay_out
    from tests.servers import Server

    from morebench.registry import ACCEPTED_STATES

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--datasets", nargs="*", default=[])
    told, words = parser.parse_known_args()
    folder = told.folder.absolute()
    if not (folder / "files").exists():
        folder.mkdir(parents=True, exist_ok=True)
        lay_out(folder / "files")
    with Server(folder / "files") as server:
        file = folder / "config.yaml"
        config = configuration(folder, server.url, told.datasets)
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        command = [sys.executable, "-m", "snakemake", "--cores", str(told.cores)]
        command += ["--configfile", str(file), *words]
        done = subprocess.run(command, cwd=ROOT, check=False)
    tables = folder / "results/tables"
    if words or (done.returncode and not (tables / "runtime.tsv").exists()):
        sys.exit(done.returncode)
    runs = pd.read_csv(tables / "runtime.tsv", sep="\t")
    print(runs["state"].value_counts().to_string())
    bad = runs[~runs["state"].isin(ACCEPTED_STATES)]
    if len(bad):
        print(bad[["dataset", "split", "method", "state", "reason"]].to_string(index=False))
    sys.exit(done.returncode or int(len(bad) > 0))


if __name__ == "__main__":
    main()
