"""scVI and scANVI, by scvi-tools."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ContractError, DataError, Unsupported, listed
from morebench.io.outputs import read_model

if TYPE_CHECKING:
    from anndata import AnnData

_BATCH, _LABEL = "batch", "label"
_RANDOM = "random."  # what the file of weights calls the state of random numbers
_TRAIN_SIZE = 0.9  # the default of SCANVI.train


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    n_hidden: int,
    n_latent: int,
    n_layers: int,
    dropout_rate: float,
    dispersion: str,
    gene_likelihood: str,
    max_epochs: int | None,
    batch_size: int,
) -> MethodOutput:
    """Fit scVI on the fit-visible cells and embed every cell by its posterior mean.

    Parameters
    ----------
    data
        The split's input; raw counts are modelled.
    seed
        Seed of torch, numpy and the split into training and validation cells.
    threads
        Threads of torch.
    n_hidden, n_latent, n_layers, dropout_rate, dispersion, gene_likelihood
        Parameters of ``scvi.model.SCVI``.
    max_epochs
        Epochs; None leaves the package's heuristic (400, fewer above 20,000 cells).
    batch_size
        Cells a step.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_latent), float32; ``model``, the weights, from which ``run_scanvi``
        starts; ``parameters_trained``.

    Raises
    ------
    Unsupported
        A cell outside the fit belongs to a batch that the fit has not seen.

    Notes
    -----
    Lopez et al. 2018, Nature Methods 15, 1053-1058.
    """
    fit, notes = _cells_to_fit(data)
    _configure(seed, threads)
    model = _train_scvi(
        _anndata(data, fit),
        {
            "n_hidden": n_hidden,
            "n_latent": n_latent,
            "n_layers": n_layers,
            "dropout_rate": dropout_rate,
            "dispersion": dispersion,
            "gene_likelihood": gene_likelihood,
        },
        max_epochs,
        batch_size,
    )
    notes["epochs"] = _epochs(model)
    weights = _saved(model)  # before embedding, which draws random numbers
    return MethodOutput(
        embedding=_embed(model, _anndata(data)),
        model=weights,
        parameters_trained=_parameters(model),
        notes=notes,
    )


def run_scanvi(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    n_hidden: int,
    n_latent: int,
    n_layers: int,
    dropout_rate: float,
    dispersion: str,
    gene_likelihood: str,
    pretrain_max_epochs: int | None,
    max_epochs: int | None,
    batch_size: int,
) -> MethodOutput:
    """Fit scVI, then scANVI with the labels that the split shows; embed and label every cell.

    Parameters
    ----------
    data
        The split's input, with ``labels``; where it has a ``pretrained_file``, the weights
        of scVI are read from there, else scVI is fitted first: the result is the same.
    seed, threads, n_hidden, n_latent, n_layers, dropout_rate, dispersion, gene_likelihood
        As in ``run``.
    pretrain_max_epochs
        Epochs of scVI; None leaves the package's heuristic.
    max_epochs
        Epochs of scANVI; None leaves the package's heuristic (10 after pre-training, fewer
        for very many cells).
    batch_size
        Cells a step.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_latent); ``probabilities`` (n, classes shown), columns sorted;
        ``labels`` (n,), the most probable class; ``parameters_trained``.

    Raises
    ------
    ContractError
        No labels were given at all.
    DataError
        Fewer than two classes are shown.
    Unsupported
        A cell outside the fit belongs to a batch that the fit has not seen.

    Notes
    -----
    Xu et al. 2021, Molecular Systems Biology 17, e9620.
    """
    import scvi

    fit, notes = _cells_to_fit(data)
    labels, unlabelled = _labels(data, fit)
    _configure(seed, threads)
    adata = _anndata(data, fit)
    adata.obs[_LABEL] = labels[fit]
    pretrained = _train_scvi(
        adata,
        {
            "n_hidden": n_hidden,
            "n_latent": n_latent,
            "n_layers": n_layers,
            "dropout_rate": dropout_rate,
            "dispersion": dispersion,
            "gene_likelihood": gene_likelihood,
        },
        pretrain_max_epochs,
        batch_size,
        data.pretrained_file,
    )
    model = scvi.model.SCANVI.from_scvi_model(
        pretrained, unlabeled_category=unlabelled, labels_key=_LABEL
    )
    usable = _scanvi_batch_size(labels[fit] != unlabelled, batch_size)
    if usable != batch_size:
        notes["batch_size"] = f"{usable} instead of {batch_size}: a last batch of one cell fails"
    _train(model, max_epochs, usable, train_size=_TRAIN_SIZE)
    query = _anndata(data)
    query.obs[_LABEL] = labels
    probabilities = _probabilities(model, query)
    classes = probabilities.columns.to_numpy(dtype=object)
    if data.pretrained_file is not None:
        notes["pretrained"] = "scVI was read, not fitted: its time stands with its own run"
    else:
        notes["pretrain_epochs"] = _epochs(pretrained)
    notes["epochs"] = _epochs(model)
    return MethodOutput(
        embedding=_embed(model, query),
        labels=classes[probabilities.to_numpy().argmax(axis=1)].astype(str),
        probabilities=probabilities,
        parameters_trained=_parameters(model),
        notes=notes,
    )


def _cells_to_fit(data: MethodInput) -> tuple[np.ndarray, dict[str, Any]]:
    """Return (n,) mask of the cells to fit on, and notes."""
    empty = np.asarray(data.counts_ng.sum(axis=1)).ravel() == 0
    fit = data.fit_visible & ~empty
    notes: dict[str, Any] = {}
    if n_empty := int((data.fit_visible & empty).sum()):
        # the log library size of such a cell is -inf, and so is the loss
        notes["not_fitted_on"] = f"{n_empty} cells without a count in the split's genes"
    seen = np.unique(data.batch[fit])
    unseen = np.setdiff1d(data.batch, seen)
    if len(unseen):
        raise Unsupported(
            f"scvi-tools embeds batches it was fitted on only; batch {listed(unseen)} is not "
            f"among the fitted {listed(seen)} (its way to add one, scArches, trains on the query)"
        )
    return fit, notes


def _labels(data: MethodInput, fit: np.ndarray) -> tuple[np.ndarray, str]:
    """Return (n,) labels of fitted cells, a placeholder elsewhere, and the placeholder."""
    if data.labels is None:
        raise ContractError("labels: found None; scANVI needs the labels that the split shows")
    shown = fit & np.array([label is not None for label in data.labels], dtype=bool)
    classes = {str(label) for label in data.labels[shown]}
    if len(classes) < 2:
        raise DataError(
            f"labels: the split shows {len(classes)} classes ({listed(sorted(classes))}) on "
            f"{int(shown.sum())} cells that may be fitted on; scANVI needs at least 2"
        )
    unlabelled = "unlabelled"
    while unlabelled in classes:
        unlabelled += "_"
    labels = np.full(data.n_cells, unlabelled, dtype=object)
    labels[shown] = [str(label) for label in data.labels[shown]]
    return labels, unlabelled


def _anndata(data: MethodInput, cells: np.ndarray | None = None) -> AnnData:
    from anndata import AnnData

    rows = np.arange(data.n_cells) if cells is None else np.flatnonzero(cells)
    return AnnData(
        data.counts_ng[rows],
        obs=pd.DataFrame({_BATCH: data.batch[rows]}, index=data.cell_ids[rows].astype(str)),
        var=pd.DataFrame(index=data.genes.astype(str)),
    )


def _configure(seed: int, threads: int) -> None:
    import scvi
    import torch

    torch.set_num_threads(threads)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.verbosity = logging.ERROR
    scvi.settings.seed = seed


def _train_scvi(
    adata: AnnData,
    options: dict[str, Any],
    max_epochs: int | None,
    batch_size: int,
    weights_file: Path | None = None,
) -> Any:
    import scvi

    scvi.model.SCVI.setup_anndata(adata, batch_key=_BATCH)
    model = scvi.model.SCVI(adata, **options)
    if weights_file is not None:
        _restore(model, weights_file)
        return model
    _train(model, max_epochs, batch_size)
    return model


def _saved(model: Any) -> dict[str, np.ndarray]:
    """Return the weights of a model just fitted, and where the random numbers stand.

    So scANVI, starting from the file, draws what it would have drawn in the same process.
    """
    import torch

    weights = {k: v.cpu().numpy() for k, v in model.module.state_dict().items()}
    _, key, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    return weights | {
        f"{_RANDOM}torch": torch.get_rng_state().numpy(),
        f"{_RANDOM}numpy": np.asarray(key),
        f"{_RANDOM}numpy_rest": np.array([position, has_gauss, gauss], dtype=np.float64),
    }


def _restore(model: Any, weights_file: Path) -> None:
    """Make a model what it was when ``_saved`` looked at it."""
    import torch

    found = read_model(weights_file)
    random = {k: found.pop(k) for k in list(found) if k.startswith(_RANDOM)}
    model.module.load_state_dict({k: torch.from_numpy(v) for k, v in found.items()})
    model.module.eval()
    model.is_trained_ = True
    torch.set_rng_state(torch.from_numpy(random[f"{_RANDOM}torch"]))
    position, has_gauss, gauss = random[f"{_RANDOM}numpy_rest"]
    key = random[f"{_RANDOM}numpy"]
    np.random.set_state(("MT19937", key, int(position), int(has_gauss), gauss))  # noqa: NPY002


def _scanvi_batch_size(labelled: np.ndarray, batch_size: int) -> int:
    """Return the largest batch size up to the asked one that leaves no last batch of one cell.

    Batch normalisation cannot train on one cell. scvi-tools mends that for scVI only; for
    scANVI its authors advise another batch size.
    """
    n_labelled = math.ceil(_TRAIN_SIZE * int(labelled.sum()))
    n_trained = n_labelled + math.ceil(_TRAIN_SIZE * int((~labelled).sum()))
    for size in range(batch_size, 1, -1):
        if n_labelled % size != 1 and n_trained % size != 1:
            return size
    raise DataError(
        f"batch_size: found {batch_size}; no size from 2 to it splits the {n_trained} training "
        f"cells ({n_labelled} labelled) without a last batch of one cell"
    )


def _train(model: Any, max_epochs: int | None, batch_size: int, **options: Any) -> None:
    with warnings.catch_warnings():
        # advice on data loader workers and logging intervals, meant for interactive use
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning|scvi")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        model.train(
            max_epochs=max_epochs,
            batch_size=batch_size,
            accelerator="auto",
            enable_progress_bar=False,
            enable_checkpointing=False,
            **options,
        )


def _embed(model: Any, query: AnnData) -> np.ndarray:
    return np.asarray(model.get_latent_representation(query), dtype=np.float32)


def _probabilities(model: Any, query: AnnData) -> pd.DataFrame:
    soft = model.predict(query, soft=True)
    values = soft.to_numpy(dtype=np.float64)
    values /= values.sum(axis=1, keepdims=True)  # rows of float32 sum to 1 within 1e-6 only
    columns = soft.columns.astype(str)
    return pd.DataFrame(values, index=query.obs_names, columns=columns)[sorted(columns)]


def _parameters(model: Any) -> int:
    return sum(p.numel() for p in model.module.parameters() if p.requires_grad)


def _epochs(model: Any) -> int:
    return int(model.trainer.current_epoch)
