"""MoRE, by models/more: without labels, with the labels shown, and untrained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from morebench.contract import MethodInput, MethodOutput
from morebench.errors import ContractError, Unsupported

if TYPE_CHECKING:
    from morebench.models.more.cells import Cells, Modality
    from morebench.models.more.model import MoRE


_ANNOTATE = "annotate_"


def run(data: MethodInput, *, seed: int, threads: int, **settings: Any) -> MethodOutput:
    """Fit MoRE without labels on the fit-visible cells and embed every cell.

    Parameters
    ----------
    data
        The split's input; other modalities are read from ``all_genes_file``, frozen
        features from ``features_dir``. With a ``pretrained_file`` of its own, nothing is
        fitted: that model embeds the cells.
    seed, threads
        Of all that is drawn; of torch.
    **settings
        Every field of ``models.more.settings.Settings``.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, n_latent); ``model`` where it was fitted; trained and frozen
        parameters.
    """
    model, cells, features, notes = _fitted(data, None, seed, threads, settings)
    return MethodOutput(
        embedding=model.embed(cells, features=features),
        model=_kept(model, data),
        parameters_trained=model.parameters_trained,
        parameters_frozen=notes.pop("parameters_frozen"),
        notes=notes,
    )


def run_supervised(data: MethodInput, *, seed: int, threads: int, **settings: Any) -> MethodOutput:
    """Fit MoRE with the labels that the split shows; embed and annotate every cell.

    Parameters
    ----------
    data, seed, threads
        As in ``run``, with ``data.labels``.
    **settings
        As in ``run``; those that start with ``annotate_`` are fields of ``AnnotateSettings``.

    Returns
    -------
    MethodOutput
        ``embedding``, ``labels`` (a class shown, or ``unknown``), ``probabilities``,
        ``novelty``, and ``model`` where it was fitted.

    Raises
    ------
    ContractError
        No labels were given at all.
    """
    if data.labels is None and data.pretrained_file is None:
        raise ContractError("labels: found None; more_sup needs the labels that the split shows")
    steps = {k: settings.pop(k) for k in list(settings) if k.startswith(_ANNOTATE)}
    model, cells, features, notes = _fitted(data, data.labels, seed, threads, settings, steps)
    found = model.annotate(cells, features=features)
    return MethodOutput(
        embedding=model.embed(cells, features=features),
        model=_kept(model, data),
        labels=np.asarray(found.labels, dtype=object),
        probabilities=pd.DataFrame(found.probabilities, columns=list(found.classes)),
        novelty=found.novelty,
        parameters_trained=model.parameters_trained,
        parameters_frozen=notes.pop("parameters_frozen"),
        notes=notes,
    )


def run_zeroshot(
    data: MethodInput,
    *,
    seed: int,
    threads: int,
    backbone: str,
    n_tokens: int,
    n_components: int,
    spectrum: float,
    feature_spectrum: float,
    noise_weight: float,
    n_pairs: int,
) -> MethodOutput:
    """Embed cells without any training: frozen features and expression branch, aligned.

    Parameters
    ----------
    data, seed
        As in ``run``.
    threads
        Of torch (nothing here uses it beyond the neighbour search).
    backbone, n_tokens, n_components, spectrum, feature_spectrum, noise_weight, n_pairs
        As in ``Settings``.

    Returns
    -------
    MethodOutput
        ``embedding`` (n, width of the branches).
    """
    from morebench.models.more.devices import threads_of
    from morebench.models.more.inputs import fit_transforms, make_inputs
    from morebench.models.more.settings import Settings
    from morebench.models.more.zeroshot import align

    chosen = Settings(
        backbone=backbone, n_tokens=n_tokens, n_components=n_components, spectrum=spectrum,
        feature_spectrum=feature_spectrum, noise_weight=noise_weight, structure=False,
        n_pairs=n_pairs,
    )  # fmt: skip
    cells = _cells(data)
    features, frozen, notes = _features(data, chosen.uses_backbone)
    with threads_of(threads):
        transforms = fit_transforms(cells, features, chosen, seed=seed)
        inputs = make_inputs(cells, transforms, features, chosen, seed=seed)
        embedding = align(inputs.x_np, cells.batch, n_pairs, seed=seed)
    return MethodOutput(embedding=embedding, parameters_frozen=frozen, notes=notes)


def _fitted(
    data: MethodInput,
    labels: np.ndarray | None,
    seed: int,
    threads: int,
    settings: dict[str, Any],
    steps: dict[str, Any] | None = None,
) -> tuple[MoRE, Cells, dict[str, np.ndarray], dict[str, Any]]:
    """Return the model fitted on the fit-visible cells, and what embeds every cell."""
    from morebench.models.more.annotate_settings import AnnotateSettings
    from morebench.models.more.model import MoRE
    from morebench.models.more.settings import Settings

    chosen = Settings.from_dict(settings)
    annotation = AnnotateSettings(
        **{k.removeprefix(_ANNOTATE): v for k, v in (steps or {}).items()}
    )
    cells = _cells(data)
    features, frozen, notes = _features(data, chosen.uses_backbone)
    notes["parameters_frozen"] = frozen
    if data.pretrained_file is not None:
        if chosen.structure:
            raise Unsupported("structure: a range of cells has not the neighbours of all of them")
        return _read(data.pretrained_file), cells, features, notes
    rows = np.flatnonzero(data.fit_visible)
    model = MoRE.fit_cells(
        cells.take(rows),
        None if labels is None else labels[rows],
        chosen,
        features={name: x_nf[rows] for name, x_nf in features.items()},
        annotation=annotation,
        seed=seed,
        device="auto",
        threads=threads,
    )
    return model, cells, features, notes


def _read(path: Path) -> MoRE:
    from morebench.io.outputs import read_model
    from morebench.models.more.devices import choose_device
    from morebench.models.more.model import MoRE
    from morebench.models.more.store import from_arrays

    return MoRE(**from_arrays(read_model(path), choose_device("auto"), str(path)))


def _kept(model: MoRE, data: MethodInput) -> dict[str, np.ndarray] | None:
    """Return the fitted model as arrays; None where it was given."""
    from morebench.models.more.store import to_arrays

    return None if data.pretrained_file is not None else to_arrays(model)


def _features(data: MethodInput, used: bool) -> tuple[dict[str, np.ndarray], int, dict[str, Any]]:
    """Return the frozen features by modality, the backbone's parameters, and notes."""
    if not used:
        return {}, 0, {}
    if data.features_dir is None:
        raise ContractError("features: found none; MoRE with a backbone needs the frozen features")
    from morebench.models.more.cache import find_features, read_sidecar

    facts = read_sidecar(data.features_dir)
    kept = ("seconds", "cells_per_second", "precision")
    notes = {f"features_{k}": facts[k] for k in kept if facts.get(k) is not None}
    name = _main_modality(data)
    found = {name: np.array(find_features(data.features_dir))}
    if len(found[name]) != data.n_cells:
        raise ContractError(
            f"{data.features_dir}: features of {len(found[name])} cells; valid: {data.n_cells}"
        )
    return found, int(facts["n_parameters"]), notes


