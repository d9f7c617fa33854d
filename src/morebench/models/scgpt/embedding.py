"""The embedding of cells by a network that is not changed."""

from __future__ import annotations

import numpy as np
import torch

from morebench.models.scgpt.network import ScGPT
from morebench.models.scgpt.tokens import Tokens, collate
from morebench.models.scgpt.vocabulary import Vocabulary


def embed_cells(
    network: ScGPT,
    tokens: Tokens,
    vocabulary: Vocabulary,
    *,
    batch_size: int,
    device: str = "cpu",
) -> np.ndarray:
    """Embed cells by the output at <cls>, scaled to length 1.

    Parameters
    ----------
    network
        On ``device``; it is left in eval mode, its parameters as they are.
    tokens
        Of n cells.
    batch_size
        Cells at once. Cells of like length go together, which saves padding.

    Returns
    -------
    (n, d) array of float32
        A cell without a gene is what <cls> alone gives.

    Notes
    -----
    Official ``scgpt.tasks.cell_emb.get_batch_cell_embeddings``, in full precision.
    """
    network.eval()
    n_cells = len(tokens.start_n) - 1
    z_nd = np.zeros((n_cells, network.shape.d_model), dtype=np.float32)
    order = np.argsort(tokens.length_n, kind="stable")
    # the fused layers hold attention of all pairs of tokens at once: gigabytes at full length
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode():
            for start in range(0, n_cells, batch_size):
                rows = order[start : start + batch_size]
                gene_bl, value_bl = collate(tokens, rows, cls=vocabulary.cls, pad=vocabulary.pad)
                h_bld = network(gene_bl.to(device), value_bl.to(device))
                z_nd[rows] = h_bld[:, 0].float().cpu().numpy()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return z_nd / np.linalg.norm(z_nd, axis=1, keepdims=True)
