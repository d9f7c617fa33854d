"""The process of one method: reads its work directory, runs, writes what it found there.

It sees its work directory only: the split's input, the labels that the split shows (for
the semi-supervised track), the counts of all genes, the frozen features and the model to
start from (for methods that declare them), and ``task.json``. It imports nothing that an
isolated environment lacks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import signal
import sys
import traceback
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from morebench.endings import die_with_parent
from morebench.errors import NoRoom, Unavailable, Unsupported
from morebench.files import read_json, room_for, verify, write_json

TASK_FILE = "task.json"
RESULT_FILE = "result.json"
ABOUT_FILE = "about.json"
INPUT_FILE = "input.h5ad"
LABELS_FILE = "labels.parquet"
ALL_GENES_FILE = "all_genes.h5mu"
FEATURES_DIR = "features"
PRETRAINED_FILE = "pretrained.safetensors"
# Exit code: a disk is full, perhaps too full for a result that says so.
NO_ROOM = os.EX_CANTCREAT


def versions(packages: list[str]) -> dict[str, str]:
    """Return the versions of Python, the system, and some packages."""
    found = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "system": platform.platform(),
    }
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _loaded() -> dict[str, str]:
    """Return the versions of every package that this process has loaded, of BLAS and CUDA."""
    modules = {name.partition(".")[0] for name in sys.modules}
    owners = metadata.packages_distributions()
    found = {n: metadata.version(n) for m in modules for n in owners.get(m, [])}
    if importlib.util.find_spec("threadpoolctl") is not None:
        from threadpoolctl import threadpool_info

        # What torch holds of MKL is part of torch, whose version stands above.
        blas = {
            f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip()
            for p in threadpool_info()
            if p["user_api"] == "blas"
        }
        found["blas"] = ", ".join(sorted(blas)) or "none"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["cuda"] = str(torch.version.cuda)
    return found


def _peak_gpu_mb() -> float:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.max_memory_allocated() / 2**20)


def _ran(directory: Path, task: dict[str, Any]) -> dict[str, Any]:
    """Run the method of a task, write what it returns, and return what its status says of it."""
    from morebench.io.inputs import read_input, read_labels
    from morebench.io.outputs import write_output

    data = read_input(directory / INPUT_FILE)
    if (directory / LABELS_FILE).exists():
        data.labels = read_labels(directory / LABELS_FILE, data.cell_ids)
    if (directory / ALL_GENES_FILE).exists():
        verify(directory / ALL_GENES_FILE)
        data.all_genes_file = directory / ALL_GENES_FILE
    if (directory / FEATURES_DIR).is_dir():
        data.features_dir = directory / FEATURES_DIR
    if (directory / PRETRAINED_FILE).exists():
        data.pretrained_file = directory / PRETRAINED_FILE
    if not task["inductive"] and not data.fit_visible.all():
        raise Unsupported(
            f"{int((~data.fit_visible).sum())} cells are not visible to fitting and the "
            "method cannot embed cells that it was not fitted on"
        )
    module, function = task["entry"].split(":")
    method = getattr(importlib.import_module(module), function)
    output = method(data, seed=task["seed"], threads=task["threads"], **task["params"])
    write_output(directory, output, data.cell_ids, data.genes, task["outputs"])
    facts = {
        "parameters_trained": output.parameters_trained,
        "parameters_frozen": output.parameters_frozen,
        "notes": output.notes,
    }
    json.dumps(facts, allow_nan=False)  # what the status cannot hold is the method's error
    return facts


def run(directory: Path) -> dict[str, Any]:
    """Run the task of a work directory and return its result.

    Every exception of a method becomes a state with a reason; its traceback goes to
    standard error, which is the job's log.

    Raises
    ------
    NoRoom
        A disk is full, which is no fault of the method.
    """
    from morebench import threads

    task = read_json(directory / TASK_FILE)
    write_json(directory / ABOUT_FILE, versions(task["packages"]))
    threads.limit(task["threads"])  # before anything that has a pool is imported

    result: dict[str, Any] = {"state": "failed", "reason": ""}
    try:
        with room_for(directory):
            result |= {"state": "ok", **_ran(directory, task)}
    except NoRoom:
        raise
    except Unsupported as error:
        result |= {"state": "unsupported", "reason": str(error)}
    except Unavailable as error:
        result |= {"state": "unavailable", "reason": str(error)}
    except MemoryError as error:
        traceback.print_exc()
        result |= {"state": "out_of_memory", "reason": f"MemoryError: {error}"}
    except Exception as error:
        traceback.print_exc()
        short = " ".join(str(error).split())[:500]
        gpu = type(error).__name__ == "OutOfMemoryError"  # torch's, which may be absent here
        state = "out_of_memory" if gpu else "failed"
        result |= {"state": state, "reason": f"{type(error).__name__}: {short}"}
    result["peak_gpu_mb"] = _peak_gpu_mb()
    result["versions"] = {**_loaded(), **versions(task["packages"])}
    return result


def main() -> None:
    """Run the work directory named on the command line, for the process named before it."""
    parent, directory = int(sys.argv[1]), Path(sys.argv[2])
    die_with_parent(signal.SIGKILL, parent)
    try:
        with room_for(directory):
            write_json(directory / RESULT_FILE, run(directory))
    except NoRoom:
        with suppress(OSError):  # the log may be on the disk that is full: the code must do
            traceback.print_exc()
        sys.exit(NO_ROOM)


if __name__ == "__main__":
    main()
