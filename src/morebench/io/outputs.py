"""What a method's run leaves behind: ``status.json`` always, ``output.h5ad`` when ok."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.contract import MethodOutput
from morebench.errors import ContractError, Damaged
from morebench.files import atomic_path, read_json, verify, write_json
from morebench.io.hdf5 import check_hdf5
from morebench.registry import OUTPUT_KINDS, STATES

STATUS_FILE = "status.json"
OUTPUT_FILE = "output.h5ad"
MODEL_FILE = "model.safetensors"
ONE_EACH = ("doublet_score", "novelty")  # outputs of one number a cell


@dataclass
class Status:
    """How the run of one (dataset, split, method, seed) ended, and what it took.

    Seconds of wall and CPU time, peak resident memory and peak GPU memory in MiB.
    """

    dataset: str
    split: str
    method: str
    seed: int
    state: str
    reason: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_mb: float = 0.0
    peak_gpu_mb: float = 0.0
    parameters_trained: int = 0
    parameters_frozen: int = 0
    threads: int = 1
    attempt: int = 1
    params: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: str = ""
    log: str = ""


def write_status(directory: str | Path, status: Status) -> None:
    """Write ``status.json``; its state must be one of ``registry.STATES``."""
    if status.state not in STATES:
        raise ContractError(f"{directory}: state {status.state!r}, expected one of {STATES}")
    write_json(Path(directory) / STATUS_FILE, asdict(status))


def read_status(directory: str | Path) -> Status:
    """Read ``status.json`` of a run.

    Raises
    ------
    Damaged
        The status or the output of an ok run is not there, or not what was written.
    ContractError
        It is no status.
    """
    path = Path(directory) / STATUS_FILE
    if not path.is_file():
        raise Damaged(f"{path}: is not there; delete the folder {path.parent} and run again")
    content = read_json(path)
    known = {f.name for f in fields(Status)}
    if set(content) != known:
        raise ContractError(f"{path}: not a status: {sorted(set(content) ^ known)} differ")
    if content["state"] not in STATES:
        raise ContractError(f"{path}: state {content['state']!r}, expected one of {STATES}")
    if content["state"] == "ok" and not (Path(directory) / OUTPUT_FILE).is_file():
        raise Damaged(
            f"{path}: the state is ok but {OUTPUT_FILE} is missing; delete the folder "
            f"{path.parent} and run again"
        )
    return Status(**content)


def _dense(name: str, value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ContractError(f"{where}: {name} is {type(value).__name__}, expected a numpy array")
    if value.ndim != len(shape) or any(
        want is not None and got != want for got, want in zip(value.shape, shape, strict=True)
    ):
        wanted = " x ".join("any" if s is None else str(s) for s in shape)
        raise ContractError(f"{where}: {name} has shape {value.shape}, expected {wanted}")
    if value.dtype.kind not in "fiu":
        raise ContractError(f"{where}: {name} is of type {value.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
        value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise ContractError(f"{where}: {name} has values that are not finite in float32")
    return value


def _graph(value: Any, n_cells: int, where: str) -> sp.csr_matrix:
    if not sp.issparse(value) or value.shape != (n_cells, n_cells):
        raise ContractError(f"{where}: graph is no sparse {n_cells} x {n_cells} matrix")
    if value.dtype.kind not in "biuf":
        raise ContractError(f"{where}: graph is of type {value.dtype}, expected numbers")
    graph = sp.csr_matrix(value).astype(np.float32)
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        raise ContractError(f"{where}: graph has negative or non-finite weights")
    if abs(graph - graph.T).max() > 1e-6:
        raise ContractError(f"{where}: graph is not symmetric")
    return graph


def _probabilities(value: Any, n_cells: int, where: str) -> np.ndarray:
    if not isinstance(value, pd.DataFrame) or not value.columns.astype(str).is_unique:
        raise ContractError(f"{where}: probabilities must be a DataFrame, one column a class")
    values = _dense("probabilities", value.to_numpy(), (n_cells, None), where)
    if values.shape[1] == 0:
        raise ContractError(f"{where}: probabilities has no class")
    if values.min() < -1e-6 or np.abs(values.sum(1) - 1).max() > 1e-3:
        raise ContractError(f"{where}: rows of probabilities are no shares that sum to 1")
    return values


def check_output(
    output: MethodOutput, n_cells: int, n_genes: int, declared: Sequence[str], where: str
) -> None:
    """Check a method's output against its spec and the input's shape.

    Raises
    ------
    ContractError
        If a declared kind is absent, an undeclared one present, or a shape, type or
        value is wrong (a transposed or non-finite embedding, say).
    """
    present = [k for k in OUTPUT_KINDS if getattr(output, k) is not None]
    if set(present) != set(declared):
        raise ContractError(f"{where}: returned {present}, its spec declares {list(declared)}")
    if output.embedding is not None:
        output.embedding = _dense("embedding", output.embedding, (n_cells, None), where)
        if output.embedding.shape[1] == 0:
            raise ContractError(f"{where}: embedding has no dimension")
    for name in ONE_EACH:
        if getattr(output, name) is not None:
            setattr(output, name, _dense(name, getattr(output, name), (n_cells,), where))
    if output.expression is not None:
        output.expression = _dense("expression", output.expression, (n_cells, n_genes), where)
    if output.graph is not None:
        output.graph = _graph(output.graph, n_cells, where)
    if output.labels is not None:
        labels = np.asarray(output.labels, dtype=object)
        if labels.shape != (n_cells,) or not all(isinstance(v, str) for v in labels):
            raise ContractError(f"{where}: labels must be {n_cells} strings")
    if output.probabilities is not None:
        _probabilities(output.probabilities, n_cells, where)
    for name, weights in (output.model or {}).items():
        if not isinstance(weights, np.ndarray) or not np.isfinite(weights).all():
            raise ContractError(f"{where}: model: {name} is no array of finite numbers")


def _check_rows(frame: pd.DataFrame | None, cell_ids: np.ndarray, where: str) -> None:
    """Refuse a table that names its rows, and names other cells or another order."""
    if frame is None or isinstance(frame.index, pd.RangeIndex):
        return
    if list(frame.index) != list(cell_ids):
        raise ContractError(f"{where}: rows of probabilities are not the input's cells, in order")


def write_output(
    directory: str | Path,
    output: MethodOutput,
    cell_ids: np.ndarray,
    genes: np.ndarray,
    declared: Sequence[str],
) -> None:
    """Check and write a method's output, cells in the order of ``cell_ids``."""
    import anndata

    path = Path(directory) / OUTPUT_FILE
    check_output(output, len(cell_ids), len(genes), declared, str(path))
    _check_rows(output.probabilities, cell_ids, str(path))
    data = anndata.AnnData(obs=pd.DataFrame(index=pd.Index(cell_ids.astype(str), name="cell_id")))
    if output.embedding is not None:
        data.obsm["embedding"] = output.embedding
    if output.expression is not None:
        data.obsm["expression"] = output.expression
    if output.graph is not None:
        data.obsp["graph"] = output.graph
    if output.labels is not None:
        data.obs["labels"] = pd.Categorical(np.asarray(output.labels, dtype=str))
    for name in ONE_EACH:
        if getattr(output, name) is not None:
            data.obs[name] = getattr(output, name)
    if output.probabilities is not None:
        data.obsm["probabilities"] = output.probabilities.to_numpy(dtype=np.float32)
        data.uns["classes"] = np.asarray(output.probabilities.columns.astype(str))
    data.uns["notes"] = json.dumps(output.notes, sort_keys=True)
    data.uns["parameters"] = np.array([output.parameters_trained, output.parameters_frozen])
    if output.model is not None:
        from safetensors.numpy import save_file

        with atomic_path(path.with_name(MODEL_FILE)) as temporary:
            save_file({k: np.ascontiguousarray(v) for k, v in output.model.items()}, temporary)
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary)


