"""Models of the llama family (llama, mistral, qwen2, qwen3): one forward pass, to sample from and to learn with.

Everything goes through the same blocks (:mod:`trainer.policy.block`). Versions are adapters beside their weights, which
all versions share. A batch that is learned from runs without padding, and may run in two parts: the lower part with
adapters off is the same for the reference policy, the value and the reward, so it is computed once for all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.attention import of_layout
from trainer.policy.block import Block, Get, Sizes
from trainer.policy.cache import Cache
from trainer.policy.elementwise import Rotations, rms_norm
from trainer.policy.full import FullUpdate, Update
from trainer.policy.kernels import frozen_linear, measure
from trainer.policy.layout import TokenLayout, said_logprobs
from trainer.policy.linear import AdaptedOutput, Linear, OutputLinear
from trainer.policy.logprobs import OutputHead
from trainer.policy.lora import AdaptedLinear
from trainer.policy.models.config import FAMILY, STATIC_ROPE
from trainer.policy.sharding import shard
from trainer.policy.side_by_side import side_by_side
from trainer.policy.weights import EMBEDDING, Weights, check_known


def supports(config: Any) -> bool:
    """Whether the block computes exactly this architecture; others go through transformers' own forward pass."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in FAMILY
        and config.hidden_act == "silu"
        and not getattr(config, "mlp_bias", False)
        and getattr(config, "sliding_window", None) is None
        and rope.get("rope_type", "default") in STATIC_ROPE
    )


