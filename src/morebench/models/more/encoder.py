"""The frozen BERT encoder, written out so that it runs fast without gradients.

The same numbers as ``transformers.BertModel`` (Devlin et al. 2019; the post-norm encoder of
Vaswani et al. 2017, section 3), in one of three precisions: query, key and value are one
product, their scale is in the weights, residuals and norms stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from morebench.errors import Unsupported
from morebench.models.more.int8 import Int8FeedForward, Int8Linear, int8_supported

# A cell that attends to one token only has means far larger than usual; there is room for
# them, since this product is the one that rounding hurts least.
OUT_HEADROOM = 1.6

Product = Callable[[torch.Tensor], torch.Tensor]
Norm = tuple[torch.Tensor, torch.Tensor, float]


@dataclass
class _Layer:
    """Float32 weights of one layer, and its three products in the present precision."""

    qkv_weights: tuple[torch.Tensor, torch.Tensor]
    out_weights: tuple[torch.Tensor, torch.Tensor]
    up_weights: tuple[torch.Tensor, torch.Tensor]
    down_weights: tuple[torch.Tensor, torch.Tensor]
    norm_1: Norm
    norm_2: Norm
    qkv: Product = torch.clone
    out: Product = torch.clone
    feed_forward: Product = torch.clone


def _linear(weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> Product:
    weight, bias = weight.to(dtype), bias.to(dtype)
    return lambda x: F.linear(x.to(dtype), weight, bias)


def _feed_forward(layer: _Layer, dtype: torch.dtype) -> Product:
    up, down = _linear(*layer.up_weights, dtype), _linear(*layer.down_weights, dtype)
    return lambda x: down(F.gelu(up(x)))


def _weights(module: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return module.weight.data, module.bias.data


def _norm(module: Any) -> Norm:
    return module.weight.data, module.bias.data, module.eps


def _normed(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], *norm)


class BertEncoder:
    """Encoder over given token embeddings; frozen, no dropout.

    Parameters
    ----------
    model : transformers.BertModel
        Float32, on its device. Weights are read, not changed.

    Raises
    ------
    Unsupported
        If the model is not the encoder that is written out here.
    """

    def __init__(self, model: Any) -> None:
        if not self.fits(model):
            raise Unsupported(f"{model.config.model_type}: not a plain BERT encoder with GELU")
        self.heads = model.config.num_attention_heads
        at = model.embeddings
        # All tokens are of type 0, so its embedding belongs to the positions.
        self.position_kb = at.position_embeddings.weight.data + at.token_type_embeddings.weight[0]
        self.norm_0 = _norm(at.LayerNorm)
        self.layers = [self._layer(layer) for layer in model.encoder.layer]
        self.precision = ""
        self.set_precision("float32")

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether a model is a BERT encoder with GELU and absolute positions."""
        c = model.config
        kind = getattr(c, "position_embedding_type", "absolute")
        return c.model_type == "bert" and c.hidden_act == "gelu" and kind == "absolute"

    def _layer(self, layer: Any) -> _Layer:
        a = layer.attention.self
        scale = a.attention_head_size**-0.5
        parts = (a.query.weight.data * scale, a.key.weight.data, a.value.weight.data)
        biases = (a.query.bias.data * scale, a.key.bias.data, a.value.bias.data)
        out = layer.attention.output
        return _Layer(
            qkv_weights=(torch.cat(parts), torch.cat(biases)),
            out_weights=_weights(out.dense),
            up_weights=_weights(layer.intermediate.dense),
            down_weights=_weights(layer.output.dense),
            norm_1=_norm(out.LayerNorm),
            norm_2=_norm(layer.output.LayerNorm),
        )

    def precisions(self) -> tuple[str, ...]:
        """Precisions that are worth a try here, fastest first; float32 is always there."""
        on_cpu = self.position_kb.device.type == "cpu"
        if on_cpu and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return ("int8", "float32") if int8_supported() else ("float32",)
        return ("int8", "bfloat16", "float32") if on_cpu and int8_supported() else (
            "bfloat16", "float32",
        )  # fmt: skip

    def set_precision(
        self,
        precision: str,
        e_nkb: torch.Tensor | None = None,
        mask_nk: torch.Tensor | None = None,
    ) -> None:
        """Multiply in another precision; int8 is calibrated on cells that are given."""
        if precision in ("float32", "bfloat16"):
            dtype = torch.float32 if precision == "float32" else torch.bfloat16
            for layer in self.layers:
                layer.qkv = _linear(*layer.qkv_weights, dtype)
                layer.out = _linear(*layer.out_weights, dtype)
                layer.feed_forward = _feed_forward(layer, dtype)
        elif precision == "int8" and e_nkb is not None and int8_supported():
            self._to_int8(e_nkb, mask_nk)
        else:
            raise Unsupported(f"precision {precision!r} here; possible: {self.precisions()}")
        self.precision = precision

    def _to_int8(self, e_nkb: torch.Tensor, mask_nk: torch.Tensor | None) -> None:
        """Calibrate each layer on what float32 gives it; padding does not count."""
        n, k, _ = e_nkb.shape
        kept = slice(None) if mask_nk is None else mask_nk.reshape(-1).bool()
        bias = _attention_bias(mask_nk)
        h = self._embedded(e_nkb)
        for layer in self.layers:
            c = self._attend(F.linear(h, *layer.qkv_weights), n, k, bias)
            mid = _normed(h + F.linear(c, *layer.out_weights), layer.norm_1)
            hidden = F.gelu(F.linear(mid, *layer.up_weights))
            layer.qkv = Int8Linear(*layer.qkv_weights, h[kept], dtype=torch.bfloat16)
            layer.out = Int8Linear(*layer.out_weights, c[kept], headroom=OUT_HEADROOM)
            layer.feed_forward = Int8FeedForward(
                *layer.up_weights, *layer.down_weights, mid[kept], hidden[kept]
            )
            h = _normed(mid + F.linear(hidden, *layer.down_weights), layer.norm_2)

    def __call__(self, e_nkb: torch.Tensor, mask_nk: torch.Tensor | None = None) -> torch.Tensor:
        """Last hidden states.

        Parameters
        ----------
        e_nkb : (n, k, b) tensor of float32
            Token embeddings, to which positions are added.
        mask_nk : (n, k) tensor of bool, optional
            Which places hold a token; None if all do.

        Returns
        -------
        (n, k, b) tensor of float32
            What stands in places without a token means nothing.
        """
        n, k, _ = e_nkb.shape
        bias = _attention_bias(mask_nk)
        h = self._embedded(e_nkb)
        for layer in self.layers:
            h = _normed(layer.out(self._attend(layer.qkv(h), n, k, bias)) + h, layer.norm_1)
            h = _normed(layer.feed_forward(h) + h, layer.norm_2)
        return h.view(n, k, -1)

    def _embedded(self, e_nkb: torch.Tensor) -> torch.Tensor:
        n, k, b = e_nkb.shape
        return _normed(e_nkb + self.position_kb[:k], self.norm_0).view(n * k, b)

    def _attend(self, qkv: torch.Tensor, n: int, k: int, bias: torch.Tensor | None) -> torch.Tensor:
        """Attention within cells, (n k, 3 b) to (n k, b); the scale is in the weights."""
        parts = qkv.view(n, k, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if qkv.dtype == torch.float32 or qkv.device.type != "cpu":
            q, key, v = parts.unbind(0)
            mask = None if bias is None else bias.to(qkv.dtype)
            c = F.scaled_dot_product_attention(q, key, v, attn_mask=mask, scale=1.0)
        else:
            # On a CPU two batched products in bfloat16 beat the fused kernel at k < 64.
            q, key, v = parts.reshape(3, n * self.heads, k, -1)
            s = torch.bmm(q, key.transpose(1, 2))
            if bias is not None:
                s = (s.view(n, self.heads, k, k) + bias.to(s.dtype)).view(-1, k, k)
            c = torch.bmm(torch.softmax(s, -1), v).view(n, self.heads, k, -1)
        return c.transpose(1, 2).reshape(n * k, -1)


def _attention_bias(mask_nk: torch.Tensor | None) -> torch.Tensor | None:
    if mask_nk is None or bool(mask_nk.all()):
        return None
    bias_nk = torch.zeros(mask_nk.shape, device=mask_nk.device)
    return bias_nk.masked_fill(~mask_nk.bool(), -1e30)[:, None, None, :]
