"""What stands between the matrix products of a block: plain where nothing is learned, else with gradients that take few
passes over memory.

Angles are frozen, and so are the gains of norms except where all weights are learned.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normal, factor = torch.ops.aten._fused_rms_norm(x, [x.shape[-1]], weight, eps)
        ctx.save_for_backward(x, factor, weight)
        return normal

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, weight = ctx.saved_tensors
        grad = (grads[0] * weight).float()
        normal = x * factor  # fp32, as the factor is
        along = torch.linalg.vecdot(grad, normal)[..., None] / x.shape[-1]
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grads[0] * normal).flatten(0, -2).sum(0).to(weight.dtype)
        return torch.addcmul(grad, normal, along, value=-1).mul_(factor).to(x.dtype), grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square normalisation (Zhang and Sennrich 2019), (..., size) -> (..., size); arithmetic in fp32."""
    if x.requires_grad or weight.requires_grad:
        return _RmsNorm.apply(x, weight, eps)
    return functional.rms_norm(x, (x.shape[-1],), weight, eps)


class _GatedSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor) -> Tensor:
        ctx.save_for_backward(joined)
        return _gated(joined)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (joined,) = ctx.saved_tensors
        gate, up = joined.chunk(2, -1)
        (grad,) = grads
        size = gate.shape[-1]
        grad_joined = torch.empty_like(joined)
        torch.mul(grad, functional.silu(gate), out=grad_joined[..., size:])
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_joined[..., :size])
        return (grad_joined,)


def gated_silu(joined: Tensor) -> Tensor:
    """`silu(gate) * up` of two halves (..., 2 * size) -> (..., size); keeps only its input for the backward pass."""
    return _GatedSilu.apply(joined) if joined.requires_grad else _gated(joined)


def _gated(joined: Tensor) -> Tensor:
    gate, up = joined.chunk(2, -1)
    return functional.silu(gate).mul_(up)


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.heads = heads
        return _turn(x.clone(), cos, sin, heads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0].clone(), cos, -sin, ctx.heads), None, None, None


def rotated(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Rotary positions (Su et al. 2021) for the first `heads` heads; the others stay. Without gradients, in place.

    Turned in fp32 and rounded once.

    Args:
        x: (..., all heads, head size), whose halves a rotation mixes. cos, sin: (..., 1, head size), from
            :class:`Rotations`.
    """
    return _Rotated.apply(x, cos, sin, heads) if x.requires_grad else _turn(x, cos, sin, heads)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    turning = x[..., :heads, :]
    wide = turning.float()
    turning.copy_((wide * cos).add_(wide.roll(wide.shape[-1] // 2, -1).mul_(sin)))
    return x


def frequencies(config: Any) -> Tensor:
    """Radians a position by which each pair of a head's numbers turns, (head size / 2,) fp32.

    Plain (Su et al. 2021), `linear` (all slower by a factor), or `llama3` (slow ones slower by it, in between by a
    share of it), in the order in which transformers computes them: the same to the bit.
    """
    rope = config.rope_parameters
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turns = 1.0 / (rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float) / size))
    if rope["rope_type"] == "linear":
        return turns / rope["factor"]
    if rope["rope_type"] != "llama3":
        return turns
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    length = 2 * math.pi / turns
    slower = torch.where(length > context / low, turns / factor, turns)
    share = (context / length - low) / (high - low)
    between = (1 - share) * slower / factor + share * slower
    return torch.where(~(length < context / high) * ~(length > context / low), between, slower)


class Rotations:
    """Cosines and sines by position, with the scaling that a model's configuration asks for."""

    def __init__(self, config: Any, device: torch.device) -> None:
        positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
        angles = torch.outer(positions, frequencies(config))
        self.cos, self.sin = torch.stack([angles.cos(), angles.sin()]).to(device)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(...) positions -> what :func:`rotated` takes, (..., 1, head size) each."""
        cos, sin = self.cos[positions], self.sin[positions]
        return torch.cat([cos, cos], -1)[..., None, :], torch.cat([-sin, sin], -1)[..., None, :]
