"""The linear layers that are handed to a block: matrix products as fast as the device allows.

On a CPU, oneDNN multiplies faster by a weight laid out for it beforehand than by a plain one (about 1.7 times for a
few rows); which layout serves how many rows fastest is measured (:mod:`trainer.policy.kernels`). Elsewhere these are
plain matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.policy.models.quantised import GROUP, Grid

# The layout is chosen for this many rows; it serves every other number as well.
_ROWS_HINT = 16
# The largest relative error of weights taken as 4-bit ones: that of rounding to bf16 is 0.002. Weights that do not lie
# on a grid come to 0.08.
GRID_TOLERANCE = 0.006
_ROWS_AT_ONCE = 512  # of a weight that is looked through: what a cache near a core holds
HALF_TOLERANCE = 1e-6  # the same of weights taken as 16-bit floats


class Linear(nn.Module):
    """`x @ weight.T + bias` as torch multiplies; the weight may be one that is learned. Weight: (out, in)."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return functional.linear(x, self.weight, self.bias)

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
        """`y + self(x)`, rounded once; without a gradient."""
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


class HalfLinear(Linear):
    """As :class:`Linear` of fp32 activations, with the weight kept in 16-bit floats by fbgemm and sums in fp32."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        wide = None if bias is None else bias.float()
        super().__init__(torch.ops.quantized.linear_prepack_fp16(weight.float(), wide), bias)
        self._plain: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            return _FrozenProduct.apply(x, self)
        return torch.ops.quantized.linear_dynamic_fp16(x, self.weight)

    def dense(self) -> Tensor:
        if self._plain is None:  # unpacking is as slow as a product: one that is learned with is kept
            weight, _ = torch.ops.quantized.linear_unpack_fp16(self.weight)
            self._plain = weight.half()
        return self._plain.float()


class GridLinear(Linear):
    """As :class:`Linear` of bf16 activations, for weights on a grid of 16 values, which are multiplied as 4-bit ones.

    Reading the weights is what one row costs, and these are a quarter of the size. Weights that were unpacked from a
    4-bit file lie on such a grid: what is lost is rounding (`GRID_TOLERANCE`), not quality.

    Args:
        codes: as torch packs them. grid: (groups, out, 2) step and zero of each group.
    """

    def __init__(self, codes: Tensor, grid: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(codes, bias)
        self.grid = grid

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None, grid: Grid | None = None) -> GridLinear | None:
        """None where the weight (out, in) does not lie on a grid, or the kernel does not take it.

        Args:
            grid: the weight's own codes, where its file has them; they are found in the weight itself otherwise.
        """
        if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
            return None
        if weight.shape[1] % GROUP or weight.shape[0] % 32:
            return None
        if grid is None:
            return cls._found(weight, bias)
        step = grid.step.bfloat16().float()
        # The product takes codes from -8 to 7. What a rounded step adds to one end of them it takes from the other.
        return cls._packed(grid.codes, step, grid.low + 7.5 * grid.step + 0.5 * step, bias)

    @classmethod
    def _found(cls, weight: Tensor, bias: Tensor | None) -> GridLinear | None:
        groups = weight.float().unflatten(1, (-1, GROUP))
        low, high = groups.aminmax(dim=-1, keepdim=True)
        step = ((high - low) / 15).bfloat16().float().clamp_min(1e-12)
        codes = ((groups - low) / step).round_().clamp_(0, 15)
        zero = (low + 8 * step).bfloat16().float()
        error = ((codes - 8) * step + zero - groups).norm() / groups.norm().clamp_min(1e-12)
        if error > GRID_TOLERANCE:
            return None
        return cls._packed(codes.flatten(1), step[..., 0], zero[..., 0], bias)

    @classmethod
    def _packed(cls, codes: Tensor, step: Tensor, zero: Tensor, bias: Tensor | None) -> GridLinear:
        """Args: codes: (out, in) from 0 to 15. step, zero: (out, groups)."""
        grid = torch.stack([step, zero], -1).transpose(0, 1).bfloat16().contiguous()
        return cls(torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 1), grid, bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight, GROUP, self.grid)
        if self.bias is not None:
            product += self.bias
        return product.view(*x.shape[:-1], -1)


class ByRows(Linear):
    """Two layouts of one weight: up to `most` rows are multiplied by the first, more by the second."""

    def __init__(self, few: Linear, most: int, many: Linear) -> None:
        nn.Module.__init__(self)
        self.few, self.most, self.many = few, most, many

    def forward(self, x: Tensor) -> Tensor:
        few = x.numel() <= self.most * x.shape[-1] and not x.requires_grad
        return self.few(x) if few else self.many(x)

    def dense(self) -> Tensor:
        return self.many.dense()


def fits_half(weight: Tensor) -> bool:
    """Whether the weight, on a CPU with fbgemm, loses nothing to speak of in 16-bit floats."""
    if weight.device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    lost = whole = 0.0
    for part in weight.split(_ROWS_AT_ONCE):
        wide = part.float()
        lost += float((wide.half().float() - wide).square().sum())
        whole += float(wide.square().sum())
    return lost <= HALF_TOLERANCE**2 * whole


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
    """The output head: logits in fp32. Weights that fit are kept in 16-bit floats, and one product of them is exact;
    others are multiplied as :func:`exact_product` does."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self.single = HalfLinear(weight, bias) if fits_half(weight) else None
        self.packed = PackedLinear(weight) if self.single is None and can_pack(weight) else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, in) -> (n, out), fp32."""
        if self.single is not None:
            return self.single(x.float())
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


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN can lay this weight out: on a CPU, fp32 or (where it is native) bf16."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32
