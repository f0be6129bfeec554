"""Matrix products with frozen weights, as fast as the device allows.

On a CPU, oneDNN multiplies faster by a weight laid out for it beforehand than by a plain one (about 1.7 times for a
few rows), and adds the residual in the same pass. Elsewhere these are plain matrix products.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

# The layout is chosen for this many rows; it serves every other number as well.
_ROWS_HINT = 16
# Up to this many rows, 4-bit products are faster than 16-bit ones.
FEW_ROWS = 8
GROUP = 32  # neighbouring weights of a row that share a step and a zero
# The largest relative error of weights taken as 4-bit ones: that of rounding to bf16 is 0.002. Weights that do not lie
# on a grid come to 0.08.
GRID_TOLERANCE = 0.006


class Linear(Protocol):
    """A linear layer with weights that do not change."""

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        ...

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual + self(x)`."""
        ...


class FrozenLinear:
    """`x @ weight.T + bias` for weights that never change. Weight: (out, in)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.bias = bias
        self.packed = can_pack(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT) if self.packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return functional.linear(x, self.weight, self.bias)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual + self(x)`."""
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self.weight, self.bias, "add")
        return residual + functional.linear(x, self.weight, self.bias)


class GridLinear:
    """As :class:`FrozenLinear`, for weights on a grid of 16 values: a few rows are multiplied by 4-bit weights.

    Reading the weights is what one row costs, and these are a quarter of the size. Weights that were unpacked from a
    4-bit file lie on such a grid: what is lost is rounding (`GRID_TOLERANCE`), not quality. More than a few rows take
    the 16-bit weights, whose products are faster then.
    """

    def __init__(self, plain: FrozenLinear, codes: Tensor, grid: Tensor) -> None:
        self.plain = plain
        self.codes = codes
        self.grid = grid

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if x.numel() > FEW_ROWS * x.shape[-1]:
            return self.plain(x)
        rows = x.reshape(-1, x.shape[-1])
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.codes, GROUP, self.grid)
        if self.plain.bias is not None:
            product += self.plain.bias
        return product.view(*x.shape[:-1], -1)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual + self(x)`."""
        if x.numel() > FEW_ROWS * x.shape[-1]:
            return self.plain.add_to(residual, x)
        return residual + self(x)


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


class OutputLinear(FrozenLinear):
    """The output head: logits in fp32, as :func:`exact_product`."""

    def __call__(self, x: Tensor) -> Tensor:
        """(n, in) -> (n, out), fp32."""
        if x.dtype == torch.float32:
            return super().__call__(x)
        if not self.packed:
            return exact_product(x, self.weight, self.bias)
        rounded = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        rest = torch.ops.mkldnn._linear_pointwise.binary(x, -rounded, self.weight, None, "add")
        exact = rounded.float().add_(rest)
        return exact if self.bias is None else exact.add_(self.bias)


class AdaptedOutput:
    """An output head with a low-rank update beside it: logits in fp32.

    Args:
        down: (rank, in), fp32. up: (out, rank), fp32, scaled.
    """

    def __init__(self, base: OutputLinear | AdaptedOutput, down: Tensor, up: Tensor) -> None:
        self.base = base
        self.down = down
        self.up = up

    def __call__(self, x: Tensor) -> Tensor:
        """(n, in) -> (n, out), fp32."""
        return self.base(x).addmm_(x.float() @ self.down.T, self.up.T)


class AdaptedLinear:
    """A linear layer with a low-rank update beside it, not merged: versions then share all weights of the base, and
    none of an update is lost. (Added to 16-bit weights, an update smaller than half of their step gives them back.)

    Args:
        down: (rank, in), fp32. up: (out, rank), fp32, scaled.
        dtype: what the base computes in.
        alone: one row, as in a conversation, takes a faster way on a CPU that rounds otherwise: not for rollouts, whose
            last row must be sampled as it is learned from.
    """

    def __init__(self, base: Linear, down: Tensor, up: Tensor, dtype: torch.dtype, *, alone: bool = False) -> None:
        self.base = base
        self.down = FrozenLinear(down.to(dtype))
        self.up = FrozenLinear(up.to(dtype))
        # On a CPU, 16-bit products begin slowly: for one row, plain fp32 ones of this size take a quarter of the time.
        fast = alone and down.device.type == "cpu"
        self.single = (down.T.contiguous(), up.T.contiguous()) if fast else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self._updated(self.base(x), x)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual + self(x)`."""
        return self._updated(self.base.add_to(residual, x), x)

    def _updated(self, y: Tensor, x: Tensor) -> Tensor:
        if self.single is None or x.numel() > x.shape[-1]:
            return self.up.add_to(y, self.down(x))
        down, up = self.single
        row = torch.addmm(y.view(1, -1).float(), x.view(1, -1).float() @ down, up)
        return row.to(y.dtype).view(y.shape)


def few_rows_linear(weight: Tensor, bias: Tensor | None = None) -> FrozenLinear | GridLinear:
    """The layer that serves few rows fastest: in 4 bits where the weight (out, in) lies on a 4-bit grid."""
    plain = FrozenLinear(weight, bias)
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
