"""The linear layers that are handed to a block: matrix products as fast as the device allows.

On a CPU, oneDNN multiplies faster by a weight laid out for it beforehand than by a plain one (about 1.7 times for a
few rows), and adds the residual in the same pass. Elsewhere these are plain matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# The layout is chosen for this many rows; it serves every other number as well.
_ROWS_HINT = 16
# Up to this many rows, 4-bit products are faster than 16-bit ones.
FEW_ROWS = 8
GROUP = 32  # neighbouring weights of a row that share a step and a zero
# The largest relative error of weights taken as 4-bit ones: that of rounding to bf16 is 0.002. Weights that do not lie
# on a grid come to 0.08.
GRID_TOLERANCE = 0.006


class Linear(nn.Module):
    """`x @ weight.T + bias` as torch multiplies; the weight may be one that is learned. Weight: (out, in)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return functional.linear(x, self.weight, self.bias)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """`y + self(x)` without a gradient; y may be overwritten."""
        return y + self(x)

    def dense(self) -> Tensor:
        """The weight as it is, (out, in)."""
        return self.weight


class PackedLinear(Linear):
    """As :class:`Linear`, of a frozen weight that oneDNN has laid out."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT), bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            return _FrozenProduct.apply(x, self)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(x, y, self.weight, self.bias, "add")

    def dense(self) -> Tensor:
        return self.weight.to_dense()


class _FrozenProduct(torch.autograd.Function):
    """A product whose weight autograd cannot see into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Linear) -> Tensor:
        ctx.layer = layer
        return layer(x.detach())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ ctx.layer.dense(), None


def frozen_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The layer that serves a weight that never changes fastest, however many rows."""
    return PackedLinear(weight, bias) if can_pack(weight) else Linear(weight, bias)


class GridLinear(Linear):
    """As :class:`Linear`, for weights on a grid of 16 values: a few rows are multiplied by 4-bit weights.

    Reading the weights is what one row costs, and these are a quarter of the size. Weights that were unpacked from a
    4-bit file lie on such a grid: what is lost is rounding (`GRID_TOLERANCE`), not quality. More than a few rows take
    the 16-bit weights, whose products are faster then.
    """

    def __init__(self, plain: Linear, codes: Tensor, grid: Tensor) -> None:
        super().__init__(codes, plain.bias)
        self.plain, self.grid = plain, grid

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > FEW_ROWS * x.shape[-1] or x.requires_grad:
            return self.plain(x)
        rows = x.reshape(-1, x.shape[-1])
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight, GROUP, self.grid)
        if self.bias is not None:
            product += self.bias
        return product.view(*x.shape[:-1], -1)

    def dense(self) -> Tensor:
        return self.plain.dense()


def exact_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` in fp32, of operands of any number format; (n, in) and (out, in) -> (n, out).

    Products of 16-bit operands are summed in fp32 and then rounded to 16 bits: a logit of 24 is off by up to 0.06. The
    second product adds the negated first one before it is rounded, so that it is what rounding had taken off.
    """
    if x.dtype == torch.float32:
        return functional.linear(x, weight, bias)
    rounded = functional.linear(x, weight)
    exact = rounded.float().add_(torch.addmm(-rounded, x, weight.T))
    return exact if bias is None else exact.add_(bias)


class OutputLinear(nn.Module):
    """The output head: logits in fp32, as :func:`exact_product`."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.packed = PackedLinear(weight) if can_pack(weight) else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, in) -> (n, out), fp32."""
        if self.packed is None:
            return exact_product(x, self.weight, self.bias)
        product = self.packed(x)
        if x.dtype != torch.float32:
            product = product.float().add_(self.packed.add_to(-product, x))
        return product if self.bias is None else product.add_(self.bias)


class AdaptedOutput(nn.Module):
    """An output head with a low-rank update beside it: logits in fp32.

    Args:
        down: (rank, in), fp32. up: (out, rank), fp32, scaled.
    """

    def __init__(self, base: nn.Module, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.base, self.down, self.up = base, down, up

    def forward(self, x: Tensor) -> Tensor:
        """(n, in) -> (n, out), fp32."""
        return self.base(x).addmm_(x.float() @ self.down.T, self.up.T)


def few_rows_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The layer that serves few rows fastest: in 4 bits where the weight (out, in) lies on a 4-bit grid."""
    plain = frozen_linear(weight, bias)
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or weight.shape[1] % GROUP or weight.shape[0] % 32:
        return plain
    groups = weight.float().unflatten(1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    step = ((high - low) / 15).bfloat16().float().clamp_min(1e-12)
    codes = ((groups - low) / step).round_().clamp_(0, 15)
    zero = (low + 8 * step).bfloat16().float()  # the product takes codes from -8 to 7
    error = ((codes - 8) * step + zero - groups).norm() / groups.norm().clamp_min(1e-12)
    if error > GRID_TOLERANCE:
        return plain
    grid = torch.cat([step, zero], -1).transpose(0, 1).bfloat16().contiguous()  # (groups, out, 2)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.flatten(1).int(), 1)
    return GridLinear(plain, packed, grid)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN can lay this weight out: on a CPU, fp32 or (where it is native) bf16."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32
