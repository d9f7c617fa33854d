"""Products of matrices in eight bits, for frozen weights on processors with VNNI.

Follows SmoothQuant (Xiao et al. 2023, eq. 3 and 4): inputs are divided per channel, which
moves outliers into the weights; then weights are rounded per output channel and inputs with
one scale a product, calibrated once. Three things make it precise enough for this encoder:
channels are centred on the middle of their range (Wei et al. 2023, section 3.2), the mean
error is put into the bias, and the few hidden channels with extreme values after GELU stay
in float32 (as in LLM.int8(), Dettmers et al. 2022).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

SMOOTHING = 0.75
HEADROOM = 1.05
OUTLIERS = 32
GELU_LOW = 0.17
_TINY = 1e-6


def int8_supported() -> bool:
    """Whether this processor and this PyTorch multiply int8 matrices fast."""
    vnni = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(vnni and vnni() and hasattr(torch.ops.onednn, "qlinear_pointwise"))


class _Rounded:
    """Weights rounded per output channel, packed, and the product with rounded inputs."""

    def __init__(
        self,
        weight_oi: torch.Tensor,
        bias_o: torch.Tensor,
        mean_i: torch.Tensor,
        scale: float,
        zero: int,
    ) -> None:
        self.scale_o = weight_oi.abs().amax(1).clamp_min(_TINY) / 127
        rounded = (weight_oi / self.scale_o[:, None]).round()
        self.bias_o = bias_o + (weight_oi - rounded * self.scale_o[:, None]) @ mean_i
        self.weight = torch.ops.onednn.qlinear_prepack(rounded.to(torch.int8), None)
        self.zero_o = torch.zeros(len(bias_o), dtype=torch.int32)
        self.scale, self.zero = scale, zero

    def __call__(
        self,
        q_xi: torch.Tensor,
        dtype: torch.dtype,
        post: str = "none",
        scale: float = 1.0,
        zero: int = 0,
    ) -> torch.Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            q_xi, self.scale, self.zero, self.weight, self.scale_o, self.zero_o, self.bias_o,
            scale, zero, dtype, post, [], "none",
        )  # fmt: skip


class Int8Linear:
    """``x W^T + b`` of float inputs, rounded on the way in.

    Parameters
    ----------
    weight_oi, bias_o
        Frozen weights, float32.
    sample_xi : (x, i) tensor
        Inputs to calibrate on.
    headroom
        Later inputs beyond so many times the range of the sample are clipped.
    dtype
        Of the output.
    """

    def __init__(
        self,
        weight_oi: torch.Tensor,
        bias_o: torch.Tensor,
        sample_xi: torch.Tensor,
        *,
        headroom: float = HEADROOM,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        low_i, high_i = sample_xi.aminmax(dim=0)
        middle_i, half_i = (high_i + low_i) / 2, ((high_i - low_i) / 2).clamp_min(_TINY)
        of_weight_i = weight_oi.abs().amax(0).clamp_min(_TINY)
        smooth_i = half_i**SMOOTHING / of_weight_i ** (1 - SMOOTHING)
        scale = float((half_i / smooth_i).max()) * headroom / 127
        self.factor_i = 1 / (smooth_i * scale)
        self.shift_i = 128 - middle_i * self.factor_i
        self.product = _Rounded(
            weight_oi * smooth_i,
            bias_o + weight_oi @ middle_i,
            ((sample_xi - middle_i) / smooth_i).mean(0),
            scale,
            128,
        )
        self.dtype = dtype

    def rounded(self, x_xi: torch.Tensor) -> torch.Tensor:
        """Round inputs to uint8."""
        q_xi = torch.addcmul(self.shift_i, x_xi, self.factor_i)
        return q_xi.round_().clamp_(0, 255).to(torch.uint8)

    def __call__(self, x_xi: torch.Tensor) -> torch.Tensor:
        """Multiply (x, i) inputs to (x, o) outputs."""
        return self.product(self.rounded(x_xi), self.dtype)


class Int8FeedForward:
    """``GELU(x U^T + c) D^T + d``; between the products values stay in eight bits.

    Parameters
    ----------
    up_hi, up_h, down_ih, down_i
        Frozen weights and biases, float32.
    sample_xi, sample_xh
        Inputs, and hidden values after GELU, to calibrate on.
    """

    def __init__(
        self,
        up_hi: torch.Tensor,
        up_h: torch.Tensor,
        down_ih: torch.Tensor,
        down_i: torch.Tensor,
        sample_xi: torch.Tensor,
        sample_xh: torch.Tensor,
    ) -> None:
        high_h = sample_xh.amax(0)
        n_out = min(OUTLIERS, len(high_h) - 1)
        top = high_h.topk(n_out + 1)
        apart = top.indices[:n_out]
        self.scale = (float(top.values[-1]) * HEADROOM + GELU_LOW) / 255
        self.zero = round(GELU_LOW / self.scale)
        inside_h = torch.ones_like(up_h).index_fill_(0, apart, 0)
        self.up = Int8Linear(up_hi * inside_h[:, None], up_h * inside_h, sample_xi)
        self.down = _Rounded(down_ih * inside_h, down_i, sample_xh.mean(0), self.scale, self.zero)
        self.apart_up = up_hi[apart].contiguous(), up_h[apart].contiguous()
        self.apart_down = down_ih[:, apart].contiguous()

    def __call__(self, x_xi: torch.Tensor) -> torch.Tensor:
        """Map (x, i) inputs to (x, i) outputs in float32."""
        q_xi = self.up.rounded(x_xi)
        q_xh = self.up.product(q_xi, torch.uint8, "gelu", self.scale, self.zero)
        apart = F.linear(F.gelu(F.linear(x_xi, *self.apart_up)), self.apart_down)
        return self.down(q_xh, torch.float32).add_(apart)
