"""Frozen features of cells, computed once: a float16 memory map and its JSON sidecar.

Files of one cache begin with the first 16 digits of its key, the SHA-256 of all that its
values depend on, so caches share a folder and a stale one is never taken for another:
``KEY.features.f16`` and ``KEY.features.json``; while it grows ``KEY.partial.f16``,
``KEY.partial.json`` (rows done, with a hash of each chunk) and ``KEY.lock``. ``texts-*.npz``
keeps text vectors.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from morebench.errors import ContractError, Damaged, DataError, listed
from morebench.files import atomic_path, locked, read_json, sha256_file, take_room, write_json
from morebench.models.more import tokens as tk
from morebench.models.more.extract import Extractor
from morebench.models.more.frozen import Backbone

LAYOUT = "1: mean hidden state, weighted mean token"
CHUNK_BATCHES = 16

Progress = Callable[[int, int], None]


def feature_key(
    counts_ng: sp.csr_matrix,
    genes: Sequence[str],
    texts: Sequence[str],
    fit_visible_n: np.ndarray,
    backbone: Backbone,
    k: int,
    background: tk.Background | None = None,
) -> tuple[str, dict[str, Any]]:
    """Key of a cache, and the parts that it is made of.

    Counts are hashed in canonical form, so their type and order of storage do not matter.
    """
    x_ng = sp.csr_matrix(counts_ng, copy=True)
    x_ng.sum_duplicates()
    x_ng.eliminate_zeros()
    parts: dict[str, Any] = {
        "layout": LAYOUT,
        "shape": list(x_ng.shape),
        "counts": _digest(
            x_ng.data.astype("<f8"), x_ng.indices.astype("<i8"), x_ng.indptr.astype("<i8")
        ),
        "genes": _digest(json.dumps(list(genes)).encode()),
        "texts": _digest(json.dumps(list(texts)).encode()),
        "fit_visible": _digest(np.asarray(fit_visible_n, dtype=bool)),
        "backbone": backbone.name if backbone.name in ("minilm", "random") else "folder or hub",
        "weights": backbone.weights_sha256,
        "tokeniser": backbone.tokeniser_sha256,
        "dtype": backbone.wanted,
        "tokens": {"k": k, **tk.SETTINGS},
    }
    if background is not None:
        parts["background"] = background.digest()
    return _digest(json.dumps(parts, sort_keys=True).encode()), parts


def frozen_features(
    counts_ng: sp.csr_matrix,
    genes: Sequence[str],
    texts: Sequence[str],
    *,
    fit_visible: np.ndarray,
    backbone: Backbone,
    k: int = 32,
    directory: str | Path,
    batch_size: int = 64,
    progress: Progress | None = None,
    text_directory: str | Path | None = None,
    background: tk.Background | None = None,
) -> np.memmap:
    """Features of cells by a frozen backbone, from the cache where they are there.

    A run that was killed goes on where it stopped; of two at once, one waits for the other.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix
        Raw counts.
    genes, texts : g strings
        Names of the features, and what they are called for the backbone (``feature_texts``).
    fit_visible : (n,) array of bool
        Cells that the background profile, and the choice of precision, may look at.
    backbone
        On its device.
    k
        Tokens a cell.
    directory
        Of the cache; made where missing.
    batch_size
        Cells encoded at once.
    progress
        Called with cells done and cells in all, after every chunk that is safe on disk.
    text_directory
        Where vectors of texts are kept, best one for all datasets: on a CPU, texts of
        thousands of genes take longer than cells. Default: ``directory``.
    background
        The profile that tokens are chosen against: that of a fitted model, for its query
        cells. Default: fitted on ``fit_visible``.

    Returns
    -------
    (n, 2 b) read-only memory map of float16
        Mean of the last hidden state over tokens, then the weighted mean of the token
        embeddings: what the encoder makes of a cell, and what it was given. Zeros for a
        cell without counts.
    """
    n, g = counts_ng.shape
    if len(genes) != g or len(texts) != g or len(fit_visible) != n:
        raise DataError(
            f"{len(genes)} genes, {len(texts)} texts and {len(fit_visible)} entries of "
            f"fit_visible for {n} cells x {g} features; expected {g}, {g} and {n}"
        )
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    key, parts = feature_key(counts_ng, genes, texts, fit_visible, backbone, k, background)
    with locked(folder / f"{key[:16]}.lock"):
        if not _complete(folder, key):
            usual = background
            if usual is None:
                usual = tk.background(counts_ng, np.asarray(fit_visible, dtype=bool))
            chosen = tk.choose_tokens(counts_ng, usual, k)
            kept = folder if text_directory is None else Path(text_directory)
            extractor = Extractor(chosen, texts, backbone, kept, batch_size)
            probe = extractor.calibrate(np.flatnonzero(fit_visible))
            _fill(folder, {"key": key, "parts": parts, "probe": probe}, extractor, progress)
    return open_features(folder, key)


def _complete(folder: Path, key: str) -> bool:
    """Whether a cache is there and whole; one that is broken is removed."""
    try:
        open_features(folder, key)
    except (ContractError, Damaged):
        for kind in ("f16", "json"):
            (folder / f"{key[:16]}.features.{kind}").unlink(missing_ok=True)
        return False
    return True


def _fill(
    folder: Path, sidecar: dict[str, Any], extractor: Extractor, progress: Progress | None
) -> None:
    """Write the rows that are missing, chunk by chunk, then give the files their names."""
    n = len(extractor.order)
    shape = [n, 2 * extractor.backbone.width]
    stem = folder / sidecar["key"][:16]
    rows_f16, rows_json = stem.with_suffix(".partial.f16"), stem.with_suffix(".partial.json")
    step = CHUNK_BATCHES * extractor.batch_size
    same = {"key": sidecar["key"], "precision": extractor.backbone.precision, "shape": shape}
    chunks = [extractor.order[start : start + step] for start in range(0, n, step)]
    state = _resumed(rows_json, rows_f16, {**same, "chunk": step}, chunks)
    if not state["done"]:
        with atomic_path(rows_f16, checksum=False) as temporary:
            take_room(temporary, 2 * n * shape[1])
    x_nf = np.memmap(rows_f16, dtype=np.float16, mode="r+", shape=(n, shape[1]))
    for rows in chunks[len(state["sha256"]) :]:
        begun = time.perf_counter()
        x_nf[rows] = made = extractor.features(rows)
        x_nf.flush()
        state["done"] += len(rows)
        state["sha256"].append(_digest(made))
        state["seconds"] += time.perf_counter() - begun
        write_json(rows_json, state, checksum=False)
        if progress is not None:
            progress(state["done"], n)
    del x_nf
    content = {
        **sidecar,
        "shape": shape,
        "dtype": "float16",
        "precision": extractor.backbone.precision,
        "done": n,
        "n_parameters": extractor.backbone.n_parameters,
        "sha256": sha256_file(rows_f16),
        "seconds": state["seconds"],
        "cells_per_second": n / state["seconds"] if state["seconds"] else None,
    }
    os.replace(rows_f16, stem.with_suffix(".features.f16"))
    write_json(stem.with_suffix(".features.json"), content)
    rows_json.unlink(missing_ok=True)


def _resumed(
    rows_json: Path, rows_f16: Path, same: dict[str, Any], chunks: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Progress of a run that was stopped, if it was the same and what it wrote is whole."""
    fresh = {**same, "done": 0, "seconds": 0.0, "sha256": []}
    if not rows_json.exists() or not rows_f16.exists():
        return fresh
    try:
        state = read_json(rows_json, checksum=False)
    except ContractError:
        return fresh
    whole = rows_f16.stat().st_size == 2 * same["shape"][0] * same["shape"][1]
    if not whole or any(state.get(name) != value for name, value in same.items()):
        return fresh
    x_nf = np.memmap(rows_f16, dtype=np.float16, mode="r", shape=tuple(same["shape"]))
    done = chunks[: len(state.get("sha256", ()))]
    hashes = [_digest(np.asarray(x_nf[rows])) for rows in done]
    if not done or hashes != state["sha256"] or state.get("done") != sum(map(len, done)):
        return fresh
    return state


