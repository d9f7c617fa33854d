"""CellTypist, trained on the cells whose label the split shows, or with a model of its makers."""

from __future__ import annotations

import importlib
import inspect
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import DataError, Unsupported, listed
from morebench.methods.celltypist_model import known_genes, load_model, read_checked
from morebench.methods.logreg import OneVsRest, iterations, shown_labels

if TYPE_CHECKING:
    from anndata import AnnData

MODALITY = "rna"
TARGET_SUM = 1e4  # the only depth that CellTypist accepts


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    C: float,
    solver: str | None,
    max_iter: int | None,
    use_SGD: bool,
    alpha: float,
    feature_selection: bool,
    top_genes: int,
    majority_voting: bool,
    model: str | None,
    model_sha256: str | None,
) -> MethodOutput:
    """Train CellTypist on the cells whose label is shown, or take a model; label every cell.

    Counts of all genes are scaled to 10,000 a cell and log1p transformed, as CellTypist asks.

    Parameters
    ----------
    data
        The split's input, with ``all_genes_file``, and ``labels`` where a model is trained.
    seed
        ``random_state`` of the classifier. L-BFGS, CellTypist's choice up to 50,000 cells,
        does not use it.
    threads
        ``n_jobs``: classes that are fitted at a time.
    C, solver, max_iter, use_SGD, alpha, feature_selection, top_genes
        Parameters of ``celltypist.train``. None for ``solver`` and ``max_iter`` lets it
        choose by the number of cells.
    majority_voting
        Whether ``celltypist.annotate`` replaces the labels by the majority within small
        clusters of all cells.
    model, model_sha256
        Absolute path of a CellTypist model, and its SHA-256. Nothing is trained then, no
        label is read, and the parameters of training are not used. None for both: train.

    Returns
    -------
    MethodOutput
        ``labels`` (n,), CellTypist's own; ``probabilities`` (n, classes shown, or classes of
        the model), columns sorted: its one-vs-rest sigmoids over their row sum;
        ``parameters_trained``, or ``parameters_frozen`` with a model; ``notes``.

    Raises
    ------
    ContractError
        A model is to be trained and no labels were given at all.
    DataError
        Fewer than two classes are shown, there are no counts, or the file is no model or
        knows too few of the genes.
    ConfigError
        The file's SHA-256 is another one, or the two parameters make no sense.
    Unsupported
        A cell has no RNA; or majority voting would cluster cells hidden from fitting.
    Unavailable
        There is no file of this name.

    Notes
    -----
    Dominguez Conde et al. 2022, Science 376, eabl5197.
    """
    n_hidden = int((~data.fit_visible).sum())
    if majority_voting and n_hidden:
        raise Unsupported(
            f"majority_voting clusters all cells, and the split hides {n_hidden} of "
            f"{data.n_cells} cells from fitting; valid on this split: majority_voting false"
        )
    content = read_checked(model, model_sha256)
    celltypist = _import()  # before scanpy, which imports matplotlib too
    adata = read_log_counts(data)
    if content is None:
        options = dict(
            C=C, solver=solver, max_iter=max_iter, n_jobs=threads, use_SGD=use_SGD, alpha=alpha,
            feature_selection=feature_selection, top_genes=top_genes, random_state=seed,
        )  # fmt: skip
        used, notes = _train(celltypist, data, adata, options)
    else:
        used = load_model(celltypist, content, str(model))
        known = known_genes(used, adata.var_names, str(model))
        notes = {
            "model": Path(str(model)).name,
            "model_sha256": str(model_sha256).lower(),
            "n_genes": known,
            "genes_known": f"{known} of {len(used.classifier.features)} of the model",
            "names": "labels are in the model's own words: scores need the dataset's in the same",
        }
    found = celltypist.annotate(adata, model=used, majority_voting=majority_voting)
    voted = "majority_voting" in found.predicted_labels
    column = "majority_voting" if voted else "predicted_labels"
    notes["probabilities"] = "one-vs-rest sigmoids over their row sum"
    if majority_voting and not voted:
        notes["labels"] = "no votes: CellTypist takes none where there are 50 cells or fewer"
    elif majority_voting:
        notes["labels"] = "majority within clusters; the probabilities are those of each cell"
    n_parameters = used.classifier.coef_.size + used.classifier.intercept_.size
    return MethodOutput(
        labels=found.predicted_labels[column].to_numpy().astype(str),
        probabilities=row_shares(found.decision_matrix),
        parameters_trained=n_parameters if content is None else 0,
        parameters_frozen=0 if content is None else n_parameters,
        notes=notes,
    )


