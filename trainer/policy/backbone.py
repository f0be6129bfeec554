"""One base model in memory, and the adapters that make policy, value and reward of it.

The reference policy is the backbone with adapters off. Value and reward adapt the upper layers only; the lower ones
are the same for both and for the reference, so a batch runs through them once (`trunk`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from storage.errors import WorkbenchError
from trainer.config import AdapterConfig
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder, Weights
from trainer.policy.layout import TokenLayout
from trainer.policy.llama import supports
from trainer.policy.logprobs import chosen_logprobs
from trainer.policy.lora import LoraAdapter
from trainer.policy.models import ModelFolder
from trainer.policy.trainable_llama import TrainableLlama


@dataclass(frozen=True)
class Logprobs:
    """Figures of each response token: log-probability and entropy (B, R) in nats, 0 outside the mask."""

    chosen: Tensor
    entropy: Tensor


class ScalarHead(nn.Module):
    """One number for each hidden state; starts at zero."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., size) -> (...), fp32. The input is divided by the root of its size, so that rates carry over."""
        return hidden.float() @ self.weight / self.weight.shape[0] ** 0.5 + self.bias


class Backbone:
    """A base model with frozen weights.

    Attributes:
        split: the first layer that value and reward adapt.
    """

    def __init__(
        self, folder: ModelFolder, device: torch.device, dtype: torch.dtype, upper_share: float = 1 / 3
    ) -> None:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(str(folder.path), trust_remote_code=False)
        self.config: Any = getattr(config, "text_config", None) or config
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self.tokenizer = ChatTokenizer.load(folder.path)
        if not supports(self.config):
            raise WorkbenchError(
                f"{folder.name} is a {self.config.model_type} model; training covers the llama family so far",
                "train a llama, mistral, qwen2 or qwen3 model; any model can be prompted and rated",
            )
        try:
            self.network = TrainableLlama(self.config, Weights.open(folder.path, None), device, dtype)
        except KeyError as error:
            raise WorkbenchError(f"the weights of {folder.path} lack {error}", "is the folder complete?") from error
        layers = len(self.network.layers)
        self.split = layers - max(1, round(layers * upper_share))

    @property
    def hidden_size(self) -> int:
        return self.network.hidden_size

    def decoder(self) -> Decoder:
        """A sampler of the untouched base model; its `with_version` merges an adapter."""
        return Decoder.load(self.folder.path, self.device, self.dtype)

    def new_adapter(self, config: AdapterConfig, seed: int, *, upper: bool) -> LoraAdapter:
        """A fresh adapter of all linear layers, or of the upper ones; it changes nothing yet."""
        shapes = self.network.adaptable(self.split if upper else 0)
        return LoraAdapter(shapes, config.rank, config.alpha, torch.Generator().manual_seed(seed)).to(self.device)

    def layout(self, prompts: list[list[int]], responses: list[list[int]]) -> TokenLayout:
        """Lay out a batch on this device."""
        return TokenLayout.build(prompts, responses, self.device)

    def hidden(self, layout: TokenLayout, adapter: LoraAdapter | None) -> Tensor:
        """(N, hidden) through all layers; the reference when `adapter` is None."""
        return self.network.run(self.network.embed(layout), layout, adapter)

    @torch.no_grad()
    def trunk(self, layout: TokenLayout) -> Tensor:
        """(N, hidden) after the lower layers, adapters off."""
        return self.network.run(self.network.embed(layout), layout, None, 0, self.split)

    def upper(self, trunk: Tensor, layout: TokenLayout, adapter: LoraAdapter | None) -> Tensor:
        """(N, hidden) of the upper layers over a trunk; the reference when `adapter` is None."""
        return self.network.run(trunk, layout, adapter, self.split)

    def logprobs(self, hidden: Tensor, layout: TokenLayout, temperature: float) -> Logprobs:
        """Log-probability and entropy of each response token, from the hidden states (N, hidden)."""
        before, targets = hidden[layout.predictors[layout.mask]], layout.targets[layout.mask]
        chosen, entropy = chosen_logprobs(before, self.network.head_weight, targets, temperature)
        return Logprobs(self.spread(chosen, layout), self.spread(entropy, layout))

    def log_likelihood(self, hidden: Tensor, layout: TokenLayout, temperature: float) -> Tensor:
        """Log-probability alone of each response token (B, R), 0 outside the mask: what an update needs."""
        before, targets = hidden[layout.predictors[layout.mask]], layout.targets[layout.mask]
        weight = self.network.head_weight
        chosen, _ = chosen_logprobs(before, weight, targets, temperature, with_entropy=False)
        return self.spread(chosen, layout)

    @staticmethod
    def spread(values: Tensor, layout: TokenLayout) -> Tensor:
        """Values of the real response tokens in reading order -> (B, R), 0 outside the mask."""
        placed = torch.zeros(layout.mask.shape, dtype=values.dtype, device=values.device)
        return placed.masked_scatter(layout.mask, values)
