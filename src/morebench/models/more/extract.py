"""Frozen features of cells from their tokens, batch by batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morebench.errors import Damaged
from morebench.files import atomic_path, locked, verify
from morebench.models.more.tokens import Tokens

if TYPE_CHECKING:
    import torch

    from morebench.models.more.frozen import Backbone

PROBE_CELLS = 192
# Below so many cells, measured, the probe takes longer than the precision saves.
MIN_CELLS = {"int8": 2048, "bfloat16": 512}


class Extractor:
    """Turns rows of a token table into features of width 2 b.

    Parameters
    ----------
    tokens
        Chosen features of n cells.
    texts : g strings
        What the features are called; only chosen ones are embedded.
    backbone
        Its precision is chosen by ``calibrate``.
    folder
        Where vectors of texts are kept between runs.
    batch_size
        Cells encoded at once.
    """

    def __init__(
        self,
        tokens: Tokens,
        texts: Sequence[str],
        backbone: Backbone,
        folder: Path,
        batch_size: int,
    ) -> None:
        import torch

        self.tokens, self.backbone, self.batch_size = tokens, backbone, batch_size
        here = tokens.weight_nk > 0
        used = np.unique(tokens.index_nk[here])
        vectors_gb = np.zeros((len(texts), backbone.width), dtype=np.float32)
        vectors_gb[used] = text_vectors([texts[i] for i in used], backbone, folder)
        self.vectors_gb = torch.from_numpy(vectors_gb).to(backbone.device)
        # Longest first, so that batches hold next to no padding.
        self.order = np.argsort(-tokens.n_tokens_n, kind="stable")

    def calibrate(self, visible: np.ndarray) -> dict[str, Any]:
        """Let the backbone choose its precision on cells spread evenly over ``visible``.

        What would cost more than it saves on so few cells is not tried.
        """
        n = len(self.tokens.n_tokens_n)
        cells = visible[self.tokens.n_tokens_n[visible] > 0]
        self.backbone.reset()
        if len(cells) < 3 or (self.backbone.wanted == "auto" and n < MIN_CELLS["bfloat16"]):
            return {"precision": self.backbone.precision, "min_cosine": {}}
        places = np.linspace(0, len(cells) - 1, min(PROBE_CELLS, len(cells))).astype(int)
        e_nkb, mask_nk, _ = self._embedded(np.unique(cells[places]))
        without = tuple(name for name, least in MIN_CELLS.items() if n < least)
        return self.backbone.calibrate(e_nkb, mask_nk, without=without)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Features of cells.

        Parameters
        ----------
        rows : (m,) array of int
            Cells, in an order where neighbours have about as many tokens.

        Returns
        -------
        (m, 2 b) array of float16
        """
        out = np.zeros((len(rows), 2 * self.backbone.width), dtype=np.float16)
        for start in range(0, len(rows), self.batch_size):
            part = slice(start, start + self.batch_size)
            if self.tokens.n_tokens_n[rows[part]].any():
                out[part] = self._batch(rows[part])
        return out

    def _batch(self, rows: np.ndarray) -> np.ndarray:
        e_nkb, mask_nk, weight_nk = self._embedded(rows)
        hidden_nb = self.backbone.encode(e_nkb, None if bool(mask_nk.all()) else mask_nk)
        total_n1 = weight_nk.sum(1, keepdim=True).clamp_min(1e-12) * self.backbone.token_scale
        given_nb = e_nkb.sum(1) / total_n1
        return np.hstack([hidden_nb.cpu().numpy(), given_nb.cpu().numpy()]).astype(np.float16)

    def _embedded(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Token embeddings, mask and weights of cells, cut to the longest of them."""
        import torch

        k = int(self.tokens.n_tokens_n[rows].max())
        index = torch.from_numpy(self.tokens.index_nk[rows, :k].astype(np.int64))
        weight_nk = torch.from_numpy(self.tokens.weight_nk[rows, :k]).to(self.backbone.device)
        scaled = weight_nk[..., None] * self.backbone.token_scale
        return self.vectors_gb[index.to(self.backbone.device)] * scaled, weight_nk > 0, weight_nk


def text_vectors(texts: Sequence[str], backbone: Backbone, folder: Path) -> np.ndarray:
    """Vectors of texts, from the folder where they are kept, else embedded and kept there.

    Returns
    -------
    (g, b) array of float32
    """
    of = [backbone.weights_sha256, backbone.tokeniser_sha256, backbone.wanted]
    name = hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"texts-{name}.npz"
    with locked(folder / f"texts-{name}.lock"):  # of two jobs, one finds what the other made
        known = _read_vectors(path)
        missing = sorted(set(texts) - known.keys())
        if missing:
            known.update(zip(missing, backbone.embed_texts(missing), strict=True))
            names = np.frombuffer(json.dumps(list(known)).encode(), dtype=np.uint8)
            with atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.savez(stream, names=names, vectors=np.stack(list(known.values())))
    if not texts:
        return np.empty((0, backbone.width), dtype=np.float32)
    return np.stack([known[text] for text in texts])


def _read_vectors(path: Path) -> dict[str, np.ndarray]:
    """What is kept; nothing where the file is absent or damaged (it is then written anew)."""
    try:
        verify(path)
        with np.load(path, allow_pickle=False) as stored:
            names = json.loads(stored["names"].tobytes())
            return dict(zip(names, stored["vectors"], strict=True))
    except (FileNotFoundError, Damaged):
        return {}
