"""CONCORD, by concord-sc: contrastive learning within batches, with or without labels."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import softmax

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import DataError, listed
from morebench.methods.logreg import shown_labels
from morebench.methods.numbers import need_at_least, need_share
from morebench.models.more.tokens import log_normalise

if TYPE_CHECKING:
    import torch

_BATCH, _LABEL = "batch", "label"
_MIN_CELLS = 4  # the package drops steps of fewer different cells, all of one batch


def run(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    latent_dim: int,
    encoder_dims: tuple[int, ...],
    batch_size: int,
    n_epochs: int,
    lr: float,
    schedule_ratio: float,
    element_mask_prob: float,
    feature_mask_prob: float,
    clr_temperature: float,
    clr_beta: float,
) -> MethodOutput:
    """Train CONCORD on the fit-visible cells and embed every cell by its encoder.

    Parameters
    ----------
    data
        The split's input; the log-normalised counts of its genes are read.
    seed
        Of weights, of the cells and the masks of a step.
    threads
        Of torch.
    latent_dim, encoder_dims
        Width of the embedding; of the hidden layers before it.
    batch_size, n_epochs
        Cells a step, all of one batch; passes over the cells.
    lr, schedule_ratio
        Learning rate of Adam; its factor, which the package applies twice an epoch.
    element_mask_prob, feature_mask_prob
        Share of a cell's values above 0, and of all genes, that a view of a step hides.
    clr_temperature, clr_beta
        Of the contrastive loss: temperature, weight of hard negatives.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, latent_dim), float32; ``parameters_trained``.

    Raises
    ------
    ConfigError
        A number makes no sense.
    DataError
        No batch has four cells that may be fitted on.

    Notes
    -----
    Zhu et al. 2025, Nature Biotechnology, doi 10.1038/s41587-025-02950-z.
    """
    network, _, notes = _train(
        data,
        seed,
        threads,
        {
            "latent_dim": latent_dim,
            "encoder_dims": encoder_dims,
            "batch_size": batch_size,
            "n_epochs": n_epochs,
            "lr": lr,
            "schedule_ratio": schedule_ratio,
            "element_mask_prob": element_mask_prob,
            "feature_mask_prob": feature_mask_prob,
            "clr_temperature": clr_temperature,
            "clr_beta": clr_beta,
        },
    )
    return MethodOutput(
        embedding=_apply(network, data, batch_size, threads)["encoded"],
        parameters_trained=_parameters(network),
        notes=notes,
    )


def run_class(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    latent_dim: int,
    encoder_dims: tuple[int, ...],
    batch_size: int,
    n_epochs: int,
    lr: float,
    schedule_ratio: float,
    element_mask_prob: float,
    feature_mask_prob: float,
    clr_temperature: float,
    clr_beta: float,
    classifier_weight: float,
) -> MethodOutput:
    """Train CONCORD with a classifier of the shown labels; embed and label every cell.

    Parameters
    ----------
    data
        The split's input, with ``labels``.
    seed, threads, latent_dim, encoder_dims, batch_size, n_epochs, lr, schedule_ratio
        As in ``run``.
    element_mask_prob, feature_mask_prob, clr_temperature, clr_beta
        As in ``run``.
    classifier_weight
        Weight of the cross-entropy of the shown labels beside the contrastive loss.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, latent_dim); ``probabilities`` (n, classes shown), columns sorted;
        ``labels`` (n,), the most probable class; ``parameters_trained``.

    Raises
    ------
    ContractError
        No labels were given at all.
    ConfigError
        A number makes no sense.
    DataError
        No batch has four cells that may be fitted on, or fewer than two classes are shown.

    Notes
    -----
    Zhu et al. 2025, Nature Biotechnology, doi 10.1038/s41587-025-02950-z.
    """
    network, classes, notes = _train(
        data,
        seed,
        threads,
        {
            "latent_dim": latent_dim,
            "encoder_dims": encoder_dims,
            "batch_size": batch_size,
            "n_epochs": n_epochs,
            "lr": lr,
            "schedule_ratio": schedule_ratio,
            "element_mask_prob": element_mask_prob,
            "feature_mask_prob": feature_mask_prob,
            "clr_temperature": clr_temperature,
            "clr_beta": clr_beta,
            "classifier_weight": classifier_weight,
            "use_classifier": True,
        },
    )
    found = _apply(network, data, batch_size, threads)
    # in float64, so that rows sum to 1
    p_nc = softmax(found["class_pred"].astype(np.float64), axis=1)
    return MethodOutput(
        embedding=found["encoded"],
        labels=np.asarray(classes)[p_nc.argmax(axis=1)],
        probabilities=pd.DataFrame(p_nc, index=data.cell_ids, columns=classes),
        parameters_trained=_parameters(network),
        notes=notes,
    )


def _cells_to_fit(data: MethodInput) -> tuple[np.ndarray, dict[str, Any]]:
    """Return (n,) mask of the cells that the package can draw a step of, and notes."""
    names, size = np.unique(data.batch[data.fit_visible], return_counts=True)
    small = names[size < _MIN_CELLS]
    if len(small) == len(names):
        raise DataError(
            f"batch: found at most {size.max(initial=0)} cells in one that may be fitted on; "
            f"CONCORD needs {_MIN_CELLS}"
        )
    if not len(small):
        return data.fit_visible, {}
    note = f"batches of fewer than {_MIN_CELLS} cells: {listed(small)}"
    return data.fit_visible & ~np.isin(data.batch, small), {"not_fitted_on": note}


def _labels(data: MethodInput, fit: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Return (n,) labels, a placeholder where none is shown; the placeholder, if it is used."""
    rows, shown = shown_labels(data, fit, "CONCORD's classifier")
    placeholder = ""
    while placeholder in shown:
        placeholder += "_"
    labels = np.full(data.n_cells, placeholder, dtype=object)
    labels[rows] = shown
    return labels, placeholder if len(rows) < fit.sum() else None


