"""A process uses the threads that it was given, whichever library does its work."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from morebench import threads
from morebench.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
# Runs one workload and prints its CPU and wall seconds and how many threads did a tenth of
# the work: on a busy machine many threads may take no more CPU than one, but they show here.
MEASURE = """
import json, os, sys, time
from pathlib import Path
{head}
import numpy as np
rng = np.random.default_rng(0)

def blas():
    a = rng.normal(size=(1100, 1100))
    return lambda: [a @ a for _ in range(6)]

def torch_matmul():
    import torch
    a = torch.randn(1100, 1100)
    return lambda: [a @ a for _ in range(12)]

def numba_parallel():
    import numba

    @numba.njit(parallel=True)
    def add(x):
        total = 0.0
        for i in numba.prange(x.size):
            total += np.sin(x[i]) ** 3
        return total

    x = rng.normal(size=3_000_000)
    add(x)
    return lambda: [add(x) for _ in range(5)]

def sklearn_knn():
    from sklearn.neighbors import NearestNeighbors
    x = rng.normal(size=(6000, 40))
    return lambda: NearestNeighbors(algorithm="brute", n_jobs=-1).fit(x).kneighbors(x, 20)

def faiss_search():
    import faiss
    x = rng.normal(size=(8000, 50)).astype(np.float32)
    index = faiss.IndexFlatL2(50)
    index.add(x)
    return lambda: index.search(x, 20)

def joblib_threads():
    from joblib import Parallel, delayed
    x = rng.normal(size=3_000_000)
    run = Parallel(n_jobs=-1, prefer="threads")
    return lambda: run(delayed(np.sin)(x) for _ in range(12))

def xla():
    import jax
    x = jax.random.normal(jax.random.key(0), (1100, 1100))
    multiply = jax.jit(lambda a: a @ a)
    multiply(x).block_until_ready()
    return lambda: [multiply(x).block_until_ready() for _ in range(8)]

def arrow():
    import pyarrow.compute as pc, pyarrow as pa
    table = pa.table({{str(i): rng.normal(size=400_000) for i in range(6)}})
    return lambda: [table.group_by("0").aggregate([("1", "sum")]) for _ in range(2)]

def annoy_trees():
    import annoy
    from morebench.methods.annoy_trees import one_thread
    x = rng.normal(size=(3000, 30))
    import types
    package = types.SimpleNamespace(AnnoyIndex=annoy.AnnoyIndex)
    def make():
        with one_thread(package):
            index = package.AnnoyIndex(30, "euclidean")
            for i, row in enumerate(x):
                index.add_item(i, row)
            index.build(20)
    return make

def spent():
    ticks = os.sysconf("SC_CLK_TCK")
    found = {{}}
    for task in Path("/proc/self/task").iterdir():
        words = (task / "stat").read_text().rsplit(")", 1)[1].split()
        found[task.name] = (int(words[11]) + int(words[12])) / ticks
    return found

work = globals()[sys.argv[1]]()
before, cpu, wall = spent(), time.process_time(), time.monotonic()
while time.process_time() - cpu < 0.8:  # long beside the clock's hundredth of a second
    work()
cpu, wall, after = time.process_time() - cpu, time.monotonic() - wall, spent()
took = {{k: v - before.get(k, 0) for k, v in after.items()}}
print(json.dumps({{"cpu": cpu, "wall": wall, "busy": sum(v > 0.1 * cpu for v in took.values())}}))
"""
LIMITED = "from morebench import threads\nthreads.limit(threads.told())"
WORK = ("blas", "torch_matmul", "numba_parallel", "sklearn_knn", "faiss_search", "joblib_threads",
        "xla", "arrow", "annoy_trees")  # fmt: skip
# pynndescent and umap draw on numba and joblib, which are here; they compile for half a minute.
# These divide their work evenly, so a second thread is seen on any machine.
EVEN = ("blas", "torch_matmul", "numba_parallel", "faiss_search")


def measured(work: str, head: str, given: int) -> dict[str, float]:
    kept = {k: v for k, v in os.environ.items() if k not in (*threads.VARIABLES, "XLA_FLAGS")}
    kept |= {"OMP_NUM_THREADS": str(given), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", MEASURE.format(head=head), work],
        env=kept, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU time of threads from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("work", WORK)
def test_one_thread_is_one_core(work):
    found = measured(work, LIMITED, 1)
    assert found["cpu"] <= 1.15 * found["wall"], found
    assert found["busy"] == 1, found


@pytest.mark.skipif(sys.platform != "linux", reason="reads CPU time of threads from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("work", EVEN)
def test_the_measurement_sees_a_second_thread(work):
    assert measured(work, LIMITED, 2)["busy"] == 2


def printed(code, **variables):
    """Run Python in a process of its own and return what it printed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torch_is_told_both_of_its_pools_when_it_is_imported():
    code = (
        "from morebench import threads; threads.limit(3); import importlib.util, torch; "
        "assert importlib.util.find_spec('torch') is not None; "
        "print(torch.get_num_threads(), torch.get_num_interop_threads())"
    )
    assert printed(code, OMP_NUM_THREADS="1") == "3 3"


def test_blas_that_was_loaded_before_is_told():
    code = (
        "import numpy; from morebench import threads; threads.limit(1); "
        "from threadpoolctl import threadpool_info; "
        "print([p['num_threads'] for p in threadpool_info() if p['user_api'] == 'blas'])"
    )
    assert printed(code, OPENBLAS_NUM_THREADS="2") == "[1]"


def test_the_environment_keeps_other_flags_of_xla(monkeypatch):
    flags = "--xla_dump_to=here --xla_cpu_multi_thread_eigen=true"
    monkeypatch.setenv("XLA_FLAGS", flags)
    one, two = threads.environment(1), threads.environment(2)
    assert one["XLA_FLAGS"] == "--xla_dump_to=here --xla_cpu_multi_thread_eigen=false"
    assert two["XLA_FLAGS"] == flags
    assert {one[v] for v in threads.VARIABLES} == {"1"}
    assert {two[v] for v in threads.VARIABLES} == {"2"}


def test_told_reads_what_snakemake_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads.told() == 4
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.told() == 1
    for wrong in ("0", "many", "4,2", "-1"):
        monkeypatch.setenv("OMP_NUM_THREADS", wrong)
        with pytest.raises(ConfigError, match=wrong):
            threads.told()


def test_snakemake_tells_a_job_its_threads_by_that_variable(tmp_path):
    (tmp_path / "Snakefile").write_text(
        "rule all:\n    output: 'said'\n    threads: 2\n"
        f"    shell: 'printenv {threads.TOLD} > {{output}}'\n"
    )
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all"]
    env = {**os.environ, "OMP_NUM_THREADS": "7"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said").read_text().strip() == "2"


@pytest.mark.parametrize("script", sorted((ROOT / "workflow_scripts").glob("*.py")))
def test_every_script_runs_as_a_job(script):
    calls = [
        ast.unparse(n) for n in ast.walk(ast.parse(script.read_text())) if isinstance(n, ast.Call)
    ]
    assert "job.run(main)" in calls


def test_no_other_file_sets_thread_variables():
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "rules").glob("*.smk"), ROOT / "Snakefile"]
    texts = {f: f.read_text() for f in files + list((ROOT / "workflow_scripts").glob("*.py"))}
    own = ROOT / "src/morebench/threads.py"
    named = [str(f) for f, text in texts.items() if "_NUM_THREADS" in text and f != own]
    assert named == []
