"""Frozen pre-trained transformers: texts to vectors, tokens of a cell to one vector."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from morebench.models.more.encoder import BertEncoder

MIN_COSINE = 0.999
MAX_TEXT_TOKENS = 64
_TEXT_BATCH = 64


class Backbone(nn.Module):
    """A frozen encoder. No parameter has a gradient, and it stays in eval mode.

    Attributes
    ----------
    name : str
        What it was loaded as.
    width : int
        b, the width of token embeddings and of hidden states.
    weights_sha256, tokeniser_sha256 : str
        Of the file of weights and the tokeniser's files; with random weights, of the tensors
        and of the seed.
    precision : str
        In which it multiplies now; ``float32`` until ``calibrate``.
    token_scale : float
        Length of a usual word embedding: what a text of length 1 is scaled to as a token.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokeniser: Any | None,
        *,
        weights_sha256: str,
        tokeniser_sha256: str,
        seed: int = 0,
        wanted: str = "auto",
    ) -> None:
        super().__init__()
        self.model, self.tokeniser = model.float(), tokeniser
        self.name, self.seed, self.wanted = name, seed, wanted
        self.weights_sha256, self.tokeniser_sha256 = weights_sha256, tokeniser_sha256
        self.requires_grad_(False)
        self.train(False)
        words = self.model.get_input_embeddings().weight
        self.width = int(words.shape[1])
        self.token_scale = float(words.norm(dim=1).mean())
        self._make_encoders()

    def _make_encoders(self) -> None:
        """One encoder for cells, and a precise one for texts."""
        fits = BertEncoder.fits(self.model)
        self.encoder = BertEncoder(self.model) if fits else None
        self.precise = BertEncoder(self.model) if fits else None
        if self.precise and self.wanted != "float32" and "bfloat16" in self.precise.precisions():
            self.precise.set_precision("bfloat16")

    def _apply(self, fn: Any, recurse: bool = True) -> Backbone:
        """Follow the model to another device."""
        super()._apply(fn, recurse)
        self._make_encoders()
        return self

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode, whatever an enclosing module asks."""
        return super().train(False)

    @property
    def n_parameters(self) -> int:
        """Number of frozen parameters."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.get_input_embeddings().weight.device

    @property
    def precision(self) -> str:
        """In which precision it multiplies now."""
        return self.encoder.precision if self.encoder else "float32"

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Mean-pooled, normalised vectors of texts (Reimers and Gurevych 2019, section 3).

        Without a tokeniser (random weights) a text's vector is random, fixed by the seed.

        Returns
        -------
        (g, b) array of float32, rows of length 1
        """
        if self.tokeniser is None:
            return np.stack([self._random_vector(text) for text in texts])
        out_gb = np.empty((len(texts), self.width), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        for start in range(0, len(order), _TEXT_BATCH):
            rows = order[start : start + _TEXT_BATCH]
            ids = self.tokeniser(
                [texts[i] for i in rows], padding=True, truncation=True,
                max_length=MAX_TEXT_TOKENS, return_tensors="pt",
            ).to(self.device)  # fmt: skip
            words_nkb = self.model.get_input_embeddings()(ids["input_ids"])
            hidden_nb = self._mean(self.precise, words_nkb, ids["attention_mask"].bool())
            out_gb[rows] = F.normalize(hidden_nb, dim=-1).cpu().numpy()
        return out_gb

    def _random_vector(self, text: str) -> np.ndarray:
        digest = hashlib.sha256(f"{self.seed}\0{text}".encode()).digest()
        x_b = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32)).normal(size=self.width)
        return (x_b / np.linalg.norm(x_b)).astype(np.float32)

    @torch.inference_mode()
    def encode(self, e_nkb: torch.Tensor, mask_nk: torch.Tensor | None = None) -> torch.Tensor:
        """Mean of the last hidden states over a cell's tokens.

        Parameters
        ----------
        e_nkb : (n, k, b) tensor of float32
            Token embeddings before positions are added.
        mask_nk : (n, k) tensor of bool, optional
            Which places hold a token; None if all do.

        Returns
        -------
        (n, b) tensor of float32
            Zeros for a cell without tokens.
        """
        return self._mean(self.encoder, e_nkb, mask_nk)

    def _mean(
        self, encoder: BertEncoder | None, e_nkb: torch.Tensor, mask_nk: torch.Tensor | None
    ) -> torch.Tensor:
        if encoder is not None:
            h_nkb = encoder(e_nkb, mask_nk)
        else:
            mask = None if mask_nk is None else mask_nk.long()
            h_nkb = self.model(inputs_embeds=e_nkb, attention_mask=mask).last_hidden_state
        if mask_nk is None:
            return h_nkb.mean(1)
        m_nk = mask_nk.to(h_nkb.dtype)
        return torch.einsum("nkb,nk->nb", h_nkb, m_nk) / m_nk.sum(1, keepdim=True).clamp_min(1)

    def reset(self) -> None:
        """Go back to float32."""
        if self.encoder is not None:
            self.encoder.set_precision("float32")

    @torch.inference_mode()
    def calibrate(
        self,
        e_nkb: torch.Tensor,
        mask_nk: torch.Tensor | None = None,
        *,
        without: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Choose the precision: the fastest that keeps every probe cell's direction.

        Every third cell is compared with float32, the others calibrate int8. At least 0.999
        is asked of the smallest cosine. A precision that was asked for by name is set as it is.

        Parameters
        ----------
        e_nkb, mask_nk
            Tokens of probe cells, at least three.
        without
            Precisions that ``auto`` is not to try.

        Returns
        -------
        dict
            ``precision``, ``min_cosine`` of each that was tried, and ``min_cosine_centred``
            (of the differences from the mean probe cell, which is the stricter measure).
        """
        report: dict[str, Any] = {"min_cosine": {}, "min_cosine_centred": {}}
        if self.encoder is not None:
            held = torch.arange(len(e_nkb)) % 3 == 2
            fit = e_nkb[~held], None if mask_nk is None else mask_nk[~held]
            test = e_nkb[held], None if mask_nk is None else mask_nk[held]
            self.reset()
            exact_nb = self.encode(*test)
            tried = self.encoder.precisions() if self.wanted == "auto" else (self.wanted,)
            for precision in (p for p in tried if p not in without):
                self.encoder.set_precision(precision, *fit)
                cosines = _cosines(self.encode(*test), exact_nb)
                report["min_cosine"][precision], report["min_cosine_centred"][precision] = cosines
                if cosines[0] >= MIN_COSINE:
                    break
        report["precision"] = self.precision
        return report


def _cosines(x_nb: torch.Tensor, exact_nb: torch.Tensor) -> tuple[float, float]:
    mean_b = exact_nb.mean(0)
    plain = F.cosine_similarity(x_nb, exact_nb, dim=1).min()
    return float(plain), float(F.cosine_similarity(x_nb - mean_b, exact_nb - mean_b, dim=1).min())