def _train(
    data: MethodInput, seed: int, threads: int, options: dict[str, Any]
) -> tuple[torch.nn.Module, list[str], dict[str, Any]]:
    """Return the trained network, the names of its classes, and notes."""
    need_at_least(
        latent_dim=(options["latent_dim"], 1), batch_size=(options["batch_size"], _MIN_CELLS),
        n_epochs=(options["n_epochs"], 1),
    )  # fmt: skip
    need_share(**{k: options[k] for k in ("element_mask_prob", "feature_mask_prob")})
    fit, notes = _cells_to_fit(data)
    obs = pd.DataFrame({_BATCH: data.batch[fit]}, index=data.cell_ids[fit].astype(str))
    if options.get("use_classifier"):
        labels, placeholder = _labels(data, fit)
        obs[_LABEL] = labels[fit]
        options = options | {"class_key": _LABEL, "unlabeled_class": placeholder}

    from anndata import AnnData
    from concord import Concord

    from morebench.models.more.devices import threads_of

    model = Concord(
        AnnData(_values(data, fit), obs=obs, var=pd.DataFrame(index=data.genes.astype(str))),
        save_dir=None,
        seed=seed,
        domain_key=_BATCH,
        preload_dense=True,  # else the package starts four processes to read cells
        **options | {"encoder_dims": list(options["encoder_dims"])},
    )
    with threads_of(threads), warnings.catch_warnings():
        # that there is no GPU; that a step lacked a class
        warnings.filterwarnings("ignore", category=UserWarning, module="torch|sklearn")
        model.init_model()
        model.train(save_model=False)
    classes = model.config.unique_classes
    return model.model, [] if classes is None else [str(c) for c in classes], notes


def _values(data: MethodInput, cells: np.ndarray) -> sp.csr_matrix:
    return log_normalise(data.counts_ng[np.flatnonzero(cells)]).astype(np.float32)


def _apply(
    network: torch.nn.Module, data: MethodInput, batch_size: int, threads: int
) -> dict[str, np.ndarray]:
    """Return what the network gives of every cell, which it knows nothing of but the counts."""
    import torch

    from morebench.models.more.devices import threads_of

    x_ng = _values(data, np.ones(data.n_cells, dtype=bool))
    device = next(network.parameters()).device
    network.eval()
    blocks = []
    with threads_of(threads), torch.no_grad():
        for start in range(0, data.n_cells, batch_size):
            x_bg = torch.from_numpy(x_ng[start : start + batch_size].toarray())
            blocks.append({k: v.cpu().numpy() for k, v in network(x_bg.to(device)).items()})
    return {k: np.concatenate([block[k] for block in blocks]) for k in blocks[0]}


def _parameters(network: Any) -> int:
    """Return the parameters that training changes: batches are embedded for a decoder only."""
    parts = [network.encoder, *([network.classifier] if network.use_classifier else [])]
    return sum(p.numel() for part in parts for p in part.parameters())
