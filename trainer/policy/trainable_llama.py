"""The differentiable forward pass for the llama family: frozen fused weights, trainable adapters, no padding.

The layers can be run in two parts. The lower part with adapters off is the same for the reference policy, the value
and the reward model, so it is computed once and handed to each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.policy.adapters import HEAD
from trainer.policy.decoding import Weights
from trainer.policy.elementwise import gated_silu, rms_norm, rotated
from trainer.policy.full import FullUpdate, Update
from trainer.policy.heads import OutputHead
from trainer.policy.layers import linear_shapes
from trainer.policy.layout import TokenLayout
from trainer.policy.llama import EMBEDDING, WeightSource, attention_dtype, rotations
from trainer.policy.lora import LowRank, linear
from trainer.policy.sharding import Split, whole

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
_OUTPUT = ("self_attn.o_proj",)
_DOWN = ("mlp.down_proj",)
_SHORT = 512  # tokens


@dataclass(frozen=True)
class _Layer:
    prefix: str
    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor

    def names(self, modules: tuple[str, ...]) -> list[str]:
        return [f"{self.prefix}{module}.weight" for module in modules]

    def changed(self, change: Split) -> _Layer:
        """The layer with its large weights changed alike."""
        return replace(
            self,
            qkv=change(self.qkv),
            output=change(self.output),
            gate_up=change(self.gate_up),
            down=change(self.down),
        )


class TrainableLlama:
    """Hidden states of a llama-family model under an adapter.

    Args:
        config: a transformers configuration that `llama.supports` accepts.
        split: keeps this process's part of a weight, where those of the layers are split.

    Attributes:
        checkpointing: whether the backward pass computes each layer again instead of keeping what it needs.
    """

    def __init__(
        self, config: Any, weights: Weights, device: torch.device, dtype: torch.dtype, split: Split | None = None
    ) -> None:
        self.heads = config.num_attention_heads
        self.key_heads = config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.hidden_size = config.hidden_size
        self.eps = config.rms_norm_eps
        self.dtype = dtype
        self.checkpointing = False
        self.angles = rotations(config, device)

        def need(name: str) -> Tensor:
            found = weights.get(name)
            if found is None:
                raise KeyError(name)
            return found.to(device, dtype)

        known = set(weights.names())
        self.embedding = need("model.embed_tokens.weight")
        self.final_norm = need("model.norm.weight").float()
        tied = config.tie_word_embeddings or "lm_head.weight" not in known
        self.head_weight = self.embedding if tied else need("lm_head.weight")
        self.head = OutputHead(self.head_weight)
        self._names: dict[str, None] = {}  # in the order of the layers

        def noted(name: str) -> Tensor | None:
            if name not in known:
                return None
            self._names[name] = None
            return need(name)

        self.split = split is not None
        self.layers: list[_Layer] = []
        for index in range(config.num_hidden_layers):
            layer = _fused(f"model.layers.{index}.", noted)
            self.layers.append(layer.changed(split) if split else layer)

    def adaptable(self, first_layer: int = 0) -> dict[str, tuple[int, int]]:
        """Names and (out, in) shapes of the linear layers from `first_layer` on."""
        inner = self.layers[0].down.shape[1]
        shapes = linear_shapes(self.heads, self.key_heads, self.head_size, self.hidden_size, inner)
        return {
            f"{layer.prefix}{name}.weight": shape
            for layer in self.layers[first_layer:]
            for name, shape in shapes.items()
        }

    def layer_weights(self) -> list[str]:
        """Names of all weights of the layers."""
        return list(self._names)

    def tensor(self, name: str) -> Tensor | None:
        """A weight by its name in the model's files, a view of the fused ones; None when the model has none."""
        others = {EMBEDDING: self.embedding, "model.norm.weight": self.final_norm}
        if self.head_weight is not self.embedding:
            others[HEAD] = self.head_weight
        if name in others or name not in self._names:
            return others.get(name)
        index, module = name.removeprefix("model.layers.").split(".", 1)
        layer = self.layers[int(index)]
        query, key = self.heads * self.head_size, self.key_heads * self.head_size
        for modules, outs, weight, bias in (
            (_ATTENTION, (query, key, key), layer.qkv, layer.qkv_bias),
            (_GATE_UP, (layer.gate_up.shape[0] // 2,) * 2, layer.gate_up, None),
        ):
            for place, part in enumerate(modules):
                rows = slice(sum(outs[:place]), sum(outs[: place + 1]))
                if module == f"{part}.weight":
                    return whole(weight)[rows]
                if module == f"{part}.bias":
                    return None if bias is None else bias[rows]
        found = {
            "input_layernorm.weight": layer.attention_norm,
            "self_attn.q_norm.weight": layer.query_norm,
            "self_attn.k_norm.weight": layer.key_norm,
            "self_attn.o_proj.weight": layer.output,
            "self_attn.o_proj.bias": layer.output_bias,
            "post_attention_layernorm.weight": layer.mlp_norm,
            "mlp.down_proj.weight": layer.down,
        }[module]
        return whole(found)

    def embed(self, layout: TokenLayout) -> Tensor:
        """(N, hidden) of the batch's distinct tokens."""
        return self.embeddings(layout.ids).float()

    def embeddings(self, ids: Tensor) -> Tensor:
        """(N,) token ids -> (N, embedding_size) their embeddings."""
        return self.embedding[ids]

    @property
    def embedding_size(self) -> int:
        return self.embedding.shape[1]

    def run(
        self, x: Tensor, layout: TokenLayout, adapter: Update | None, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Run layers `first` to `last` (exclusive; None runs to the end and applies the final norm).

        Args:
            x: (N, hidden), from :meth:`embed` or an earlier part.
            adapter: whose updates to apply; None is the reference.

        Returns:
            (N, hidden).
        """
        angles = self.angles[layout.positions, None]
        cos, sin = angles.real.contiguous(), angles.imag.contiguous()
        mask = layout.attention_mask(torch.float32)
        for layer in self.layers[first:last]:
            if self.checkpointing and torch.is_grad_enabled():
                block = partial(checkpoint, self._block, use_reentrant=False, preserve_rng_state=False)
                x = block(layer, x, layout, mask, cos, sin, adapter)
            else:
                x = self._block(layer, x, layout, mask, cos, sin, adapter)
        return self.normalised(x).to(self.dtype) if last is None else x

    def normalised(self, x: Tensor) -> Tensor:
        """(N, hidden) by the final norm."""
        return rms_norm(x, self.final_norm, self.eps)

    def _block(
        self,
        layer: _Layer,
        x: Tensor,
        layout: TokenLayout,
        mask: Tensor,
        cos: Tensor,
        sin: Tensor,
        adapter: Update | None,
    ) -> Tensor:
        if isinstance(adapter, FullUpdate):
            layer = _fused(layer.prefix, adapter.value)
        elif self.split:
            layer = layer.changed(whole)

        def update(modules: tuple[str, ...]) -> LowRank | None:
            return adapter.joined(layer.names(modules)) if adapter else None

        turning = self.heads + self.key_heads
        normal = rms_norm(x, layer.attention_norm.float(), self.eps).to(self.dtype)
        qkv = linear(normal, layer.qkv, layer.qkv_bias, update(_ATTENTION)).unflatten(-1, (-1, self.head_size))
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key, value = qkv.split([self.heads, self.key_heads, self.key_heads], 1)
            query, key = rms_norm(query, layer.query_norm, self.eps), rms_norm(key, layer.key_norm, self.eps)
            qkv = torch.cat([query, key, value], 1)
        rows = layout.padded(rotated(qkv, cos, sin, turning)).transpose(1, 2)  # (B, heads, T, head size)
        query, key, value = rows.split([self.heads, self.key_heads, self.key_heads], 1)
        attended = _attention(query, key, value, mask)
        attended = layout.unpadded(attended.transpose(1, 2).flatten(2))
        x = x + linear(attended, layer.output, layer.output_bias, update(_OUTPUT))
        normal = rms_norm(x, layer.mlp_norm.float(), self.eps).to(self.dtype)
        inner = gated_silu(linear(normal, layer.gate_up, None, update(_GATE_UP)))
        return x + linear(inner, layer.down, None, update(_DOWN))


def _fused(prefix: str, get: WeightSource) -> _Layer:
    """The weights of a block, from a source that gives None for those it lacks. Raises KeyError for a needed one."""

    def need(name: str) -> Tensor:
        found = get(prefix + name)
        if found is None:
            raise KeyError(prefix + name)
        return found

    biases = [get(f"{prefix}{name}.bias") for name in _ATTENTION]
    return _Layer(
        prefix=prefix,
        attention_norm=need("input_layernorm.weight"),
        qkv=torch.cat([need(f"{name}.weight") for name in _ATTENTION]),
        qkv_bias=None if biases[0] is None else torch.cat([bias for bias in biases if bias is not None]),
        query_norm=get(f"{prefix}self_attn.q_norm.weight"),
        key_norm=get(f"{prefix}self_attn.k_norm.weight"),
        output=need("self_attn.o_proj.weight"),
        output_bias=get(f"{prefix}self_attn.o_proj.bias"),
        mlp_norm=need("post_attention_layernorm.weight"),
        gate_up=torch.cat([need(f"{name}.weight") for name in _GATE_UP]),
        down=need("mlp.down_proj.weight"),
    )


def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Scaled dot-product attention; (B, heads, T, head size), keys and values with fewer heads that queries share."""
    length = query.shape[2]
    if query.device.type == "cpu" and length <= _SHORT:
        return _ShortAttention.apply(query, key, value, mask)
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype))


class _ShortAttention(torch.autograd.Function):
    """Attention of short sequences on a CPU. Of 16-bit operands it is summed in fp64: rounded to 16 bits it is then the
    same to the bit in whatever order and batch it was summed, and so the same as in decoding
    (:mod:`trainer.policy.llama`).

    The backward pass, in fp32, forms the weights of attention again: nothing of their size is kept. It is several times
    faster than that of the fused kernel, which is slow in bf16.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        wide = attention_dtype(query.device, query.dtype)
        attended = _weights(query.to(wide), key.to(wide), mask) @ value.to(wide)
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


def _weights(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """(B, heads, T, head size) and (B, key heads, T, head size) -> (B, key heads, queries of a key head * T, T)."""
    rows, heads, length, size = query.shape
    shared = query.reshape(rows, key.shape[1], -1, size)  # the queries of a key head below each other
    scores = (shared * size**-0.5) @ key.transpose(-1, -2)
    scores.view(rows, heads, length, length).add_(mask)
    return torch.softmax(scores, -1)
