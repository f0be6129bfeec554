"""One base model in memory, and the adapters that make policy, value and reward of it.

The reference policy is the backbone with adapters off. Value and reward adapt the upper layers only; the lower ones
are the same for both and for the reference, so a batch runs through them once (`trunk`). A policy may also be a full
update: then it has weights of its own in all layers, and the reference, value and reward keep to the frozen ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from storage.errors import WorkbenchError
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder, Network
from trainer.policy.full import FullUpdate, Update
from trainer.policy.layout import TokenLayout
from trainer.policy.llama import LlamaNetwork, supports
from trainer.policy.lora import LoraAdapter
from trainer.policy.models import ModelFolder
from trainer.policy.models.config import read_config
from trainer.policy.sharding import mesh_of
from trainer.policy.trainable_transformers import TrainableTransformers
from trainer.policy.transformers_network import TransformersNetwork
from trainer.policy.weights import Changes, Weights
from trainer.policy_config import AdapterConfig, PolicyConfig, Tuning


@dataclass(frozen=True)
class Logprobs:
    """Figures of each response token: log-probability and entropy (B, R) in nats, 0 outside the mask."""

    chosen: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Comparison:
    """A policy beside its reference at each response token: (B, R) each in nats, 0 outside the mask.

    Attributes:
        chosen, reference: log-probabilities of the token under both.
        entropy: of the policy there. divergence: the exact KL(policy || reference) there.
    """

    chosen: Tensor
    reference: Tensor
    entropy: Tensor
    divergence: Tensor

    @classmethod
    def recorded(cls, chosen: Tensor, reference: Tensor) -> Comparison:
        """From the log-probabilities of the sampled tokens alone: entropy and divergence are what these tokens make of
        them, right on average (the divergence by k3, Schulman 2020)."""
        apart = reference - chosen
        return cls(chosen, reference, -chosen, torch.expm1(apart) - apart)


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

    Args:
        checkpointing: recompute each layer in the backward pass: slower by about a forward pass, in less memory.
        processes: how many share the weights of the layers, each keeping a part of them (`trainer.policy.sharding`).

    Attributes:
        split: the first layer that value and reward adapt.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: torch.device,
        dtype: torch.dtype,
        upper_share: float = 1 / 3,
        *,
        checkpointing: bool = False,
        processes: int = 1,
    ) -> None:
        self.config: Any = read_config(folder.path)
        self.folder = folder
        self.device = device
        self.dtype = dtype
        self.tokenizer = ChatTokenizer.load(folder.path, folder.words)
        self._mesh = mesh_of(device, processes) if processes > 1 else None
        self.network = self._network()
        self.network.checkpointing = checkpointing or processes > 1  # else each layer would be kept whole
        layers = len(self.network.layers)
        self.split = layers - max(1, round(layers * upper_share))

    def _network(self) -> LlamaNetwork | TrainableTransformers:
        """The fast forward pass where it computes exactly this architecture, else that of transformers."""
        path = self.folder.path
        if not supports(self.config):
            return TrainableTransformers(path, self.device, self.dtype, self._mesh)
        try:
            return LlamaNetwork(self.config, Weights.open(path, None), self.device, self.dtype, mesh=self._mesh)
        except KeyError as error:
            raise WorkbenchError(f"the weights of {path} lack {error}", "is the folder complete?") from error

    @property
    def hidden_size(self) -> int:
        return self.network.hidden_size

    def decoder(self, changes: Changes | None = None) -> Decoder:
        """A sampler of the base model with the changes of a version; of the untouched one without any."""
        path = self.folder.path
        base: Network
        if self._mesh:
            base = Decoder.load(path, self.device, self.dtype).network
        elif isinstance(self.network, TrainableTransformers):
            base = TransformersNetwork(self.network.model)
        else:
            base = self.network
        untouched = Decoder(path, self.config, base, self.device, self.dtype, base)
        return untouched if changes is None else untouched.with_version(changes)

    def new_adapter(self, config: AdapterConfig, seed: int, *, upper: bool) -> LoraAdapter:
        """A fresh adapter of all linear layers, or of the upper ones; it changes nothing yet."""
        return self._adapter(config, seed, self.split if upper else 0)

    def _adapter(self, config: AdapterConfig, seed: int, first_layer: int) -> LoraAdapter:
        shapes, generator = self.network.adaptable(first_layer), torch.Generator().manual_seed(seed)
        return LoraAdapter(shapes, config.rank, config.alpha, generator, first_layer).to(self.device)

    def new_policy(self, config: PolicyConfig, seed: int) -> Update:
        """What a method learns: a fresh adapter of all or the upper layers, or copies of all weights of the layers.

        Raises:
            UsageError: full tuning of a model whose files call its weights by other names than the model does.
        """
        if config.tuning == Tuning.FULL:
            names = self.network.layer_weights()
            return FullUpdate(self.folder.path, names, self.dtype, self.device, self._mesh)
        layers = len(self.network.layers)
        return self._adapter(config, seed, layers - max(1, round(layers * config.policy_share)))

    def layout(self, prompts: list[list[int]], responses: list[list[int]]) -> TokenLayout:
        """Lay out a batch on this device."""
        return TokenLayout.build(prompts, responses, self.device)

    def hidden(self, layout: TokenLayout, policy: Update | None) -> Tensor:
        """(N, hidden) through all layers; the reference when `policy` is None."""
        return self.over(self.beneath(layout, policy), layout, policy)

    @torch.no_grad()
    def beneath(self, layout: TokenLayout, policy: Update | None) -> Tensor:
        """(N, hidden) beneath the first layer that a policy changes: the same however it learns."""
        first = policy.first_layer if policy is not None else 0
        embedded = self.network.embed(layout)
        return self.network.run(embedded, layout, None, 0, first) if first else embedded

    def over(self, beneath: Tensor, layout: TokenLayout, policy: Update | None) -> Tensor:
        """(N, hidden) through the other layers, from what :meth:`beneath` gave."""
        return self.network.run(beneath, layout, policy, policy.first_layer if policy is not None else 0)

    @torch.no_grad()
    def trunk(self, layout: TokenLayout, beneath: Tensor | None = None, first: int = 0) -> Tensor:
        """What :meth:`upper` goes on from: (N, hidden) after the lower layers, adapters off, where they run apart.

        Args:
            beneath: what :meth:`beneath` gave for a policy whose first layer is `first`, to go on from.
        """
        if beneath is None or first > self.split:
            beneath, first = self.network.embed(layout), 0
        return self.network.run(beneath, layout, None, first, self.split)

    def upper(self, trunk: Tensor, layout: TokenLayout, adapter: LoraAdapter | None) -> Tensor:
        """(N, hidden) of the upper layers over a trunk; the reference when `adapter` is None."""
        return self.network.run(trunk, layout, adapter, self.split)

    @torch.no_grad()
    def embeddings(self, layout: TokenLayout) -> Tensor:
        """(N, embedding size) of the tokens themselves, each of root mean square 1, fp32."""
        found = self.network.embeddings(layout.ids).float()
        return nn.functional.rms_norm(found, found.shape[-1:])

    @torch.no_grad()
    def plain_states(self, trunk: Tensor, layout: TokenLayout) -> Tensor:
        """(N, hidden) normalised states of the base model, fp32: after the lower layers, or after all of them where the
        lower ones do not run apart."""
        if isinstance(self.network, LlamaNetwork):
            return self.network.normalised(trunk).float()
        return self.upper(trunk, layout, None).float()

    def vectors(self, ids: Tensor) -> Tensor:
        """(n,) token ids -> (n, embedding size) what the layers begin with, fp32."""
        return self.network.embeddings(ids).float()

    def over_vectors(self, embedded: Tensor, layout: TokenLayout, adapter: LoraAdapter | None) -> Tensor:
        """(N, hidden) through all layers, from the vectors of tokens (N, embedding size); differentiable in these."""
        return self.network.run_vectors(embedded, layout, adapter)

    def plain_states_of(self, embedded: Tensor, layout: TokenLayout) -> Tensor:
        """As :meth:`plain_states`, from the vectors of tokens (N, embedding size); differentiable in these."""
        if isinstance(self.network, LlamaNetwork):
            return self.network.normalised(self.network.run(embedded, layout, None, 0, self.split)).float()
        return self.over_vectors(embedded, layout, None).float()

    def logprobs(self, hidden: Tensor, layout: TokenLayout, temperature: float) -> Logprobs:
        """Log-probability and entropy of each response token, from the hidden states (N, hidden)."""
        found = self.network.head.chosen(hidden[layout.before], layout.said, temperature)
        return Logprobs(*map(layout.spread, found))

    def log_likelihood(self, hidden: Tensor, layout: TokenLayout, temperature: float) -> Tensor:
        """Log-probability alone of each response token (B, R), 0 outside the mask: what an update needs."""
        head = self.network.head
        return layout.spread(head.chosen(hidden[layout.before], layout.said, temperature, with_entropy=False)[0])

    def compared(self, hidden: Tensor, reference: Tensor, layout: TokenLayout, temperature: float) -> Comparison:
        """A policy beside its reference, from the hidden states (N, hidden) of both."""
        both = hidden[layout.before], reference[layout.before]
        return Comparison(*map(layout.spread, self.network.head.compared(*both, layout.said, temperature)))

    def divergence(self, hidden: Tensor, before: Tensor, layout: TokenLayout, temperature: float) -> Tensor:
        """(n,) the exact KL, nats, at the place before each response token: from the hidden states (N, hidden) of one
        policy to those of another at these places alone, (n, hidden)."""
        return self.network.head.compared(hidden[layout.before], before, layout.said, temperature)[3]
