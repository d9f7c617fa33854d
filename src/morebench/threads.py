"""How many threads a process uses: one number, told to every library that has a pool.

A job's number is the ``threads`` of its rule, which Snakemake puts into ``OMP_NUM_THREADS``
of the job's shell; a method's is that of its limits. Cores are not pinned: jobs do not know
of each other, and two that chose the same core would share it while others idle.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from morebench.errors import ConfigError

TOLD = "OMP_NUM_THREADS"
# Which library reads which: OpenMP (torch, scikit-learn, faiss, Arrow), BLAS of every make,
# numexpr, numba (pynndescent, umap), Rust (tokenizers), joblib where it is asked for all cores,
# XLA, Blosc (zarr), and Python itself from 3.13. Not OMP_THREAD_LIMIT: OpenBLAS built with
# OpenMP (in faiss) waits forever for the threads that it asked for and did not get.
VARIABLES = (
    TOLD,
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PJRT_NPROC",
    "BLOSC_NTHREADS",
    "PYTHON_CPU_COUNT",
)
_XLA_POOL = "--xla_cpu_multi_thread_eigen="


def environment(threads: int) -> dict[str, str]:
    """Return the variables with which a process is started that may use ``threads``.

    XLA's other flags are kept as they stand in this process.
    """
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(_XLA_POOL)]
    flags.append(_XLA_POOL + ("true" if threads > 1 else "false"))
    return dict.fromkeys(VARIABLES, str(threads)) | {"XLA_FLAGS": " ".join(flags)}


def told() -> int:
    """Return the threads that this process was given; 1 where nobody said.

    Raises
    ------
    ConfigError
        The variable is no whole number from 1.
    """
    given = os.environ.get(TOLD, "1")
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"{TOLD}: found {given!r}; valid is a whole number from 1")
    return int(given)


def limit(threads: int) -> None:
    """Keep this process, and those that it starts, to ``threads``.

    Call it first thing. BLAS that came with an import of numpy is told by threadpoolctl.
    Torch has no variable for its pool between operations, so it is told once it is imported.
    """
    os.environ.update(environment(threads))
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(limits=threads)

    def tell(torch: Any) -> None:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(threads)

    if "torch" in sys.modules:
        tell(sys.modules["torch"])
    else:
        sys.meta_path.insert(0, _AfterImport("torch", tell))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Call a function with a module once it is imported."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as the path finder does, and add the call to its loader."""
        if fullname != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