def read_model(path: str | Path) -> dict[str, np.ndarray]:
    """Read the weights of a fitted model."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    verify(path)
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ContractError(f"{path}: cannot be read as safetensors: {error}") from error


def read_output(
    directory: str | Path, cell_ids: np.ndarray, n_genes: int, declared: Sequence[str]
) -> MethodOutput:
    """Read a method's output; its cells must be ``cell_ids``, in that order."""
    import anndata

    path = Path(directory) / OUTPUT_FILE
    verify(path)
    try:
        check_hdf5(path, "output")
        data = anndata.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds for a damaged file
        text = " ".join(str(error).split())
        raise ContractError(f"{path}: cannot be read as h5ad: {text}") from error
    if data.n_obs != len(cell_ids):
        raise ContractError(f"{path}: holds {data.n_obs} cells, the dataset has {len(cell_ids)}")
    found = data.obs_names.to_numpy(dtype=object)
    if (found != cell_ids).any():
        at = int(np.flatnonzero(found != cell_ids)[0])
        what = "in another order" if set(found) == set(cell_ids) else "not the dataset's"
        raise ContractError(
            f"{path}: cells are {what}: row {at} is {found[at]}, expected {cell_ids[at]}"
        )
    for kind, present, allowed in (
        ("obs", data.obs, {"labels", *ONE_EACH}),
        ("obsm", data.obsm, {"embedding", "expression", "probabilities"}),
        ("obsp", data.obsp, {"graph"}),
        ("uns", data.uns, {"classes", "notes", "parameters"}),
    ):
        if set(present) - allowed:
            raise ContractError(f"{path}: {kind} holds {sorted(set(present) - allowed)} as well")
    if not {"notes", "parameters"} <= set(data.uns):
        raise ContractError(f"{path}: uns has {sorted(data.uns)}, expected notes and parameters")
    notes: Mapping[str, Any] = json.loads(data.uns["notes"])
    probabilities = None
    if "probabilities" in data.obsm:
        values, classes = np.asarray(data.obsm["probabilities"]), list(data.uns.get("classes", ()))
        if values.shape[1:] != (len(classes),):
            raise ContractError(f"{path}: {len(classes)} classes for probabilities {values.shape}")
        probabilities = pd.DataFrame(values, index=found, columns=classes)
    labels = data.obs["labels"].to_numpy(dtype=object) if "labels" in data.obs else None
    one_each = {k: data.obs[k].to_numpy() for k in ONE_EACH if k in data.obs}
    weights = path.with_name(MODEL_FILE)
    output = MethodOutput(
        embedding=data.obsm.get("embedding"),
        graph=data.obsp.get("graph"),
        labels=labels,
        probabilities=probabilities,
        **one_each,
        expression=data.obsm.get("expression"),
        parameters_trained=int(data.uns["parameters"][0]),
        parameters_frozen=int(data.uns["parameters"][1]),
        model=read_model(weights) if weights.exists() else None,
        notes=dict(notes),
    )
    check_output(output, len(cell_ids), n_genes, declared, str(path))
    return output
