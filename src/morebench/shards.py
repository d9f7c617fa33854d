"""Ranges of cells: cut for a job each, and what the jobs made gathered into one.

A dataset with ``shards`` may be larger than a process's memory. A method that declares
``sharded`` is fitted once, on a sample of the fit-visible cells; every range is then
embedded by that model in a job of its own, and the outputs are joined in the cells' order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ConfigError, ContractError
from morebench.files import atomic_directory
from morebench.io.inputs import cut_input, read_input, read_obs, shape_of
from morebench.io.outputs import (
    MODEL_FILE,
    Status,
    read_model,
    read_output,
    read_status,
    write_output,
    write_status,
)
from morebench.sample import sample_rows

if TYPE_CHECKING:
    from morebench.models.more.tokens import Background

#: Cells of every batch that a sample takes at least, so that the model knows each batch.
LEAST_OF_A_BATCH = 50


def shard_rows(n: int, shard: str) -> slice:
    """Return the cells of a range named ``i/number``, i from 0.

    Raises
    ------
    ConfigError
        More ranges than cells, or no such range.
    """
    index, number = (int(word) for word in shard.split("/"))
    if not 0 <= index < number <= n:
        raise ConfigError(f"shards: range {shard} of {n} cells; valid: i/number, i < number <= {n}")
    return slice(index * n // number, (index + 1) * n // number)


def fit_rows(
    input_file: Path, labels: tuple[np.ndarray, np.ndarray] | None, size: int | None, seed: int
) -> np.ndarray:
    """Return the cells that a model is fitted on: of every batch, and of every shown type.

    Parameters
    ----------
    labels
        Cell ids and the labels that the split shows, None or NaN where it hides them.
    size
        Cells; None for every fit-visible one.
    """
    obs = read_obs(input_file)
    group = obs["batch"].astype(str)
    if labels is not None:
        shown = pd.Series(labels[1], index=labels[0]).reindex(obs.index)
        group = group + "|" + shown.fillna("").astype(str)
    visible = np.flatnonzero(obs["fit_visible"].to_numpy(dtype=bool))
    rows = sample_rows(group.to_numpy()[visible], size, seed, least=LEAST_OF_A_BATCH)
    return visible[rows]


class NoModel(Exception):
    """A range cannot be embedded: the model was not fitted."""


@contextmanager
def part_of(
    files: Mapping[str, Path],
    labels: tuple[np.ndarray, np.ndarray] | None,
    outputs: Sequence[str],
    part: str,
) -> Iterator[tuple[dict[str, Path], tuple[np.ndarray, np.ndarray] | None, list[str]]]:
    """Yield what a part of a run is given and returns; a run in one piece as it is.

    Parameters
    ----------
    files
        ``input``, ``features``, ``pretrained`` ...
    part
        "" for the whole; ``fit:cells:seed`` for the sample that the model is fitted on
        (``fit::seed``: all fit-visible cells); ``embed:i/number`` for a range, whose features
        are those of the range already.

    Raises
    ------
    NoModel
        A range without a model to embed it by.
    """
    if not part:
        yield dict(files), labels, list(outputs)
        return
    what, _, told = part.partition(":")
    with TemporaryDirectory(prefix="morebench-part-") as folder:
        found = {**files, "input": Path(folder) / "input.h5ad"}
        rows: np.ndarray | slice
        if what == "fit":
            size, seed = told.split(":")
            rows = fit_rows(files["input"], labels, int(size) if size else None, int(seed))
            if "features" in files:
                found["features"] = Path(folder) / "features"
                _cut_features(files["features"], rows, found["features"])
        elif "pretrained" in files:
            rows = shard_rows(shape_of(files["input"])[0], told)
            outputs = [k for k in outputs if k != "model"]
        else:
            raise NoModel("the model was not fitted: see the log of its fit")
        cut_input(files["input"], rows, found["input"])
        if labels is not None:
            there = np.isin(labels[0], read_obs(found["input"]).index.to_numpy(dtype=object))
            labels = (labels[0][there], labels[1][there])
        yield found, labels, list(outputs)


def features_part(input_file: Path, part: str) -> tuple[MethodInput, Background | None]:
    """Return the cells that frozen features are made of, and the profile of a sample of all.

    Parameters
    ----------
    part
        "" for all cells, then without a profile; ``i/number:cells:seed`` for a range, whose
        tokens are chosen against the profile of the cells that a model is fitted on.
    """
    if not part:
        return read_input(input_file), None
    from morebench.models.more.tokens import background

    shard, size, seed = part.split(":")
    with TemporaryDirectory(prefix="morebench-part-") as folder:
        cells = Path(folder) / "input.h5ad"
        rows = fit_rows(input_file, None, int(size) if size else None, int(seed))
        cut_input(input_file, rows, cells)
        counts_ng = read_input(cells).counts_ng
        usual = background(counts_ng, np.ones(len(rows), dtype=bool))
        cut_input(input_file, shard_rows(shape_of(input_file)[0], shard), cells)
        return read_input(cells), usual


def _cut_features(source: Path, rows: np.ndarray, target: Path) -> None:
    from morebench.models.more.cache import find_features, put_features, read_sidecar

    with atomic_directory(target) as directory:
        put_features(directory, [find_features(source)[rows]], read_sidecar(source))


def gather(
    output: Path,
    fitted: Path,
    parts: Sequence[Path],
    input_file: Path,
    declared: Sequence[str],
) -> Status:
    """Join the runs of all ranges into one run: its status, and its output when all are ok.

    Wall and CPU time are sums over the fit and all ranges, memory is the largest of them.

    Parameters
    ----------
    fitted, parts
        Directories of the run that fitted the model, and of the ranges in order.
    declared
        Outputs of the method's spec.
    """
    statuses = [read_status(fitted), *(read_status(p) for p in parts)]
    names = ["the fit", *(f"range {i} of {len(parts)}" for i in range(len(parts)))]
    whole = replace(statuses[0], notes={**statuses[0].notes, "shards": len(parts)})
    for key in ("wall_s", "cpu_s"):
        setattr(whole, key, round(sum(getattr(s, key) for s in statuses), 3))
    for key in ("peak_rss_mb", "peak_gpu_mb", "attempt"):
        setattr(whole, key, max(getattr(s, key) for s in statuses))
    whole.hardware = "; ".join(dict.fromkeys(s.hardware for s in statuses if s.hardware))
    for name, status in zip(names, statuses, strict=True):
        if status.state != "ok":
            whole.state, whole.reason = status.state, f"{name}: {status.reason}"
            whole.log = status.log
            break
    with atomic_directory(output) as directory:
        if whole.state == "ok":
            ids = read_obs(input_file).index.to_numpy(dtype=object)
            n_genes = shape_of(input_file)[1]
            joined = _joined(fitted, parts, ids, n_genes, declared, whole)
            write_output(directory, joined, ids, np.empty(n_genes), declared)
        write_status(directory, whole)
    return whole


def _joined(
    fitted: Path,
    parts: Sequence[Path],
    ids: np.ndarray,
    n_genes: int,
    declared: Sequence[str],
    status: Status,
) -> MethodOutput:
    kinds = [k for k in declared if k != "model"]
    found = []
    for i, part in enumerate(parts):
        rows = shard_rows(len(ids), f"{i}/{len(parts)}")
        found.append(read_output(part, ids[rows], n_genes, kinds))
    values: dict[str, Any] = {}
    for kind in kinds:
        pieces = [getattr(o, kind) for o in found]
        if kind == "graph":
            raise ContractError("graph: of ranges there is none of all cells")
        if kind == "probabilities":
            columns = pieces[0].columns
            if any(list(p.columns) != list(columns) for p in pieces):
                raise ContractError(f"{parts[0].parent}: ranges name different classes")
            values[kind] = pd.concat(pieces)
        else:
            values[kind] = np.concatenate(pieces)
    if "model" in declared:
        values["model"] = read_model(fitted / MODEL_FILE)
    return MethodOutput(
        **values,
        parameters_trained=status.parameters_trained,
        parameters_frozen=status.parameters_frozen,
        notes=status.notes,
    )


def gather_features(output: Path, parts: Sequence[Path]) -> None:
    """Join the frozen features of all ranges into the features of the split."""
    from morebench.models.more.cache import find_features, put_features, read_sidecar

    sidecars = [read_sidecar(p) for p in parts]
    seconds = sum(s["seconds"] for s in sidecars)
    n = sum(s["shape"][0] for s in sidecars)
    precision = "+".join(sorted({s["precision"] for s in sidecars}))
    like = {**sidecars[0], "precision": precision, "seconds": seconds}
    like["cells_per_second"] = n / seconds if seconds else None
    with atomic_directory(output) as directory:
        put_features(directory, (np.asarray(find_features(p)) for p in parts), like)
