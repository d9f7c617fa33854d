"""From counts to tokens: the genes that a cell expresses, and the bins of their values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from morebench.models.scgpt.binning import bin_values

PAD_VALUE = -2  # of padding and of the <cls> token
MASK_VALUE = -1  # of a gene whose value is hidden in training


@dataclass(frozen=True)
class Tokens:
    """The gene tokens of cells, one after the other.

    Attributes
    ----------
    gene_t : (t,) array of int64
        Numbers of the genes in the vocabulary.
    bin_t : (t,) array of int64
        Bins of their values, 1 to ``n_bins - 1``.
    start_n : (n + 1,) array of int64
        Where each cell begins; the last is t.
    """

    gene_t: np.ndarray
    bin_t: np.ndarray
    start_n: np.ndarray

    @property
    def length_n(self) -> np.ndarray:
        """(n,) array: genes of each cell, without <cls>."""
        return np.diff(self.start_n)


def tokenise(
    counts_ng: sp.csr_matrix,
    number_g: np.ndarray,
    *,
    n_bins: int,
    seed: int,
    max_length: int | None = None,
) -> Tokens:
    """Make the tokens of cells: only genes with a count, and with a number.

    Parameters
    ----------
    counts_ng : (n, g) csr matrix
        Counts, or any values at least 0 that rise with them within a cell.
    number_g : (g,) array of int
        Numbers of the genes in the vocabulary; -1 leaves a gene out, before binning.
    n_bins
        Bins, with the one for zeros.
    seed
        Of ties and of the choice of genes, drawn for each cell by its row: other cells do
        not change it.
    max_length
        Tokens of a cell at most, <cls> included; of a longer cell that many are drawn, after
        binning. None keeps them all.

    Returns
    -------
    Tokens of n cells
    """
    known_nk = sp.csr_matrix(counts_ng)[:, np.flatnonzero(number_g >= 0)]
    known_nk.eliminate_zeros()
    known_nk.sort_indices()
    number_k = number_g[number_g >= 0]
    genes, bins = [], []
    for row in range(known_nk.shape[0]):
        rng = np.random.default_rng([seed, row])
        part = slice(known_nk.indptr[row], known_nk.indptr[row + 1])
        gene_k = number_k[known_nk.indices[part]]
        bin_k = bin_values(known_nk.data[part], n_bins, rng)
        if max_length is not None and len(gene_k) > max_length - 1:
            kept = rng.permutation(len(gene_k))[: max_length - 1]
            gene_k, bin_k = gene_k[kept], bin_k[kept]
        genes.append(gene_k)
        bins.append(bin_k)
    start_n = np.concatenate([[0], np.cumsum([len(g) for g in genes])]).astype(np.int64)
    none = [np.zeros(0, dtype=np.int64)]
    return Tokens(np.concatenate(none + genes), np.concatenate(none + bins), start_n)


def collate(
    tokens: Tokens,
    rows: np.ndarray,
    *,
    cls: int,
    pad: int,
    max_length: int | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put cells side by side: <cls> first, then the genes, then padding.

    Parameters
    ----------
    tokens
        Of all cells.
    rows : (b,) array of int
        Which cells.
    cls, pad
        Numbers of the special tokens.
    max_length, rng
        Longer cells lose genes drawn at random; both or neither.

    Returns
    -------
    gene_bl : (b, l) tensor of int64
    value_bl : (b, l) tensor of float32
        Bins; ``PAD_VALUE`` for <cls> and padding.
    """
    picked = []
    for row in rows:
        at_k = np.arange(tokens.start_n[row], tokens.start_n[row + 1])
        if max_length is not None and rng is not None and len(at_k) > max_length - 1:
            at_k = rng.permutation(at_k)[: max_length - 1]
        picked.append(at_k)
    length = 1 + max((len(at_k) for at_k in picked), default=0)
    gene_bl = np.full((len(rows), length), pad, dtype=np.int64)
    value_bl = np.full((len(rows), length), PAD_VALUE, dtype=np.float32)
    gene_bl[:, 0] = cls
    for i, at_k in enumerate(picked):
        gene_bl[i, 1 : 1 + len(at_k)] = tokens.gene_t[at_k]
        value_bl[i, 1 : 1 + len(at_k)] = tokens.bin_t[at_k]
    return torch.from_numpy(gene_bl), torch.from_numpy(value_bl)
