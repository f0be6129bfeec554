"""The linear layers of a block: their shapes, and how they are fused for sampling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainer.policy.linear import Linear


def linear_shapes(heads: int, key_heads: int, head_size: int, hidden: int, inner: int) -> dict[str, tuple[int, int]]:
    """(out, in) of the linear layers of a block, by their names within it."""
    query, key = heads * head_size, key_heads * head_size
    return {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key, hidden),
        "self_attn.v_proj": (key, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


@dataclass(frozen=True)
class Layer:
    """The weights of one block, fused."""

    attention_norm: Tensor
    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
