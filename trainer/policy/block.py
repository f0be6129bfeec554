"""The one decoder block of the llama family, which sampling and learning both run.

    x + output(attend(rotated(qkv(norm(x)))))          then          x + down(silu(gate) * up),  gate_up(norm(x))

What differs is handed in: the linear layers (:mod:`trainer.policy.linear` in many or few bits, each with an adapter
beside it or not: :mod:`trainer.policy.lora`), an adapter that is learned, and whom a token attends to: the tokens of a
batch that is learned from (:mod:`trainer.policy.attention`), or those before it in a cache
(:mod:`trainer.policy.cache`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.policy.attention import Attend, parts
from trainer.policy.elementwise import gated_silu, rms_norm, rotated
from trainer.policy.linear import Linear

if TYPE_CHECKING:
    from trainer.policy.lora import LoraAdapter

Get = Callable[[str], Tensor | None]
MakeLinear = Callable[[Tensor, Tensor | None, list[str]], Linear]
# A block's linear layers, and the weights of a model's files that stand below each other in each.
LINEAR = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model's blocks."""

    heads: int
    key_heads: int
    head_size: int
    hidden: int
    inner: int
    eps: float

    @classmethod
    def of(cls, config: Any) -> Sizes:
        """From a configuration, of ours or transformers'."""
        heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        key_heads = config.num_key_value_heads
        return cls(heads, key_heads, head_size, config.hidden_size, config.intermediate_size, config.rms_norm_eps)

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of the linear weights of a block, by their names within it."""
        query, key = self.heads * self.head_size, self.key_heads * self.head_size
        return {
            "self_attn.q_proj": (query, self.hidden),
            "self_attn.k_proj": (key, self.hidden),
            "self_attn.v_proj": (key, self.hidden),
            "self_attn.o_proj": (self.hidden, query),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }


@dataclass(frozen=True)
class Norms:
    """The gains of a block's norms; of queries and keys only where a model has them."""

    attention: Tensor
    mlp: Tensor
    query: Tensor | None
    key: Tensor | None


class Block(nn.Module):
    """Hidden states (..., hidden) in fp32 through one layer.

    Args:
        prefix: of the names of its weights in the model's files, `model.layers.N.`.
        layers: the linear ones, by the names of `LINEAR`.
    """

    def __init__(self, prefix: str, sizes: Sizes, dtype: torch.dtype, norms: Norms, layers: dict[str, Linear]) -> None:
        super().__init__()
        self.prefix, self.sizes, self.dtype, self.norms = prefix, sizes, dtype, norms
        self.qkv, self.output = layers["qkv"], layers["output"]
        self.gate_up, self.down = layers["gate_up"], layers["down"]

    @classmethod
    def of(cls, prefix: str, sizes: Sizes, dtype: torch.dtype, get: Get, linear: MakeLinear) -> Block:
        """A block of the weights that `get` gives by their names (None for one that the model lacks).

        Args:
            linear: makes a layer of a weight, a bias, and the names of the weights that stand in it.

        Raises:
            KeyError: a weight is missing that every model has.
        """

        def need(name: str) -> Tensor:
            found = get(prefix + name)
            if found is None:
                raise KeyError(prefix + name)
            return found

        def joined(names: tuple[str, ...]) -> Linear:
            biases = [get(f"{prefix}{name}.bias") for name in names]
            bias = torch.cat([one for one in biases if one is not None]) if biases[0] is not None else None
            weights = [f"{name}.weight" for name in names]
            return linear(torch.cat([need(name) for name in weights]), bias, [prefix + name for name in weights])

        norms = Norms(
            need("input_layernorm.weight").float(),
            need("post_attention_layernorm.weight").float(),
            get(f"{prefix}self_attn.q_norm.weight"),
            get(f"{prefix}self_attn.k_norm.weight"),
        )
        return cls(prefix, sizes, dtype, norms, {layer: joined(names) for layer, names in LINEAR.items()})

    def names(self, layer: str) -> list[str]:
        """The weights of a linear layer, as the model's files call them."""
        return [f"{self.prefix}{name}.weight" for name in LINEAR[layer]]

    def handed(self, change: Callable[[Linear, list[str]], Linear]) -> Block:
        """This block with other linear layers: what `change` makes of each, given the names of its weights."""
        layers = {layer: change(getattr(self, layer), self.names(layer)) for layer in LINEAR}
        return Block(self.prefix, self.sizes, self.dtype, self.norms, layers)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend, adapter: LoraAdapter | None = None
    ) -> Tensor:
        """Args: cos, sin: of the tokens' positions, as :func:`trainer.policy.elementwise.rotated` takes them. adapter:
        what is learned beside the weights."""
        sizes, norms = self.sizes, self.norms

        def product(layer: str, x: Tensor) -> Tensor:
            base: Linear = getattr(self, layer)
            return adapter.product(self.names(layer), base, x) if adapter else base(x)

        qkv = product("qkv", self._normal(x, norms.attention)).unflatten(-1, (-1, sizes.head_size))
        if norms.query is not None and norms.key is not None:
            query, key, value = parts(qkv, sizes.heads, -2)
            query, key = rms_norm(query, norms.query, sizes.eps), rms_norm(key, norms.key, sizes.eps)
            qkv = torch.cat([query, key, value], -2)
        qkv = rotated(qkv, cos, sin, sizes.heads + sizes.key_heads)
        x = x + product("output", attend(qkv, sizes.heads))
        return x + product("down", gated_silu(product("gate_up", self._normal(x, norms.mlp))))

    def _normal(self, x: Tensor, gain: Tensor) -> Tensor:
        """The residual stream, normalised and rounded to what products take."""
        return rms_norm(x, gain, self.sizes.eps).to(self.dtype)
