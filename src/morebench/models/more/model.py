"""MoRE for users: fit on an AnnData or MuData, then embed, annotate, denoise, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morebench.errors import DataError, Unsupported, listed
from morebench.models.more import train
from morebench.models.more.annotate import Annotation, Annotator
from morebench.models.more.annotate_settings import AnnotateSettings
from morebench.models.more.cells import Cells, from_data
from morebench.models.more.devices import choose_device, threads_of
from morebench.models.more.expression import normalise
from morebench.models.more.features import FeatureSource
from morebench.models.more.genes import with_variable_features
from morebench.models.more.inputs import Inputs, Transforms, fit_transforms, make_inputs
from morebench.models.more.labels import label_codes, shown_labels
from morebench.models.more.network import Network, n_parameters
from morebench.models.more.query import matched
from morebench.models.more.settings import Settings
from morebench.models.more.texts import texts_by_name

Features = Mapping[str, np.ndarray]


@dataclass
class MoRE:
    """A fitted model. Make one with ``MoRE.fit`` or ``MoRE.load``.

    Attributes
    ----------
    settings
        What it was fitted with.
    names
        By modality: the features it reads, in their order.
    batches, classes
        Names of the batches it was fitted on, and of the types it was shown (or none).
    """

    settings: Settings
    network: Network
    transforms: Transforms
    source: FeatureSource
    names: dict[str, np.ndarray]
    batches: np.ndarray
    classes: np.ndarray
    annotator: Annotator | None
    seed: int
    device: str
    batch_key: str | None = None
    layer: str | None = None

    @classmethod
    def fit(
        cls,
        data: Any,
        batch_key: str | None = None,
        labels_key: str | None = None,
        *,
        unlabeled: str | None = None,
        layer: str | None = None,
        settings: Settings | None = None,
        annotation: AnnotateSettings | None = None,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        texts: Mapping[str, Sequence[str]] | None = None,
        cache: str | Path | None = None,
        progress: train.Progress | None = None,
    ) -> MoRE:
        """Fit MoRE.

        Parameters
        ----------
        data
            AnnData, or MuData for several modalities; raw counts in ``X`` or ``layer``.
            Cells of a MuData may lack modalities.
        batch_key
            Column of ``obs`` that tells batches apart; None for one batch.
        labels_key
            Column of ``obs`` with cell types, for the semi-supervised model.
        unlabeled
            The value of that column that says "not known"; missing values do so too.
        settings, annotation
            Default: ``Settings()`` and ``AnnotateSettings()``, which serve every dataset.
        seed
            Of all that is drawn: the same seed gives the same model on the same machine.
        device
            ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads
            Of torch; None leaves torch's own choice.
        texts
            By modality: what its features are called for the backbone, in the order of
            ``var_names``. Default: their names, for ``rna``; other modalities have no
            frozen features unless their texts are given.
        cache
            Folder of frozen features; None: they are computed and not kept.
        progress
            Called with the training steps done and all steps.

        Returns
        -------
        MoRE

        Raises
        ------
        DataError
            What stands in ``data`` cannot be used; says what, and what would be valid.
        """
        settings = settings or Settings()
        cells = from_data(data, batch_key, layer)
        shown = None
        if labels_key is not None:
            shown = shown_labels(data, labels_key, unlabeled)
        source = FeatureSource(settings.backbone, settings.n_tokens, seed, cache)
        if texts is not None:
            source.texts = {
                name: texts_by_name(cells, name, words) for name, words in texts.items()
            }
        model = cls.fit_cells(
            cells, shown, settings, source, annotation=annotation, seed=seed, device=device,
            threads=threads, progress=progress,
        )  # fmt: skip
        model.batch_key, model.layer = batch_key, layer
        return model

    @classmethod
    def fit_cells(
        cls,
        cells: Cells,
        shown: np.ndarray | None,
        settings: Settings,
        source: FeatureSource | None = None,
        *,
        features: Features | None = None,
        annotation: AnnotateSettings | None = None,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
        progress: train.Progress | None = None,
    ) -> MoRE:
        """Fit on ``Cells``: what ``fit`` does once the data is read.

        Parameters
        ----------
        shown : (n,) array of object, or None
            Labels, None where they are hidden.
        features
            By modality: frozen features of the cells, where they are there already; then
            every feature of the cells is used, as the features were made of them.
        """
        device = choose_device(device)
        source = source or FeatureSource(settings.backbone, settings.n_tokens, seed, None)
        with threads_of(threads):
            if features is None:
                cells = source.fit(with_variable_features(cells))
                features = source.features(cells, device) if settings.uses_backbone else {}
            transforms = fit_transforms(cells, features, settings, seed=seed)
            inputs = make_inputs(cells, transforms, features, settings, seed=seed)
            batches, batch_n = np.unique(cells.batch, return_inverse=True)
            classes, label_n = label_codes(shown, len(cells))
            network = train.fit_network(
                inputs, cells, batch_n, label_n, len(classes), settings,
                seed=seed, device=device, progress=progress,
            )  # fmt: skip
            names = {name: m.names for name, m in cells.modalities.items()}
            model = cls(
                settings, network, transforms, source, names, batches, classes, None, seed, device
            )
            if len(classes):
                z_nd = model._embed(cells, inputs)[0]
                model.annotator = Annotator.fit(
                    model._expression(inputs), z_nd, label_n, classes, cells.batch,
                    log_ng=model._logs(cells), counts_ng=model._counts(cells),
                    settings=annotation, seed=seed,
                )  # fmt: skip
        return model

    def embed(self, data: Any, *, features: Features | None = None) -> np.ndarray:
        """Embed cells, also of batches never seen, also with modalities missing.

        Parameters
        ----------
        data
            AnnData, MuData or ``Cells``. Features that the model does not know are left
            out, those that it misses count as 0.

        Returns
        -------
        (n, d) float32

        Raises
        ------
        DataError
            Less than half of the model's features of a modality are there.
        """
        cells = self._cells(data)
        z_nd = self._embed(cells, self._inputs(cells, features))[0]
        with torch.inference_mode():
            z = torch.as_tensor(z_nd, device=self.device)
            return self.network.along_axes(z).cpu().numpy()

    def annotate(self, data: Any, *, features: Features | None = None) -> Annotation:
        """Give cells a type out of the model's classes, or ``unknown``, with probabilities.

        Raises
        ------
        Unsupported
            The model was fitted without labels.
        """
        if self.annotator is None:
            raise Unsupported("the model was fitted without labels; fit it with labels_key=...")
        cells = self._cells(data)
        inputs = self._inputs(cells, features)
        z_nd = self._embed(cells, inputs)[0]
        return self.annotator.predict(
            self._expression(inputs), z_nd, cells.batch, log_ng=self._logs(cells),
            counts_ng=self._counts(cells), seed=self.seed,
        )  # fmt: skip

    def denoise(
        self, data: Any, modality: str = "rna", *, features: Features | None = None
    ) -> np.ndarray:
        """Return expression as the reconstruction head sees it.

        Returns
        -------
        (n, g) float32
            In the order of ``names[modality]``. Likelihood ``gaussian``: normalised log
            values (log(1 + 10,000 x share) for RNA). ``nb``: expected counts at each cell's
            own library size.
        """
        if modality not in self.names:
            raise DataError(f"modality: found {modality!r}; valid: {listed(self.names)}")
        cells = self._cells(data)
        if self.settings.likelihood == "nb" and modality not in cells.modalities:
            raise DataError(
                f"modality: {modality!r} is not in the data, so cells have no library size there; "
                f"valid: {listed(cells.modalities)}"
            )
        inputs = self._inputs(cells, features)
        z_nd = self._embed(cells, inputs)[0]
        shares_nk = torch.as_tensor(self._shares(cells.batch), device=self.device)
        with torch.inference_mode():
            z = torch.as_tensor(z_nd, device=self.device)
            out_ng = self.network.decoders[modality](z, shares_nk).float()
            if self.settings.likelihood == "nb":
                found = out_ng.softmax(1).cpu().numpy()
                total_n = np.asarray(cells.modalities[modality].counts_ng.sum(1)).ravel()
                return (found * total_n[:, None]).astype(np.float32)
        values_ng = self.transforms.expression[modality].inverse(out_ng.cpu().numpy())
        floor = -np.inf if modality == "adt" else 0.0  # centred values may be negative
        return np.maximum(values_ng, floor).astype(np.float32)

    def save(self, path: str | Path) -> None:
        """Write the model: a folder of ``model.json`` and ``model.safetensors``, no pickle."""
        from morebench.models.more.store import write_model

        write_model(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> MoRE:
        """Read a model that ``save`` wrote."""
        from morebench.models.more.store import read_model

        return cls(**read_model(Path(path), choose_device(device)))

    @property
    def parameters_trained(self) -> int:
        """Number of parameters that training changed."""
        return n_parameters(self.network)

    @property
    def parameters_frozen(self) -> int:
        """Number of parameters of the frozen backbone."""
        return self.source.n_parameters if self.settings.uses_backbone else 0

    def summary(self) -> str:
        """Return what the model is, with its trained and frozen parameters."""
        trained, frozen = self.parameters_trained, self.parameters_frozen
        features = ", ".join(f"{len(v)} {k}" for k, v in self.names.items())
        types = listed(self.classes) if len(self.classes) else "none (fitted without labels)"
        return "\n".join(
            [
                f"MoRE: {features} features to {self.settings.n_latent} dimensions",
                f"batches: {listed(self.batches)}",
                f"cell types: {types}",
                f"backbone: {self.settings.backbone if frozen else 'none'}",
                f"parameters: {trained:,} trained, {frozen:,} frozen "
                f"({100 * trained / (trained + frozen):.2f} % trained)",
            ]
        )

    def with_features(self, cache: str | Path | None) -> MoRE:
        """Return the model with another folder for frozen features."""
        return replace(self, source=self.source.at(cache))

    def _cells(self, data: Any) -> Cells:
        cells = data
        if not isinstance(data, Cells):
            cells = from_data(data, self.batch_key, self.layer)
        return matched(cells, self.names)

    def _inputs(self, cells: Cells, features: Features | None) -> Inputs:
        if features is None:
            used = self.settings.uses_backbone
            features = self.source.features(cells, self.device) if used else {}
        return make_inputs(cells, self.transforms, features, self.settings, seed=self.seed)

    def _shares(self, batch: np.ndarray) -> np.ndarray:
        """Return (n, k) float32: one-hot batches; equal shares of all for one never seen."""
        share_nk = (batch[:, None] == self.batches[None]).astype(np.float32)
        share_nk[~share_nk.any(1)] = 1 / len(self.batches)
        return share_nk

    def _embed(self, cells: Cells, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Embed with the learned batch vectors; for unseen batches, with estimates."""
        vector = dict(zip(self.batches, self.network.refine.b_kd.detach(), strict=True))
        zero_nd = torch.zeros(len(cells), self.settings.n_latent, device=self.device)
        unseen = np.setdiff1d(cells.batch, self.batches)
        if len(unseen):
            _, fused_nd = train.embed(self.network, inputs, zero_nd, device=self.device)
            mean_qd = np.stack([fused_nd[cells.batch == name].mean(0) for name in unseen])
            with torch.inference_mode():
                found = self.network.refine.estimate(torch.as_tensor(mean_qd, device=self.device))
            vector |= dict(zip(unseen, found, strict=True))
        names, code_n = np.unique(cells.batch, return_inverse=True)
        b_nd = torch.stack([vector[name] for name in names])[torch.as_tensor(code_n)]
        return train.embed(self.network, inputs, b_nd, device=self.device)

    def _expression(self, inputs: Inputs) -> np.ndarray:
        """Return (n, p): the expression branches, for the annotator."""
        kept = [b for b in inputs.branches if b.kind == "expression"]
        return np.concatenate([inputs.x_np[:, b.start : b.stop] for b in kept], axis=1)

    def _counts(self, cells: Cells) -> Any:
        """Return raw counts of the first modality, or None where the cells do not have it."""
        name = next(iter(self.names))
        return cells.modalities[name].counts_ng if name in cells.modalities else None

    def _logs(self, cells: Cells) -> Any:
        """Return normalised values of the first modality, which marker genes are sought in."""
        name, counts_ng = next(iter(self.names)), self._counts(cells)
        if counts_ng is None:
            return None
        frequency_g = self.transforms.expression[name].frequency_g
        return normalise(counts_ng, name, frequency_g).astype(np.float32)
