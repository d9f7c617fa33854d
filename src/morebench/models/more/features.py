"""Frozen features of a model's cells: fitted with it, so that query cells get the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from morebench.errors import ContractError
from morebench.models.more.backbone import load_backbone
from morebench.models.more.cache import frozen_features
from morebench.models.more.cells import Cells
from morebench.models.more.frozen import Backbone
from morebench.models.more.texts import feature_texts
from morebench.models.more.tokens import Background, background

TEXT_MODALITIES = ("rna",)  # their feature names say something to a language model


@dataclass
class FeatureSource:
    """How frozen features are made.

    Attributes
    ----------
    name, n_tokens, seed
        Of the backbone; tokens a cell; of random weights.
    cache
        Folder that keeps them, or None.
    texts
        By modality: feature name to what it is called; its name where it is not in it.
    usual
        By modality: the background profile of the fitted cells.
    n_parameters, weights_sha256
        Of the backbone, once it was loaded; the latter is "" before.
    """

    name: str
    n_tokens: int
    seed: int
    cache: str | Path | None
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    usual: dict[str, Background] = field(default_factory=dict)
    n_parameters: int = 0
    weights_sha256: str = ""
    _backbone: Backbone | None = field(default=None, repr=False)

    def fit(self, cells: Cells) -> Cells:
        """Take the background profiles of the fitted cells; returns the cells as they are."""
        for name, m in cells.modalities.items():
            if name in self.texts or name in TEXT_MODALITIES:
                self.usual[name] = background(m.counts_ng, m.present)
        return cells

    def features(self, cells: Cells, device: str) -> dict[str, np.ndarray]:
        """Return, by modality, (n, 2 b) float16: computed, or from the cache."""
        with tempfile.TemporaryDirectory(prefix="morebench-features-") as temporary:
            folder = Path(self.cache) if self.cache is not None else Path(temporary)
            found = {}
            for name, usual in self.usual.items():
                m = cells.modalities.get(name)
                if m is None or not m.present.any():
                    continue
                made = frozen_features(
                    m.counts_ng,
                    list(m.names),
                    self._texts(name, m.names),
                    fit_visible=m.present,
                    backbone=self._loaded(device),
                    k=self.n_tokens,
                    directory=folder / name,
                    text_directory=folder / "texts",
                    background=usual,
                )
                found[name] = np.array(made)
        return found

    def at(self, cache: str | Path | None) -> FeatureSource:
        """Return the same source with another folder."""
        return replace(self, cache=cache)

    def _texts(self, modality: str, names: np.ndarray) -> list[str]:
        given = self.texts.get(modality, {})
        return [given.get(n, t) for n, t in zip(names, feature_texts(list(names)), strict=True)]

    def _loaded(self, device: str) -> Backbone:
        if self._backbone is None:
            loaded = load_backbone(self.name, seed=self.seed, device=device)
            assert loaded is not None, "a model without a backbone asks for no features"
            found = loaded.weights_sha256
            if self.weights_sha256 not in ("", found):
                raise ContractError(
                    f"backbone {self.name}: weights of SHA-256 {found}; valid: "
                    f"{self.weights_sha256}, which the model was fitted with"
                )
            self._backbone, self.weights_sha256 = loaded, found
            self.n_parameters = loaded.n_parameters
        return self._backbone.to(torch.device(device))
