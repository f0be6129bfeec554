"""Models of the llama family (llama, mistral, qwen2, qwen3): one forward pass, to sample from and to learn with.

Everything goes through the same blocks (:mod:`trainer.policy.block`). Versions are adapters beside their weights, which
all versions share. A batch that is learned from runs without padding, and may run in two parts: the lower part with
adapters off is the same for the reference policy, the value and the reward, so it is computed once for all of them.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from storage.errors import WorkbenchError
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.attention import of_layout
from trainer.policy.block import Block, Sizes
from trainer.policy.cache import Cache
from trainer.policy.elementwise import Rotations, rms_norm
from trainer.policy.full import FullUpdate, Update
from trainer.policy.heads import OutputHead
from trainer.policy.kernels import frozen_linear
from trainer.policy.layout import TokenLayout
from trainer.policy.linear import AdaptedOutput, Linear, OutputLinear
from trainer.policy.lora import AdaptedLinear, LearnedLinear
from trainer.policy.sharding import Split, whole
from trainer.policy.weights import EMBEDDING, Weights

FAMILY = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_STATIC_ROPE = frozenset({"default", "linear", "llama3"})


def supports(config: Any) -> bool:
    """Whether the block computes exactly this architecture; others go through transformers' own forward pass."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in FAMILY
        and config.hidden_act == "silu"
        and not getattr(config, "mlp_bias", False)
        and getattr(config, "sliding_window", None) is None
        and rope.get("rope_type", "default") in _STATIC_ROPE
    )


class LlamaNetwork:
    """Forward passes of one version.

    Args:
        config: a transformers configuration that :func:`supports` accepts.
        weights: those of the version.
        like: the untouched base model: what this version leaves as it is is shared with it.
        split: keeps this process's part of a weight, where those of the layers are split.
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
        split: Split | None = None,
        four_bit: bool = False,
    ) -> None:
        self.device, self.dtype, self.split, self.four_bit = device, dtype, split is not None, four_bit
        self.checkpointing = False
        self.sizes = Sizes.of(config)
        self.rotations: Rotations = like.rotations if like else Rotations(config, device)
        self._names: dict[str, None] = {}  # in the order of the layers

        def get(name: str) -> Tensor | None:
            found = weights.get(name)
            if found is None:
                return None
            self._names[name] = None
            return found.to(device, dtype)

        def need(name: str) -> Tensor:
            found = get(name)
            if found is None:
                raise KeyError(name)
            return found

        def linear(weight: Tensor, bias: Tensor | None) -> Linear:
            if split:
                return Linear(split(weight), bias)
            return frozen_linear(weight, bias, four_bit=four_bit)

        indices = range(config.num_hidden_layers)
        self.layers = [Block.of(f"model.layers.{index}.", self.sizes, dtype, get, linear) for index in indices]
        self._layer_weights = list(self._names)
        self.final_norm = need("model.norm.weight").float()
        self.embedding: Tensor = like.embedding if like and weights.shares_embedding else need(EMBEDDING)
        self.output: OutputLinear | AdaptedOutput
        self.head_weight: Tensor
        if like and weights.shares_head:
            self.head_weight, self.output = like.head_weight, like.output
        else:
            tied = config.tie_word_embeddings and not weights.changed(HEAD)
            head = None if tied else get(HEAD)
            self.head_weight = self.embedding if head is None else head
            self.output = OutputLinear(self.head_weight)
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
        return self._layer_weights

    # --- sampling --------------------------------------------------------------------------------------------------

    def adapted(self, adapter: Adapter) -> LlamaNetwork:
        """This network, of the untouched base, with an adapter beside its weights.

        Raises:
            WorkbenchError: the adapter changes weights that the model does not have, or of another shape.
        """
        shapes = self.adaptable()
        unknown = adapter.names - shapes.keys() - {HEAD}
        if unknown:
            raise WorkbenchError(
                f"the version changes weights that the model lacks, such as {min(unknown)}",
                "this version was trained on another base model",
            )

        def beside(base: Linear, names: list[str]) -> Linear:
            update = adapter.joined({name: shapes[name] for name in names}, self.device)
            return base if update is None else AdaptedLinear(base, update, self.dtype, alone=self.four_bit)

        made = copy.copy(self)
        made.layers = [block.handed(beside) for block in self.layers]
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
            return self._learned(block, update)(x, cos, sin, attend)

        for block in self.layers[first:last]:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(through, block, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = through(block, x)
        return self.normalised(x).to(self.dtype) if last is None else x

    def normalised(self, x: Tensor) -> Tensor:
        """(..., hidden) by the final norm."""
        return rms_norm(x, self.final_norm, self.sizes.eps)

    def _learned(self, block: Block, update: Update | None) -> nn.Module:
        """The block with what is learned of it beside or instead of its weights, and those put together."""
        if isinstance(update, FullUpdate):
            return Block.of(block.prefix, self.sizes, self.dtype, update.value, Linear)

        def beside(base: Linear, names: list[str]) -> Linear:
            here = Linear(whole(base.weight), base.bias) if self.split else base
            low_rank = update.joined(names) if update else None
            return here if low_rank is None else LearnedLinear(here, low_rank)

        return block.handed(beside) if update or self.split else block
