"""Matrix products with frozen weights, as fast as the device allows.

On a CPU, oneDNN multiplies faster by a weight laid out for it beforehand than by a plain one (about 1.7 times for a
few rows), and adds the residual in the same pass. Elsewhere these are plain matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# The layout is chosen for this many rows; it serves every other number as well.
_ROWS_HINT = 16


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


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN can lay this weight out: on a CPU, fp32 or (where it is native) bf16."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32
