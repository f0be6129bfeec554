"""A fast forward pass for the llama family (llama, mistral, qwen2, qwen3): what rollouts and chat run on.

The same arithmetic as transformers' modules, arranged for decoding: query, key and value in one product, gate and up
in one product, a preallocated cache that attention reads in place with grouped queries, rotary angles as complex
numbers, and row compaction as answers end. A forward pass holds the weights of exactly one version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.layers import Layer
from trainer.policy.linear import AdaptedOutput, FrozenLinear, OutputLinear, few_rows_linear
from trainer.policy.unmerged import adapted

EMBEDDING = "model.embed_tokens.weight"
FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_STATIC_ROPE = frozenset({"default", "linear", "llama3"})
WeightSource = Callable[[str], Tensor | None]


class Source(Protocol):
    """Where the weights of a version come from.

    Attributes:
        shares_embedding: the embedding is the base model's. shares_head: the output head is.
    """

    @property
    def shares_embedding(self) -> bool: ...

    @property
    def shares_head(self) -> bool: ...

    def get(self, name: str) -> Tensor | None:
        """The tensor of a name (as in the safetensors files) with the version's changes applied, or None."""
        ...

    def changed(self, name: str) -> bool:
        """Whether the version changes that tensor."""
        ...


def supports(config: Any) -> bool:
    """Whether the fast path computes exactly this architecture; others go through transformers' own forward pass."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in FAMILY
        and config.hidden_act == "silu"
        and not getattr(config, "mlp_bias", False)
        and getattr(config, "sliding_window", None) is None
        and rope.get("rope_type", "default") in _STATIC_ROPE
    )


class Cache:
    """Keys and values of a batch: per layer (rows, key heads, capacity, head size), filled from the left.

    `padding` (rows,) counts the unused places before each row's prompt; `mask` (rows, 1, 1, capacity) is what attention
    adds for them (None when no row is padded).
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], padding: Tensor, filled: int) -> None:
        self.keys = keys
        self.values = values
        self.padding = padding
        self.filled = filled
        self.mask = self._mask()

    def _mask(self) -> Tensor | None:
        if not bool(self.padding.any()):
            return None
        places = torch.arange(self.keys[0].shape[2], device=self.padding.device)
        mask = torch.zeros(len(self.padding), 1, 1, len(places), dtype=self.keys[0].dtype, device=self.padding.device)
        return mask.masked_fill_((places < self.padding[:, None])[:, None, None], float("-inf"))

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.keys = [key[rows] for key in self.keys]
        self.values = [value[rows] for value in self.values]
        self.padding = self.padding[rows]
        self.mask = self._mask()


@dataclass(frozen=True)
class Base:
    """What versions of one base model share: its untouched embedding and output head, and the rotations."""

    embedding: Tensor
    head: OutputLinear | AdaptedOutput
    plain_head: Tensor
    angles: Tensor