def _train(
    celltypist: Any, data: MethodInput, adata: AnnData, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return a model trained on the shown cells that have a count, and notes about it."""
    empty = np.asarray(adata.X.sum(axis=1)).ravel() == 0
    rows, shown = shown_labels(data, data.fit_visible & ~empty, "celltypist")
    with _one_vs_rest() as replaced:
        model = celltypist.train(adata[rows].copy(), labels=shown, **options)
    classifier = model.classifier
    notes = {
        "n_fitted": len(rows),
        "n_genes": len(classifier.features),
        **iterations(classifier, classifier.max_iter),
    }
    if replaced and not options["use_SGD"]:
        notes["classifier"] = replaced
    if n_empty := int(empty.sum()):
        notes["not_fitted_on"] = f"{n_empty} cells without a count, labelled all the same"
    return model, notes


def read_log_counts(data: MethodInput) -> AnnData:
    """Read the counts of all genes, scaled to 10,000 a cell and log1p transformed.

    Parameters
    ----------
    data
        Its ``all_genes_file`` is the prepared MuData file, of which only the group
        ``mod/rna`` is read.

    Returns
    -------
    AnnData (n, all genes)
        ``X`` is a csr matrix of float32; cells in the order of ``data.cell_ids``.

    Raises
    ------
    Unsupported
        There is no RNA, or a cell without RNA.
    DataError
        There is no file.
    """
    import h5py
    import scanpy as sc
    from anndata import AnnData
    from anndata.io import read_elem

    if data.all_genes_file is None:
        raise DataError("all_genes_file: found None; celltypist needs the counts of all genes")
    path = Path(data.all_genes_file)
    with h5py.File(path, "r") as file:
        key = f"mod/{MODALITY}"
        if key not in file:
            found = listed(file["mod"] if "mod" in file else file)
            raise Unsupported(f"{path}: no {key}, found {found}; celltypist needs RNA counts")
        rna = read_elem(file[key])
    rows = pd.Index(rna.obs_names).get_indexer(data.cell_ids)
    missing = data.cell_ids[rows < 0]
    if len(missing):
        raise Unsupported(
            f"{path}: {len(missing)} of {data.n_cells} cells have no {MODALITY} "
            f"({listed(missing, 3)}); celltypist needs RNA counts of every cell"
        )
    adata = AnnData(
        sp.csr_matrix(rna.X, dtype=np.float32)[rows],
        obs=pd.DataFrame(index=data.cell_ids.astype(str)),
        var=pd.DataFrame(index=rna.var_names),
    )
    sc.pp.normalize_total(adata, target_sum=TARGET_SUM)
    sc.pp.log1p(adata)
    return adata


def row_shares(decision_nk: pd.DataFrame) -> pd.DataFrame:
    """Return each row's one-vs-rest sigmoids over their sum, from (n, k) decision scores.

    Computed from logarithms, since all the sigmoids of a cell may be too small for a float.
    """
    from scipy.special import log_expit, softmax

    values = softmax(log_expit(decision_nk.to_numpy(dtype=np.float64)), axis=1)
    columns = decision_nk.columns.astype(str)
    return pd.DataFrame(values, index=decision_nk.index, columns=columns)[sorted(columns)]


def _import() -> Any:
    """Import CellTypist without its traces: folders at home, and silenced warnings.

    CellTypist makes its model folder on import, matplotlib its list of fonts.
    """
    names = ("CELLTYPIST_FOLDER", "MPLCONFIGDIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        os.environ.update(dict.fromkeys(names, folder))
        try:
            return importlib.import_module("celltypist")
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _one_vs_rest() -> Iterator[str]:
    """Let ``celltypist.train`` fit one class against all others where scikit-learn cannot.

    CellTypist asks ``LogisticRegression`` for ``multi_class="ovr"``, which scikit-learn 1.8
    removed (Teichlab/celltypist, issue 164). Inside, it gets a class that does the same;
    the value is a sentence about that, empty where nothing had to be replaced.
    """
    # the package's attribute of this name is the function
    module: Any = importlib.import_module("celltypist.train")
    original = module.LogisticRegression
    if "multi_class" in inspect.signature(original).parameters:
        yield ""
        return
    module.LogisticRegression = OneVsRest
    try:
        yield "one binary logistic regression a class: scikit-learn has no multi_class='ovr' now"
    finally:
        module.LogisticRegression = original
