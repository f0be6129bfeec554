"""Trainable low-rank adapters (LoRA, Hu et al. 2021) and the arithmetic that runs them on frozen weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from storage.errors import UsageError
from trainer.policy.adapters import HEAD, Adapter

if TYPE_CHECKING:
    from trainer.policy.full import Snapshot


class LoraAdapter(nn.Module):
    """Low-rank updates `alpha / rank * B @ A`, by the name of the weight that each changes.

    `A` (rank, in) starts uniform, `B` (out, rank) at zero, so that a fresh adapter changes nothing.

    Args:
        shapes: weight name -> (out, in).
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, int]], rank: int, alpha: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.rank = rank
        self.alpha = alpha
        self.names = {name: name.replace(".", "|") for name in shapes}  # a parameter's name may hold no dot
        self.down = nn.ParameterDict()
        self.up = nn.ParameterDict()
        for name, (out, into) in shapes.items():
            bound = 1 / math.sqrt(into)
            start = torch.empty(rank, into).uniform_(-bound, bound, generator=generator)
            self.down[self.names[name]] = nn.Parameter(start)
            self.up[self.names[name]] = nn.Parameter(torch.zeros(out, rank))

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def pair(self, name: str) -> tuple[Tensor, Tensor] | None:
        """(A, B) of a weight, or None when it is not adapted."""
        key = self.names.get(name)
        return None if key is None else (self.down[key], self.up[key])

    def snapshot(self) -> Adapter:
        """A copy of the current values, to merge for sampling or to write to a file."""
        pairs = {}
        for name, key in self.names.items():
            pairs[name] = (self.down[key].detach().cpu().clone(), self.up[key].detach().cpu().clone())
        return Adapter(pairs, self.scale)

    def load(self, adapter: Snapshot) -> None:
        """Take over the values of an adapter of the same weights (its scale is folded into B).

        Raises:
            UsageError: it has another rank, adapts other weights, or is no adapter but a full version.
        """
        if not isinstance(adapter, Adapter):
            raise UsageError(
                "the version to go on from is fully tuned, which no adapter can hold",
                "use --tuning full, or publish v0 first to start from the base model",
            )
        if HEAD in adapter.pairs:
            raise UsageError(
                "the version to go on from was learned with ILQL: its Q-function is part of its output head, and no "
                "other run can go on from that",
                "publish its parent first (`workbench publish`), or v0 to start from the base model",
            )
        ranks = {down.shape[0] for down, _ in adapter.pairs.values()}
        if set(adapter.pairs) != set(self.names) or ranks != {self.rank}:
            raise UsageError(
                f"the adapter to go on from has rank {min(ranks)} on {len(adapter.pairs)} weights; "
                f"this run asks for rank {self.rank} on {len(self.names)}",
                f"use --rank {min(ranks)}, or publish v0 first to start from the base model",
            )
        with torch.no_grad():
            for name, (down, up) in adapter.pairs.items():
                key = self.names[name]
                self.down[key].copy_(down)
                self.up[key].copy_(up * (adapter.scale / self.scale))

    def joined(self, names: Sequence[str], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """The updates of weights that are multiplied as one: A stacked (sum of ranks, in), B block-diagonal, scaled.

        None when none of them is adapted.
        """
        pairs = [self.pair(name) for name in names]
        if any(pair is None for pair in pairs):
            return None
        down = torch.cat([pair[0] for pair in pairs if pair])
        ups = [pair[1] for pair in pairs if pair]
        up = ups[0] if len(ups) == 1 else torch.block_diag(*ups)
        return down.to(dtype), (up * self.scale).to(dtype)


class _LowRankLinear(torch.autograd.Function):
    """`x @ W.T + (x @ A.T) @ B.T` with W frozen: no gradient for W is ever formed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        inner = x @ down.T
        ctx.save_for_backward(x, inner, weight, down, up)
        return functional.linear(x, weight, bias).addmm_(inner, up.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, inner, weight, down, up = ctx.saved_tensors
        grad_inner = grad @ up
        grad_x = (grad @ weight).addmm_(grad_inner, down) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_inner.T @ x, grad.T @ inner


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, update: tuple[Tensor, Tensor] | None) -> Tensor:
    """(N, in) -> (N, out) by a frozen weight and, when given, its low-rank update (A, scaled B)."""
    if update is None:
        return functional.linear(x, weight, bias)
    return _LowRankLinear.apply(x, weight, bias, *update)


class _RmsNorm(torch.autograd.Function):
    """Root mean square normalisation; the arithmetic is fp32 whatever the input is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        factor = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        normal = (wide * factor).to(x.dtype)
        ctx.save_for_backward(normal, factor, weight)
        return normal * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        normal, factor, weight = ctx.saved_tensors
        grad = (grads[0] * weight).float()
        wide = normal.float()
        grad_x = factor * (grad - wide * (grad * wide).mean(-1, keepdim=True))
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grads[0].float() * wide).flatten(0, -2).sum(0).to(weight.dtype)
        return grad_x.to(normal.dtype), grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(..., size) -> (..., size); the gain gets a gradient only where it is learned."""
    return _RmsNorm.apply(x, weight, eps)


class _GatedSilu(torch.autograd.Function):
    """`silu(gate) * up` of a joined (N, 2 * size) input; keeps only that input for the backward pass."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor) -> Tensor:
        ctx.save_for_backward(joined)
        gate, up = joined.chunk(2, -1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (joined,) = ctx.saved_tensors
        gate, up = joined.chunk(2, -1)
        (grad,) = grads
        grad_joined = torch.empty_like(joined)
        size = gate.shape[-1]
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        torch.mul(grad, silu, out=grad_joined[:, size:])
        slope = torch.addcmul(sigmoid, silu, 1 - sigmoid)
        torch.mul(slope.mul_(up), grad, out=grad_joined[:, :size])
        return (grad_joined,)


def gated_silu(joined: Tensor) -> Tensor:
    """(N, 2 * size) -> (N, size)."""
    return _GatedSilu.apply(joined)
