"""Files of MoRE's commands: checked before any work, read, and written whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.config import closest
from morebench.data.raw import check_layer, readable
from morebench.errors import ConfigError, DataError, listed
from morebench.files import atomic_path
from morebench.io.counts import check_sparse
from morebench.io.hdf5 import check_hdf5
from morebench.io.tables import write_parquet, write_tsv

if TYPE_CHECKING:
    from morebench.models.more.annotate import Annotation

DATA = (".h5ad", ".h5mu")
TABLES = (".tsv", ".parquet")
MODEL_FILE = "model.json"


def check_input(data: Path) -> None:
    """Raise DataError unless the data file is there, and of a kind that is read."""
    if data.suffix not in DATA:
        raise DataError(f"{data}: is of kind {data.suffix!r}; valid: {listed(DATA)}")
    if not data.is_file():
        raise DataError(f"{data}: there is no such file")


def check_output(output: Path, data: Path, force: bool) -> None:
    """Raise DataError unless the output may be written.

    Its kind is the data's own or a table, its folder exists, and there is nothing in its
    place, unless ``force``.
    """
    valid = (data.suffix, *TABLES) if data.suffix in DATA else (*DATA, *TABLES)
    if output.suffix not in valid:
        raise DataError(
            f"--output {output}: is of kind {output.suffix!r}; valid for {data}: {listed(valid)}"
        )
    _check_parent(output, "--output")
    if output.is_dir():
        raise DataError(f"--output {output}: is a folder; valid: a file")
    if output.exists() and not force:
        own = data.exists() and output.samefile(data)
        what = "is the input" if own else "is there already"
        raise DataError(f"--output {output}: {what}; --force replaces it")


def check_model_target(folder: Path, force: bool) -> None:
    """Raise DataError unless a model may be written: nothing else is ever replaced."""
    _check_parent(folder, "--model")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"--model {folder}: is a file; valid: a folder")
    if not any(folder.iterdir()):
        return
    if not (folder / MODEL_FILE).is_file():
        raise DataError(f"--model {folder}: holds other files; valid: a new or empty folder")
    if not force:
        raise DataError(f"--model {folder}: a model is there already; --force replaces it")


def check_cache(folder: Path | None) -> None:
    """Raise DataError where the cache cannot be a folder."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise DataError(f"--cache {folder}: is a file; valid: a folder")


def _check_parent(path: Path, option: str) -> None:
    parent = path.absolute().parent
    if not parent.is_dir():
        raise DataError(f"{option} {path}: there is no folder {path.parent}")
    if not os.access(parent, os.W_OK):
        raise DataError(f"{option} {path}: the folder {path.parent} may not be written to")


def read_cells(path: Path, layer: str | None) -> Any:
    """Read an AnnData or a MuData.

    Raises
    ------
    DataError
        The file cannot be read, or a modality has no such layer (or no X).
    """
    import anndata
    import mudata

    with readable(path, "data"), mudata.set_options(pull_on_update=False):
        check_hdf5(path, "data")
        is_h5ad = path.suffix == ".h5ad"
        cells = anndata.read_h5ad(path) if is_h5ad else mudata.read_h5mu(path)
    for name, part in ({"rna": cells} if is_h5ad else dict(cells.mod)).items():
        check_layer(layer, part.X is not None, list(part.layers), f"{path}, {name}")
        for matrix in (part.X, *part.layers.values()):
            check_sparse(matrix, f"{path}, {name}")
    return cells


def check_columns(
    cells: Any,
    batch_key: str | None,
    labels_key: str | None = None,
    unlabeled: str | None = None,
) -> None:
    """Raise DataError unless ``obs`` has the columns, and the value that says: not known."""
    columns = list(map(str, cells.obs.columns))
    for option, key in (("--batch-key", batch_key), ("--labels-key", labels_key)):
        if key is not None and key not in columns:
            raise DataError(f"{option}: obs has no column {key!r}; {closest(key, columns)}")
    if unlabeled is None:
        return
    if labels_key is None:
        raise ConfigError("--unlabeled: says nothing without --labels-key")
    values = set(cells.obs[labels_key].dropna().astype(str))
    if unlabeled not in values:
        raise DataError(
            f"--unlabeled: obs[{labels_key!r}] has no value {unlabeled!r}; "
            f"{closest(unlabeled, values)}"
        )


def write_embedding(cells: Any, z_nd: np.ndarray, output: Path) -> None:
    """Write ``obsm['X_more']`` of the cells, or a table of ``cell_id, more_1, ...``."""
    if output.suffix in TABLES:
        columns = [f"more_{i + 1}" for i in range(z_nd.shape[1])]
        _write_table(cells, pd.DataFrame(z_nd, columns=columns), output)
    else:
        cells.obsm["X_more"] = z_nd
        _write_cells(cells, output)


def write_annotation(cells: Any, found: Annotation, output: Path) -> None:
    """Write types of the cells.

    ``obs['more_label']``, ``obs['more_probability']`` (of the likeliest class, also where the
    label is ``unknown``), ``obs['more_novelty']``, ``obsm['more_probabilities']`` in the
    order of ``uns['more_classes']``; or a table with one column ``p_<class>`` a class.
    """
    best_n = found.probabilities.max(axis=1)
    if output.suffix in TABLES:
        frame = pd.DataFrame(found.probabilities, columns=[f"p_{c}" for c in found.classes])
        frame.insert(0, "more_label", found.labels)
        frame.insert(1, "more_probability", best_n)
        frame.insert(2, "more_novelty", found.novelty)
        _write_table(cells, frame, output)
    else:
        cells.obs["more_label"] = pd.Categorical(found.labels)
        cells.obs["more_probability"] = best_n
        cells.obs["more_novelty"] = found.novelty
        cells.obsm["more_probabilities"] = found.probabilities
        cells.uns["more_classes"] = np.asarray(found.classes, dtype=object)
        _write_cells(cells, output)


def _write_table(cells: Any, frame: pd.DataFrame, output: Path) -> None:
    frame.insert(0, "cell_id", np.asarray(cells.obs_names, dtype=str))
    (write_tsv if output.suffix == ".tsv" else write_parquet)(output, frame)


def _write_cells(cells: Any, output: Path) -> None:
    import mudata

    with atomic_path(output) as temporary, mudata.set_options(pull_on_update=False):
        if output.suffix == ".h5ad":
            cells.write_h5ad(temporary)
        else:
            cells.write_h5mu(temporary)