class LlamaNetwork:
    """Forward passes over fused weights.

    Args:
        config: a transformers configuration that :func:`supports` accepts.
        weights: those of the version.
        base: taken over from another version of the same base model, as far as this one leaves it untouched.
        four_bit: a few rows at a time read weights that lie on a 4-bit grid as such.

    Attributes:
        base: for versions to come to share; None when this version has changed it and was not given one.
    """

    def __init__(
        self,
        config: Any,
        weights: Source,
        device: torch.device,
        dtype: torch.dtype,
        base: Base | None = None,
        *,
        four_bit: bool = False,
    ) -> None:
        self._linear = few_rows_linear if four_bit else FrozenLinear
        self.four_bit = four_bit
        self.heads = config.num_attention_heads
        self.key_heads = config.num_key_value_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.hidden_size = config.hidden_size
        self.inner_size = config.intermediate_size
        self.device = device
        self.dtype = dtype
        self.attention_dtype = attention_dtype(device, dtype)

        def get(name: str) -> Tensor | None:
            found = weights.get(name)
            return None if found is None else found.to(device, dtype)

        def need(name: str) -> Tensor:
            found = get(name)
            if found is None:
                raise KeyError(name)
            return found

        self.angles = base.angles if base else rotations(config, device)
        self.embedding = base.embedding if base and weights.shares_embedding else need(EMBEDDING)
        self.head: OutputLinear | AdaptedOutput
        if base and weights.shares_head:
            self.head, self.plain_head = base.head, base.plain_head
        else:
            tied = config.tie_word_embeddings and not weights.changed(HEAD)
            head = None if tied else get(HEAD)
            self.plain_head = self.embedding if head is None else head
            self.head = OutputLinear(self.plain_head)
        shared = Base(self.embedding, self.head, self.plain_head, self.angles)
        self.base = base or (shared if weights.shares_head else None)
        self.final_norm = need("model.norm.weight").float()
        self.layers = [self._layer(f"model.layers.{index}.", get, need) for index in range(config.num_hidden_layers)]

    def _layer(self, prefix: str, get: WeightSource, need: Callable[[str], Tensor]) -> Layer:
        def joined(part: str, get: Callable[[str], Tensor | None]) -> Tensor | None:
            parts = [get(f"{prefix}self_attn.{name}_proj.{part}") for name in "qkv"]
            query, key, value = parts
            if query is None or key is None or value is None:
                return None
            return torch.cat([self.interleave(query), self.interleave(key), value])

        qkv = joined("weight", need)
        assert qkv is not None
        gate_up = torch.cat([need(f"{prefix}mlp.gate_proj.weight"), need(f"{prefix}mlp.up_proj.weight")])
        query_norm, key_norm = get(f"{prefix}self_attn.q_norm.weight"), get(f"{prefix}self_attn.k_norm.weight")
        return Layer(
            attention_norm=need(f"{prefix}input_layernorm.weight").float(),
            qkv=self._linear(qkv, joined("bias", get)),
            query_norm=None if query_norm is None else self.interleave(query_norm),
            key_norm=None if key_norm is None else self.interleave(key_norm),
            output=self._linear(need(f"{prefix}self_attn.o_proj.weight"), get(f"{prefix}self_attn.o_proj.bias")),
            mlp_norm=need(f"{prefix}post_attention_layernorm.weight").float(),
            gate_up=self._linear(gate_up),
            down=self._linear(need(f"{prefix}mlp.down_proj.weight")),
        )

    def interleave(self, value: Tensor) -> Tensor:
        """Reorder the places of each head so that the two a rotation mixes are neighbours (a complex number).

        Queries and keys are reordered alike, so their products do not change.
        """
        heads = value.shape[0] // self.head_size
        halves = value.view(heads, 2, self.head_size // 2, *value.shape[1:])
        return halves.transpose(1, 2).reshape(value.shape)

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, Cache]:
        """Read the prompts and make room for their answers.

        Args:
            prompts: the distinct prompts.
            rows: (rows,) which prompt each row of the batch answers.
            capacity: how many tokens prompt and answer may fill together.

        Returns:
            logits after the last prompt token (rows, vocabulary), fp32, and the cache.
        """
        length = max(map(len, prompts))
        padding = torch.tensor([length - len(prompt) for prompt in prompts], device=self.device)
        ids = torch.zeros(len(prompts), length, dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt, device=self.device)
        places = torch.arange(length, device=self.device)
        allowed = (places[None, :] <= places[:, None]) & (places[None, None, :] >= padding[:, None, None])
        allowed |= torch.eye(length, dtype=torch.bool, device=self.device)  # a padded place attends to itself
        mask = torch.zeros(allowed.shape, dtype=self.attention_dtype, device=self.device)
        mask.masked_fill_(~allowed, float("-inf"))
        angles = self.angles[(places - padding[:, None]).clamp_min(0)]

        keys, values = [], []
        x = self.embedding[ids].float()
        for layer in self.layers:
            query, key, value = self._project(layer, x, angles)
            attended = functional.scaled_dot_product_attention(
                query.transpose(1, 2),
                key.transpose(1, 2).repeat_interleave(self.heads // self.key_heads, 1),
                value.transpose(1, 2).repeat_interleave(self.heads // self.key_heads, 1),
                attn_mask=mask[:, None],
            )
            x = self._finish(layer, x, attended.transpose(1, 2).flatten(2).to(self.dtype))
            keys.append(self._place(key, rows, capacity))
            values.append(self._place(value, rows, capacity))
        logits = self.head(self._norm(x[:, -1], self.final_norm))
        return logits[rows], Cache(keys, values, padding[rows], length)

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Read one more token a row (rows,) and return the logits of the next (rows, vocabulary), fp32."""
        count, here = len(tokens), cache.filled
        angles = self.angles[here - cache.padding][:, None]
        mask = None if cache.mask is None else cache.mask[..., : here + 1]
        groups = self.heads // self.key_heads
        x = self.embedding[tokens][:, None].float()
        for index, layer in enumerate(self.layers):
            query, key, value = self._project(layer, x, angles)
            keys, values = cache.keys[index], cache.values[index]
            keys[:, :, here] = key[:, 0]
            values[:, :, here] = value[:, 0]
            # The queries that share a key head stand where other code has the positions of a sequence.
            attended = functional.scaled_dot_product_attention(
                query.view(count, self.key_heads, groups, self.head_size),
                keys[:, :, : here + 1],
                values[:, :, : here + 1],
                attn_mask=mask,
            )
            x = self._finish(layer, x, attended.reshape(count, 1, -1).to(self.dtype))
        cache.filled = here + 1
        return self.head(self._norm(x[:, 0], self.final_norm))

    def adapted(self, adapter: Adapter) -> LlamaNetwork:
        """This network, of the untouched base, with an adapter beside its weights."""
        return adapted(self, adapter)

    def _project(self, layer: Layer, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (rows, length, heads, head size) for attention; the first two rotated by their
        positions in fp32 and rounded once."""
        rows, length, _ = x.shape
        qkv = layer.qkv(self._norm(x, layer.attention_norm))
        qkv = qkv.view(rows, length, self.heads + 2 * self.key_heads, self.head_size)
        turning = self.heads + self.key_heads
        turned = qkv[:, :, :turning]
        if layer.query_norm is not None and layer.key_norm is not None:
            query = functional.rms_norm(turned[:, :, : self.heads], (self.head_size,), layer.query_norm, self.eps)
            key = functional.rms_norm(turned[:, :, self.heads :], (self.head_size,), layer.key_norm, self.eps)
            turned = torch.cat([query, key], 2)
        numbers = torch.view_as_complex(turned.float().unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(numbers * angles[:, :, None]).flatten(3).to(self.dtype).to(self.attention_dtype)
        return turned[:, :, : self.heads], turned[:, :, self.heads :], qkv[:, :, turning:].to(self.attention_dtype)

    def _finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of a block after attention."""
        x = x + layer.output(attended)
        gate, up = layer.gate_up(self._norm(x, layer.mlp_norm)).chunk(2, -1)
        return x + layer.down(functional.silu(gate).mul_(up))

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """The residual stream, normalised and rounded to what products take."""
        return functional.rms_norm(x, (self.hidden_size,), weight, self.eps).to(self.dtype)

    def _place(self, value: Tensor, rows: Tensor, capacity: int) -> Tensor:
        """One layer's cache: (rows, key heads, capacity, head size), beginning with the prompt's keys or values."""
        shape = len(rows), self.key_heads, capacity, self.head_size
        cache = torch.zeros(shape, dtype=value.dtype, device=self.device)
        cache[:, :, : value.shape[1]] = value.transpose(1, 2)[rows]
        return cache


def attention_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """What attention over keys and values of a number format is summed in, in sampling and in learning.

    Summed in fp32, one attended value in ten thousand rounds to another 16-bit value when the batch or the order of
    summing is another, and thirty layers make 0.05 nats a token of that. In fp64 none does: on a CPU a sampler equals
    the policy to the bit. Other devices have kernels of their own for 16 bits.
    """
    return torch.float64 if device.type == "cpu" and dtype != torch.float32 else dtype


def rotations(config: Any, device: torch.device) -> Tensor:
    """Rotations by position: (positions, head size / 2) complex, with the scaling that the configuration asks for."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(config=config)
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32)
    angles = torch.outer(positions, rotary.inv_freq.float())
    return torch.polar(torch.full_like(angles, rotary.attention_scaling), angles).to(device)