def put_features(
    directory: str | Path, blocks: Iterable[np.ndarray], like: Mapping[str, Any]
) -> None:
    """Write features that were made already: some rows of a cache, or several caches in one.

    Parameters
    ----------
    blocks
        (., 2 b) arrays of float16, one after the other.
    like
        Sidecar of the cache that they come from: its facts are kept, and its key becomes a
        part of theirs.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "rows.f16", checksum=False) as temporary:
        rows, width = 0, like["shape"][1]
        with temporary.open("wb") as stream:
            for block in blocks:
                stream.write(np.ascontiguousarray(block, dtype=np.float16).tobytes())
                rows += len(block)
    found = sha256_file(folder / "rows.f16")
    parts = {"layout": LAYOUT, "of": like["key"], "sha256": found}
    key = _digest(json.dumps(parts, sort_keys=True).encode())
    stem = folder / key[:16]
    os.replace(folder / "rows.f16", stem.with_suffix(".features.f16"))
    content = {**like, "key": key, "parts": parts, "shape": [rows, width], "done": rows}
    write_json(stem.with_suffix(".features.json"), {**content, "sha256": found})


def open_features(directory: str | Path, key: str) -> np.memmap:
    """Open a complete cache, whose size and content are what its sidecar says.

    Returns
    -------
    (n, 2 b) read-only memory map of float16

    Raises
    ------
    ContractError
        If the cache is not there, or belongs to another key.
    Damaged
        If it is no longer what was written.
    """
    stem = Path(directory) / key[:16]
    sidecar = read_json(stem.with_suffix(".features.json"))
    path = stem.with_suffix(".features.f16")
    if sidecar.get("key") != key:
        raise ContractError(f"{path}: key is {sidecar.get('key')}, expected {key}")
    n, width = sidecar["shape"]
    remedy = f"delete the folder {path.parent} and run again"
    size = path.stat().st_size if path.exists() else 0
    if size != 2 * n * width:
        raise Damaged(f"{path}: {size} bytes, expected {2 * n * width}; {remedy}")
    found = sha256_file(path)
    if found != sidecar["sha256"]:
        raise Damaged(f"{path}: its SHA-256 is {found}, expected {sidecar['sha256']}; {remedy}")
    return np.memmap(path, dtype=np.float16, mode="r", shape=(n, width))


def find_features(directory: str | Path) -> np.memmap:
    """Open the one complete cache of a folder.

    Raises
    ------
    ContractError
        If there is none, or more than one.
    Damaged
        If it is no longer what was written.
    """
    return open_features(directory, str(read_sidecar(directory).get("key")))


def cache_files(directory: str | Path, key: str) -> tuple[Path, Path]:
    """Return the files of a complete cache: the features and their sidecar."""
    stem = Path(directory) / key[:16]
    return stem.with_suffix(".features.f16"), stem.with_suffix(".features.json")


def read_sidecar(directory: str | Path) -> dict[str, Any]:
    """Read the sidecar of a folder's one complete cache."""
    sidecars = sorted(Path(directory).glob("*.features.json"))
    if len(sidecars) != 1:
        raise ContractError(
            f"{directory}: {len(sidecars)} complete caches of features "
            f"({listed(p.name for p in sidecars)}), expected one"
        )
    return read_json(sidecars[0])


def _digest(*parts: bytes | np.ndarray) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else np.ascontiguousarray(part).tobytes()
        hashed.update(len(data).to_bytes(8, "little") + data)
    return hashed.hexdigest()