class LlamaNetwork:
    """Forward passes of one version.

    Args:
        config: one that :func:`supports` accepts.
        weights: those of the version.
        like: the untouched base model: what this version leaves as it is is shared with it.
        mesh: the processes that share the weights of the layers, if any (:mod:`trainer.policy.sharding`).
        four_bit: a few rows at a time read weights that lie on a 4-bit grid as such.

    Attributes:
        layers: the blocks.
        output: from normalised states to logits, for sampling. head: the same of the untouched base, for learning.
        continuous: sampling may give the row of an answer that has ended to another prompt.
        checkpointing: whether the backward pass computes each layer again instead of keeping what it needs.

    Raises:
        KeyError: a weight is missing.
    """

    continuous = True

    def __init__(
        self,
        config: Any,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        like: LlamaNetwork | None = None,
        *,
        mesh: Any = None,
        four_bit: bool = False,
    ) -> None:
        self.device, self.dtype, self.four_bit = device, dtype, four_bit
        self.checkpointing = False
        self.sizes = Sizes.of(config)
        self.rotations: Rotations = like.rotations if like else Rotations(config, device)
        self._read: list[str] = []  # names of weights, those of a layer in their order there
        threads = torch.get_num_threads()

        def get(name: str) -> Tensor | None:
            found = weights.get(name)
            if found is None:
                return None
            self._read.append(name)
            return found.to(device, dtype)

        def need(name: str) -> Tensor:
            found = get(name)
            if found is None:
                raise KeyError(name)
            return found

        def linear(weight: Tensor, bias: Tensor | None, names: list[str]) -> Linear:
            if mesh:
                return Linear(nn.Parameter(weight, requires_grad=False), bias)
            grid = weights.grid(names) if four_bit and dtype == torch.bfloat16 else None
            return frozen_linear(weight, bias, four_bit=four_bit, grid=grid, threads=threads)

        def block(index: int) -> Block:
            made = Block.of(f"model.layers.{index}.", self.sizes, dtype, get, linear)
            if mesh:
                shard(made, mesh)
            return made

        def ends() -> tuple[Tensor, Tensor, OutputLinear | AdaptedOutput]:
            if like and not weights.full:  # a version in memory changes layers alone
                return like.embedding, like.head_weight, like.output
            embedding = need(EMBEDDING)
            own = None if config.tie_word_embeddings else get(HEAD)
            head = embedding if own is None else own
            return embedding, head, OutputLinear(head)

        made: list[Callable[[], Any]] = [ends, *(partial(block, index) for index in range(config.num_hidden_layers))]
        if device.type == "cpu" and not mesh:
            measure(dtype, four_bit=four_bit)  # before several threads are at work
            outer, *self.layers = side_by_side(lambda make: make(), made)
        else:
            outer, *self.layers = [make() for make in made]
        self.embedding, self.head_weight, self.output = outer
        self.final_norm = need("model.norm.weight").float()
        self.head = OutputHead(self.head_weight, product=self.output)

    # --- what there is to learn ------------------------------------------------------------------------------------

    @property
    def hidden_size(self) -> int:
        return self.sizes.hidden

    @property
    def embedding_size(self) -> int:
        return self.embedding.shape[1]

    def adaptable(self, first_layer: int = 0) -> dict[str, tuple[int, int]]:
        """Names and (out, in) shapes of the linear layers from `first_layer` on."""
        shapes = self.sizes.shapes()
        return {
            f"{block.prefix}{name}.weight": shape
            for block in self.layers[first_layer:]
            for name, shape in shapes.items()
        }

    def layer_weights(self) -> list[str]:
        """Names of all weights of the layers."""
        return [name for block in self.layers for name in self._read if name.startswith(block.prefix)]

    # --- sampling --------------------------------------------------------------------------------------------------

    def adapted(self, adapter: Adapter) -> LlamaNetwork:
        """This network, of the untouched base, with an adapter beside its weights.

        Raises:
            WorkbenchError: the adapter changes weights that the model does not have, or of another shape.
        """
        shapes = self.adaptable()
        check_known(adapter, {*shapes, HEAD})

        def beside(base: Linear, names: list[str]) -> Linear:
            update = adapter.joined({name: shapes[name] for name in names}, self.device)
            return base if update is None else AdaptedLinear(base, update, self.dtype, alone=self.four_bit)

        made = copy.copy(self)
        on_cpu = self.device.type == "cpu"
        hand = partial(Block.handed, change=beside)
        made.layers = side_by_side(hand, self.layers) if on_cpu else [hand(block) for block in self.layers]
        if HEAD in adapter.names:
            down, up = (part.to(self.device) for part in adapter.update(HEAD, self.head_weight.shape))
            made.output = AdaptedOutput(self.output, down, up)
        return made

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, Cache]:
        """Read the prompts and make room for their answers.

        Args:
            prompts: the distinct prompts.
            rows: (rows,) which prompt each row of the batch answers.
            capacity: how many tokens prompt and answer may fill together.

        Returns:
            logits after the last prompt token (rows, vocabulary), fp32, and the cache.
        """
        lengths = list(map(len, prompts))
        cache = Cache(lengths, rows, capacity, self.dtype)
        ids = torch.tensor([prompt + [0] * (cache.window - len(prompt)) for prompt in prompts], device=self.device)
        cos, sin = self.rotations.at(torch.arange(cache.window, device=self.device))
        x = self.embedding[ids].float()
        for block in self.layers:
            x = block(x, cos, sin, cache.prefill)
        last = x[range(len(prompts)), [length - 1 for length in lengths]]
        return self.output(self.normalised(last).to(self.dtype))[rows], cache

    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Read one more token a row (rows,) and return the logits of the next (rows, vocabulary), fp32."""
        cache.begin()
        cos, sin = self.rotations.at(cache.lengths[:, None])
        x = self.embedding[tokens][:, None].float()
        for index, block in enumerate(self.layers):
            x = block(x, cos, sin, partial(cache.step, index))
        cache.end()
        return self.output(self.normalised(x[:, 0]).to(self.dtype))

    def log_likelihood(self, layout: TokenLayout) -> Tensor:
        """(B, R) log-probability of each response token as it would be sampled at temperature 1, 0 outside the mask."""
        states = self.run(self.embed(layout), layout, None)
        return layout.spread(said_logprobs(self.output(states[layout.before]), layout))

    # --- learning --------------------------------------------------------------------------------------------------

    def embed(self, layout: TokenLayout) -> Tensor:
        """(N, hidden) of the batch's distinct tokens."""
        return self.embeddings(layout.ids).float()

    def embeddings(self, ids: Tensor) -> Tensor:
        """(N,) token ids -> (N, embedding_size) their embeddings."""
        return self.embedding[ids]

    def run(
        self, x: Tensor, layout: TokenLayout, update: Update | None, first: int = 0, last: int | None = None
    ) -> Tensor:
        """Run layers `first` to `last` (exclusive; None runs to the end and applies the final norm).

        Args:
            x: (N, hidden), from :meth:`embed` or an earlier part.
            update: what is learned; None is the reference.

        Returns:
            (N, hidden).
        """
        cos, sin = self.rotations.at(layout.positions)
        attend = of_layout(layout)

        def through(block: Block, x: Tensor) -> Tensor:
            if not isinstance(update, FullUpdate):
                return block(x, cos, sin, attend, update)

            def with_weights(get: Get, x: Tensor) -> Tensor:
                plain = partial(Block.of, block.prefix, self.sizes, self.dtype, get)
                return plain(lambda weight, bias, _: Linear(weight, bias))(x, cos, sin, attend)

            return update.layers[block.prefix](with_weights, x)

        for block in self.layers[first:last]:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(through, block, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = through(block, x)
        return self.normalised(x).to(self.dtype) if last is None else x

    def run_vectors(self, embedded: Tensor, layout: TokenLayout, update: Update | None) -> Tensor:
        """As :meth:`run` through all layers, from the vectors of tokens (N, embedding_size)."""
        return self.run(embedded, layout, update)

    def normalised(self, x: Tensor) -> Tensor:
        """(..., hidden) by the final norm."""
        return rms_norm(x, self.final_norm, self.sizes.eps)
