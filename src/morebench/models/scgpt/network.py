"""The network of scGPT, with the official names of its parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

MAX_VALUE = 512  # values above are clipped


@dataclass(frozen=True)
class Shape:
    """What fixes the network's parameters.

    Attributes
    ----------
    n_tokens
        Size of the vocabulary.
    d_model, n_heads, n_layers, d_hid
        Width, attention heads, layers, and width of the layers' feed-forward part.
    dropout
        In training only.
    """

    n_tokens: int
    d_model: int
    n_heads: int
    n_layers: int
    d_hid: int
    dropout: float


class GeneEncoder(nn.Module):
    """A vector for each gene, normalised."""

    def __init__(self, n_tokens: int, d_model: int, pad: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, d_model, padding_idx=pad)
        self.enc_norm = nn.LayerNorm(d_model)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def forward(self, gene_bl: torch.Tensor) -> torch.Tensor:
        """(b, l) numbers of tokens -> (b, l, d)."""
        return self.enc_norm(self.embedding(gene_bl))


class ValueEncoder(nn.Module):
    """A vector for each value: continuous, so that neighbouring bins stay neighbours."""

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, d_model)
        self.linear2 = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def spread(self, lowest: float, highest: float) -> None:
        """Start with units that bend at different values, for training from scratch.

        As torch starts them, all bend within -1 to 1 or so; over bins up to 50 the output is
        then close to proportional to the value, and the norm takes just that away.

        Parameters
        ----------
        lowest, highest
            Where the first and the last unit bend.
        """
        n_units = self.linear1.out_features
        bend_d = torch.linspace(lowest, highest, n_units)
        slope_d = torch.where(torch.arange(n_units) % 2 == 0, 1.0, -1.0) / (highest - lowest)
        with torch.no_grad():
            self.linear1.weight.copy_(slope_d[:, None])
            self.linear1.bias.copy_(-slope_d * bend_d)

    def forward(self, value_bl: torch.Tensor) -> torch.Tensor:
        """(b, l) values -> (b, l, d)."""
        x_bl1 = value_bl.clamp(max=MAX_VALUE).unsqueeze(-1)
        hidden_bld = functional.relu(self.linear1(x_bl1))
        return self.dropout(self.norm(self.linear2(hidden_bld)))


class ExpressionDecoder(nn.Module):
    """The value of a gene, from the transformer's output at its place."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(d_model, d_model),
            nn.LeakyReLU(),
            nn.Linear(d_model, d_model),
            nn.LeakyReLU(),
            nn.Linear(d_model, 1),
        )

    def forward(self, h_bld: torch.Tensor) -> torch.Tensor:
        """(b, l, d) outputs -> (b, l) values."""
        return self.fc(h_bld).squeeze(-1)


class ScGPT(nn.Module):
    """Gene and value vectors, added, through a transformer; ``h[:, 0]`` is the cell.

    Parameters
    ----------
    shape
        Sizes.
    pad
        Number of the padding token.
    decoder
        Whether the network can predict values, which training needs and embedding does not.

    Notes
    -----
    Cui et al. 2024, Nature Methods 21, 1470-1480; ``TransformerModel`` of its code, with the
    continuous value encoder, post-norm layers and no batch tokens, as its ``embed_data``
    builds it.
    """

    def __init__(self, shape: Shape, pad: int, *, decoder: bool) -> None:
        super().__init__()
        self.shape, self.pad = shape, pad
        d_model = shape.d_model
        self.encoder = GeneEncoder(shape.n_tokens, d_model, pad)
        self.value_encoder = ValueEncoder(d_model, shape.dropout)
        layer = nn.TransformerEncoderLayer(
            d_model, shape.n_heads, shape.d_hid, shape.dropout, batch_first=True
        )
        # nested tensors would cut the output to the longest cell, for no gain here
        self.transformer_encoder = nn.TransformerEncoder(
            layer, shape.n_layers, enable_nested_tensor=False
        )
        self.decoder = ExpressionDecoder(d_model) if decoder else None

    def forward(self, gene_bl: torch.Tensor, value_bl: torch.Tensor) -> torch.Tensor:
        """Return the transformer's output.

        Parameters
        ----------
        gene_bl : (b, l) tensor of int64
            Numbers of tokens, <cls> first.
        value_bl : (b, l) tensor of float32
            Bins of the values.

        Returns
        -------
        (b, l, d) tensor
        """
        x_bld = self.encoder(gene_bl) + self.value_encoder(value_bl)
        return self.transformer_encoder(x_bld, src_key_padding_mask=gene_bl == self.pad)
