"""Low-rank adapters (LoRA, Hu et al. 2021): those that are learned, and the layers with one beside frozen weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from storage.errors import UsageError
from storage.wording import counted
from trainer.policy.adapters import HEAD, Adapter, LowRank
from trainer.policy.kernels import frozen_linear
from trainer.policy.linear import Linear, PackedLinear

if TYPE_CHECKING:
    from trainer.policy.full import Snapshot


class LoraAdapter(nn.Module):
    """Low-rank updates `alpha / rank * B @ A`, by the name of the weight that each changes.

    `A` (rank, in) starts uniform, `B` (out, rank) at zero, so that a fresh adapter changes nothing.

    Args:
        shapes: weight name -> (out, in).
        first_layer: below it nothing is changed.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        rank: int,
        alpha: float,
        generator: torch.Generator,
        first_layer: int = 0,
    ) -> None:
        super().__init__()
        self.first_layer = first_layer
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
        """A copy of the current values, to sample from or to write to a file."""
        pairs = {}
        for name, key in self.names.items():
            pairs[name] = (self.down[key].detach().cpu().clone(), self.up[key].detach().cpu().clone())
        return Adapter(pairs, self.scale)

    def load(self, adapter: Snapshot) -> None:
        """Take over the values of an adapter of these weights or some of them, of this rank or a lower one: what it
        lacks changes nothing yet. Its scale is folded into B.

        Raises:
            UsageError: it has a higher rank, adapts other weights, or is no adapter but a full version.
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
        others = adapter.names - self.names.keys()
        rank = max(down.shape[0] for down, _ in adapter.pairs.values())
        if others or rank > self.rank:
            has = (
                f"weights that this run does not learn, such as {min(others)}" if others else f"updates of rank {rank}"
            )
            raise UsageError(
                f"the adapter to go on from has {has}; this run learns rank {self.rank} on "
                f"{counted(len(self.names), 'weight')}",
                "publish v0 first to start from the base model" if others else f"use --rank {rank}",
            )
        with torch.no_grad():
            for name, key in self.names.items():
                self.up[key].zero_()
                if name in adapter.pairs:
                    down, up = adapter.pairs[name]
                    self.down[key][: len(down)].copy_(down)
                    self.up[key][:, : len(down)].copy_(up * (adapter.scale / self.scale))

    def joined(self, names: Sequence[str]) -> LowRank | None:
        """The updates of weights that are multiplied as one; None when none of them is adapted."""
        pairs = [self.pair(name) for name in names]
        if any(pair is None for pair in pairs):
            return None
        return LowRank([pair[0] for pair in pairs if pair], [pair[1] for pair in pairs if pair], self.scale)

    def matrices(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """A and scaled B of a weight, as a forward pass takes them, or None when it is not adapted."""
        found = self.joined([name])
        return found and found.matrices(dtype)

    def product(self, names: Sequence[str], base: Linear, x: Tensor) -> Tensor:
        """What a frozen layer of some weights makes of (n, in), with what is learned of them beside it: (n, out)."""
        update = self.joined(names)
        if update is None:
            return base(x)
        return _LowRankProduct.apply(x, base, update.scale, *update.downs, *update.ups)


class _LowRankProduct(torch.autograd.Function):
    """`x @ W.T + scale * (x @ A.T) @ B.T` with W frozen and A and B learned: no gradient for W is ever formed.

    The A of several weights are stacked and their B put on a block diagonal, so that two products serve all of them.
    What is rounded, and when, is as in :class:`AdaptedLinear`: the scaled B, the inner product, the product of the
    weight, and the sum.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Linear, scale: float, *parts: Tensor) -> Tensor:
        downs, ups = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        down, up = LowRank(list(downs), list(ups), scale).matrices(x.dtype)
        inner = x @ down.T
        ctx.save_for_backward(x, inner, down, up)
        ctx.base, ctx.scale = base, scale
        ctx.outs, ctx.ranks = [part.shape[0] for part in ups], [part.shape[0] for part in downs]
        return base(x.detach()).addmm_(inner, up.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, inner, down, up = ctx.saved_tensors
        grad_inner = grad @ up
        grad_x = (grad @ ctx.base.dense()).addmm_(grad_inner, down) if ctx.needs_input_grad[0] else None
        grad_down = (grad_inner.T @ x).float()
        grad_up = (grad.T @ inner).float().mul_(ctx.scale)
        columns = zip(grad_up.split(ctx.outs), ctx.ranks, itertools.accumulate(ctx.ranks), strict=True)
        grad_ups = [block[:, end - rank : end] for block, rank, end in columns]
        return grad_x, None, None, *grad_down.split(ctx.ranks), *grad_ups


class AdaptedLinear(Linear):
    """A linear layer with a low-rank update beside it that does not change any more, how every version is sampled from.

    It is never merged into the weights: one of 16 bits gives itself back when less than half of its step is added to
    it, and a young update is mostly that: after four updates a merged sampler had a third of the policy's shift. Beside
    the weights nothing is lost, all versions share them, and each product costs two small ones more.

    Args:
        dtype: what the base computes in.
        alone: one row, as in a conversation, takes a faster way on a CPU that rounds otherwise: not for rollouts, whose
            last row must be sampled as it is learned from.
    """

    def __init__(self, base: Linear, update: LowRank, dtype: torch.dtype, *, alone: bool = False) -> None:
        nn.Module.__init__(self)
        down, up = update.matrices(torch.float32)
        self.base = base
        self.down, self.up = (frozen_linear(part.to(dtype), few=False) for part in (down, up))
        # On a CPU, 16-bit products begin slowly: for one row, plain fp32 ones of this size take a quarter of the time.
        fast = alone and down.device.type == "cpu"
        self.single = (down.T.contiguous(), up.T.contiguous()) if fast else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y = self.base(x)
        if self.single is None or x.numel() > x.shape[-1]:
            return self._sum(y, self.down(x))
        down, up = self.single
        row = torch.addmm(y.view(1, -1).float(), x.view(1, -1).float() @ down, up)
        return row.to(y.dtype).view(y.shape)

    def _sum(self, y: Tensor, inner: Tensor) -> Tensor:
        if isinstance(self.up, PackedLinear):
            return self.up.add_to(y, inner)
        return torch.addmm(y.flatten(0, -2), inner.flatten(0, -2), self.up.weight.T).view(y.shape)
