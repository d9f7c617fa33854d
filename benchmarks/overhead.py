"""What a job costs in CPU seconds beside its own work and imports.

    python benchmarks/overhead.py [--jobs 400]

What Snakemake takes for a job may grow with the jobs before it, so there are many.
Makes splits of a small simulated dataset, one job each and as little work as a job has. Snakemake's
own CPU time is measured in runs with few and with many of these jobs: the slope is the cost of a
job, the rest that of a run. The job's script is compared with a process that imports the same
modules and calls the same functions, without shell and command line. A method's job is compared
with the method's process, whose time stands in its status; what watches it costs its own imports.
On a cluster each submission starts Snakemake anew on the node, twice with Slurm: that start is
measured too, and how much of it and of what watches a method are imports (those at the top of
modules). Seconds are of CPU, since other work may share the machine. Exits with 1 if a job costs
more than 1.5 s beside its own work and imports, here or submitted to Slurm alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MOST_S = 1.5
REPEATS = 5
DATASET = "tiny"
# Snakemake as on the command line, which then says what it took itself and its jobs took.
COUNTED = """
import resource, sys
from snakemake.cli import main
try:
    main(sys.argv[2:])
finally:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    open(sys.argv[1], "w").write(" ".join(str(u.ru_utime + u.ru_stime) for u in used))
"""
# What workflow_scripts/split.py does, without its command line.
BARE = """
import sys
from pathlib import Path
from morebench.data.spec import Partial
from morebench.data.splits import make_split
from morebench.io.prepared import read_prepared, read_truth
from morebench.io.splits import write_split
prepared, truth, output, split, held_out = sys.argv[1:]
batch = read_prepared(Path(prepared)).obs["batch"].astype(str).to_numpy()
known = read_truth(Path(truth))
write_split(Path(output), *make_split(split, held_out, known, batch, Partial(), None))
"""
# The imports of a script, without what it does.
IMPORTS = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='imported')"


def configuration(folder: Path, jobs: int) -> dict:
    """Return a configuration with one split for each of so many batches."""
    config = yaml.safe_load((ROOT / "tests" / "configs" / "tiny.yaml").read_text())
    dataset = config["datasets"][DATASET]
    dataset["params"] |= {"n_batches": jobs, "n_cells": 20 * jobs}
    dataset["splits"] = {"lobo": [f"batch{i + 1}" for i in range(jobs)]}
    dataset["tasks"] = ["annotation"]
    config["methods"] = {"random": {"n_components": 5}}
    config["seeds"] = list(range(REPEATS))
    config["results"] = os.path.relpath(folder / "results", ROOT)
    return config


def taken(command: list[str], folder: Path) -> float:
    """Run a command and return the CPU seconds of it and of all that it started."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit((folder / "log.txt").read_text()[-3000:])
    return used.ru_utime + used.ru_stime


def snakemake(folder: Path, words: list[str]) -> tuple[float, float]:
    """Run Snakemake and return the CPU seconds of its own process and of its jobs."""
    file = folder / "seconds.txt"
    options = ["--cores", "1", "--nolock", "--configfile", str(folder / "config.yaml")]
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run(
            [sys.executable, "-c", COUNTED, str(file), *options, *words],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode:
        sys.exit((folder / "log.txt").read_text()[-3000:])
    own, jobs = file.read_text().split()
    return float(own), float(jobs)


def main() -> None:
    """Measure, print the table, and fail beyond the target."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=400)
    jobs = parser.parse_args().jobs
    few = max(2, jobs // 8)
    with tempfile.TemporaryDirectory(prefix="morebench-overhead-") as name:
        folder = Path(name)
        config = configuration(folder, jobs)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        results = ROOT / config["results"]
        prepared, truth = results / "prepared" / f"{DATASET}.h5mu", results / "truth"
        snakemake(folder, ["--", str(Path(config["results"]) / "prepared" / f"{DATASET}.h5mu")])

        splits = [f"lobo-{b}" for b in config["datasets"][DATASET]["splits"]["lobo"]]
        targets = [f"{config['results']}/splits/{DATASET}/{s}.parquet" for s in splits]
        own = {n: snakemake(folder, ["--force", "--", *targets[:n]])[0] for n in (few, jobs)}
        scheduled = (own[jobs] - own[few]) / (jobs - few)
        once = own[few] - few * scheduled

        files = [str(prepared), str(truth / f"{DATASET}.parquet"), str(folder / "split.parquet")]
        told = ["--split", splits[0], f"--held-out={splits[0][5:]}", "--partial", "{}"]
        script = str(ROOT / "workflow_scripts" / "split.py")
        shell = " ".join(["exec", sys.executable, "-P", script, *files, *told])
        by_script = [taken(["bash", "-c", shell], folder) for _ in range(REPEATS)]
        bare = [sys.executable, "-P", "-c", BARE, *files, splits[0], splits[0][5:]]
        by_hand = [taken(bare, folder) for _ in range(REPEATS)]
        work = statistics.median(by_hand)
        wrapped = statistics.median(by_script) - work

        on_node = ["--mode", "remote", "--force", "--allowed-rules", "split", "--target-jobs"]
        on_node.append(f"split:dataset={DATASET},split={splits[0]}")
        started = statistics.median(snakemake(folder, on_node)[0] for _ in range(REPEATS))
        python = [sys.executable, "-P", "-c"]
        embed = str(ROOT / "workflow_scripts" / "embed.py")
        imported, watching = (
            statistics.median(taken(command, folder) for _ in range(REPEATS))
            for command in ([*python, "import snakemake.cli"], [*python, IMPORTS, embed])
        )

        snakemake(folder, ["--", f"{config['results']}/inputs/{DATASET}/all.h5ad"])
        runs = [f"embeddings/{DATASET}/all/random/{seed}" for seed in range(REPEATS)]
        _, spent = snakemake(folder, ["--", *(f"{config['results']}/{run}" for run in runs)])
        statuses = [json.loads((results / run / "status.json").read_text()) for run in runs]
        method = statistics.mean(s["cpu_s"] for s in statuses)
        watched = spent / REPEATS - method
    each, each_method = scheduled + wrapped, scheduled + watched
    alone = each_method - watching + 2 * (started - imported)
    print("| what | s of CPU |\n|---|---|")
    for what, seconds in {
        "a job's own work and imports": work,
        "scheduling, shell (Snakemake, a job)": scheduled,
        "command line, log, threads (script, a job)": wrapped,
        "overhead of a job": each,
        "a method's process, imports included (random embedding)": method,
        "shell, command line, what watches the process (a method's job)": watched,
        "overhead of a method's job": each_method,
        "start of Snakemake (once a run)": once,
        "start of Snakemake on a node (twice a submission with Slurm)": started,
        "of it, imports of Snakemake": imported,
        "imports of what watches a method": watching,
        "overhead of a method's job submitted to Slurm alone, beside all these imports": alone,
    }.items():
        print(f"| {what} | {seconds:.2f} |")
    print(json.dumps({"jobs": [few, jobs], "snakemake_s": own}))
    most = max(each, each_method, alone)
    print(f"\noverhead of a job at most {most:.2f} s (<= {MOST_S})")
    sys.exit(most > MOST_S)


if __name__ == "__main__":
    main()
