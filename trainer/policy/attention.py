"""Attention over tokens as they lie in a batch: what a block asks for in learning; in sampling it asks the cache.

Keys and values may have fewer heads than queries: groups of queries share one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainer.policy.layout import TokenLayout

# Queries, keys and values of one layer (..., all heads, head size), the queries' heads first, and how many those are ->
# what is attended (..., heads * head size).
Attend = Callable[[Tensor, int], Tensor]
SHORT = 512  # tokens


def attention_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What attention over keys and values of a number format is summed in, in sampling and in learning.

    Summed in fp32, one attended value in ten thousand rounds to another 16-bit value when the batch or the order of
    summing is another, and thirty layers make 0.05 nats a token of that. In fp64 none does: on a CPU a sampler equals
    the policy to the bit. Other devices have kernels of their own for 16 bits.
    """
    return torch.float64 if device.type == "cpu" and dtype != torch.float32 else dtype


def parts(qkv: Tensor, heads: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of all heads, which lie along a dimension."""
    shared = (qkv.shape[dim] - heads) // 2
    query, key, value = qkv.split([heads, shared, shared], dim)
    return query, key, value


def of_layout(layout: TokenLayout) -> Attend:
    """Attention among a batch's distinct tokens (N, all heads, head size), differentiable."""
    mask = layout.attention_mask(torch.float32)

    def attend(qkv: Tensor, heads: int) -> Tensor:
        grid = layout.padded(qkv).transpose(1, 2)  # (B, all heads, T, head size)
        attended = attention(*parts(grid, heads, 1), mask)
        return layout.unpadded(attended.transpose(1, 2).flatten(2))

    return attend


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention (B, heads, T, head size), with a mask (B, 1, T, T) that is added; differentiable."""
    if query.device.type == "cpu" and query.shape[2] <= SHORT:
        return ShortAttention.apply(query, key, value, mask)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))


class ShortAttention(torch.autograd.Function):
    """Attention of short sequences on a CPU. Of 16-bit operands it is summed in fp64: rounded to 16 bits it is then the
    same to the bit in whatever order and batch it was summed, and so the same as in decoding
    (:meth:`trainer.policy.cache.Cache.step`), which sums by the same function.

    The backward pass, in fp32, forms the weights of attention again: nothing of their size is kept. It is several times
    faster than that of the fused kernel, which is slow in bf16.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        attended = summed(query, key, value, mask)
        ctx.save_for_backward(query, key, value, mask, attended.float())
        return attended.view(query.shape).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, attended = ctx.saved_tensors
        keys, values = key.float(), value.float()
        weights = _weights(query.float(), keys, mask)
        grad = grads[0].float().reshape(attended.shape)
        along = (grad * attended).sum(-1, keepdim=True)
        inner = (grad @ values.transpose(-1, -2)).sub_(along).mul_(weights)
        scale = query.shape[-1] ** -0.5
        grad_query = (inner @ keys).mul_(scale).view(query.shape)
        grad_key = inner.transpose(-1, -2) @ (query.float().reshape(attended.shape) * scale)
        grad_value = weights.transpose(-1, -2) @ grad
        return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype), None


def summed(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention of T queries to S keys on a CPU, not yet rounded.

    Args:
        query: (B, heads, T, head size). key, value: (B, key heads, S, head size). mask: (B, 1, T, S), added.

    Returns:
        (B, key heads, queries of a key head * T, head size).
    """
    wide = attention_dtype(query.device, query.dtype)
    return _weights(query.to(wide), key.to(wide), mask) @ value.to(wide)


def _weights(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """(B, heads, T, head size) and (B, key heads, S, head size) -> (B, key heads, queries of a key head * T, S)."""
    rows, heads, length, size = query.shape
    shared = query.reshape(rows, key.shape[1], -1, size)  # the queries of a key head below each other
    scores = (shared * size**-0.5) @ key.transpose(-1, -2)
    scores.view(rows, heads, length, -1).add_(mask)
    return torch.softmax(scores, -1)