def _cells(data: MethodInput) -> Cells:
    """Return the split's features of the main modality, and every other modality whole."""
    from morebench.models.more.cells import Cells, Modality, checked

    main = _main_modality(data)
    present = np.ones(data.n_cells, dtype=bool)
    genes = data.genes.astype(str)
    parts = {main: Modality(data.counts_ng, genes, present)}
    if data.all_genes_file is not None:
        parts |= _other_modalities(data, main)
    return checked(Cells(parts, data.batch), "input")


def _main_modality(data: MethodInput) -> str:
    """Return the modality that the split's features are of: the one that has them all."""
    if data.all_genes_file is None:
        return "rna"
    names = _modality_names(data.all_genes_file)
    if len(names) == 1:
        return names[0]
    wanted = set(data.genes)
    for name in names:
        if wanted <= set(_features_of(data.all_genes_file, name)):
            return name
    raise ContractError(f"{data.all_genes_file}: no modality of {names} has the input's features")


def _modality_names(path: Path) -> list[str]:
    import h5py

    with h5py.File(path) as file:
        return list(file["mod"])


def _features_of(path: Path, modality: str) -> np.ndarray:
    import h5py
    from anndata.io import read_elem

    with h5py.File(path) as file:
        return read_elem(file[f"mod/{modality}/var"]).index.to_numpy(dtype=str)


def _other_modalities(data: MethodInput, main: str) -> dict[str, Modality]:
    """Read the other modalities' most variable features, chosen on fit-visible cells."""
    import h5py
    from anndata.io import read_elem

    from morebench.models.more.cells import Modality
    from morebench.models.more.genes import most_variable

    assert data.all_genes_file is not None
    place = {cell: i for i, cell in enumerate(data.cell_ids)}
    found = {}
    for name in _modality_names(data.all_genes_file):
        if name == main:
            continue
        with h5py.File(data.all_genes_file) as file:
            counts = sp.csr_matrix(read_elem(file[f"mod/{name}/X"]), dtype=np.float32)
            cells = read_elem(file[f"mod/{name}/obs"]).index.to_numpy(dtype=str)
        rows = np.array([place[c] for c in cells], dtype=int)
        shape = (data.n_cells, len(rows))
        spread = sp.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape)
        present = np.zeros(data.n_cells, dtype=bool)
        present[rows] = True
        fitted = present & data.fit_visible
        if not fitted.any():
            raise Unsupported(f"{name}: no fit-visible cell has this modality")
        full = sp.csr_matrix(spread @ counts, dtype=np.float32)
        kept = most_variable(full[fitted], data.batch[fitted], name)
        names = _features_of(data.all_genes_file, name)[kept]
        found[name] = Modality(sp.csr_matrix(full[:, kept]), names, present)
    return found
