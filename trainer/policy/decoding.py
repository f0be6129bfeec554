"""Sampling answers from one version of the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from storage.errors import UsageError, WorkbenchError
from storage.records import Sampling
from trainer.policy import sampling as choosing
from trainer.policy.adapters import FILE_NAME, Adapter, read_adapter
from trainer.policy.llama import LlamaNetwork, supports
from trainer.policy.models import weight_files
from trainer.policy.models.config import read_config
from trainer.policy.models.folder import count
from trainer.policy.stepping import Steps, is_static
from trainer.policy.weights import Changes, Weights

# Finished rows are dropped from the batch once they are this share of it.
COMPACT_SHARE = 1 / 8
UNSTATED_CONTEXT = 2048  # tokens
OnTokens = Callable[[list[int | None]], None]


class Network(Protocol):
    """What the sampling loop asks of a model."""

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, Any]: ...

    def step(self, tokens: Tensor, cache: Any) -> Tensor: ...

    def adapted(self, adapter: Adapter, /) -> Network: ...


@dataclass
class Completion:
    """One sampled answer.

    Attributes:
        token_ids: the answer's tokens; the end-of-text token is among them when `finish_reason` is `eos`.
        logprobs: of each of them, under the full distribution at the sampling temperature, in nats.
        finish_reason: eos, length or cancelled.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str = "cancelled"


class Decoder:
    """The weights of exactly one version, ready to sample from. Never changes once built.

    Attributes:
        parameters: how many numbers the model has.
        shared: the untouched base model's network, beside whose weights adapters stand; None where only a full version
            was ever built.
        context: how many tokens prompt and answer may fill together.
        static: whether answers are sampled with static shapes (:mod:`trainer.policy.stepping`), as on a GPU.
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        network: Network,
        device: torch.device,
        dtype: torch.dtype,
        shared: Network | None = None,
        source: Path | None = None,
    ) -> None:
        self.shared = shared
        self.folder = folder
        self.config = config
        self.network = network
        self.device = device
        self.dtype = dtype
        self.source = source
        self.parameters = count(folder, source)
        self.context = context_length(config)
        self.vocabulary: int = config.vocab_size
        self.static = device.type == "cuda" and isinstance(network, LlamaNetwork)

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        version: Path | None = None,
        *,
        four_bit: bool = False,
        source: Path | None = None,
    ) -> Decoder:
        """Build from a model folder, and the file of a version on top of it.

        Args:
            version: a LoRA adapter file, or the safetensors file of a full version.
            four_bit: a few rows at a time, as in a conversation, read weights that lie on a 4-bit grid as such.
            source: the GGUF file that the model comes as, to read weights and their codes from.

        Raises:
            WorkbenchError: a file is damaged, or the version was made for another model.
        """
        config = read_config(folder)
        if version is not None and version.name != FILE_NAME:  # a full version shares nothing worth building first
            weights = Weights.open(folder, version, source)
            network = _network(folder, config, weights, device, dtype)
            return cls(folder, config, network, device, dtype, source=source)
        base = _network(folder, config, Weights.open(folder, None, source), device, dtype, four_bit=four_bit)
        return cls(folder, config, base, device, dtype, base, source).with_version(version)

    def with_version(self, version: Path | Changes | None) -> Decoder:
        """Another version of the same base model, built beside this one; what both have in common is shared.

        An adapter stays beside the weights (:class:`trainer.policy.lora.AdaptedLinear` says why).

        Args:
            version: a version's file, what one changes (still in memory), or None for the untouched base.

        Raises:
            WorkbenchError: as :meth:`load`.
        """
        if isinstance(version, Path) and version.name == FILE_NAME:
            version = read_adapter(version)
        if version is None or isinstance(version, Adapter):
            shared = self.shared or _network(
                self.folder, self.config, Weights.open(self.folder, None, self.source), self.device, self.dtype
            )
            network = shared if version is None else shared.adapted(version)
            return Decoder(self.folder, self.config, network, self.device, self.dtype, shared, self.source)
        weights = (
            Weights.open(self.folder, version, self.source)
            if isinstance(version, Path)
            else Weights(weight_files(self.folder), version)
        )
        network = _network(self.folder, self.config, weights, self.device, self.dtype, self.shared)
        return Decoder(self.folder, self.config, network, self.device, self.dtype, self.shared, self.source)

    @property
    def conversing(self) -> bool:
        """Whether a row alone may be computed as is fastest, and not as rows of a batch are. In 16 bits on a CPU that
        rounds otherwise, and what is learned from must be sampled as it is learned from."""
        return self.dtype == torch.float32 or getattr(self.network, "four_bit", False)

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        eos_ids: frozenset[int],
        *,
        on_tokens: OnTokens | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Completion]:
        """Sample one answer a row; rows with the same prompt share its prefill.

        The same seed, version and device give the same tokens.

        Args:
            prompts: token ids, one list a row.
            seeds: one a row.
            on_tokens: called at each step with one new token a row, None for rows that had finished before.
            should_stop: asked at each step; once true, unfinished rows end as `cancelled`.

        Raises:
            UsageError: a prompt that is empty or leaves no room in the context for an answer.
        """
        for prompt in prompts:
            if not prompt or len(prompt) + 1 > self.context:
                raise UsageError(
                    f"a prompt of {len(prompt)} tokens cannot be answered: the context holds {self.context}",
                    "write something" if not prompt else "shorten the prompt",
                )
        distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        rows = torch.tensor([distinct.index(tuple(prompt)) for prompt in prompts], device=self.device)
        longest = max(map(len, distinct))
        steps = min(sampling.max_new_tokens, self.context - longest)
        uniforms = choosing.uniforms(seeds, steps).to(self.device)
        completions = [Completion() for _ in prompts]
        seen = self._seen(prompts, sampling)
        capacity = longest + steps + -(longest + steps) % 8  # as attention likes it on a GPU
        logits, cache = self.network.prefill([list(prompt) for prompt in distinct], rows, capacity)

        def heard(active: list[int], step: int, tokens: list[int], logprobs: list[float]) -> list[int]:
            """Note what the rows of a batch said, which are these answers; the rows that go on."""
            emitted: list[int | None] = [None] * len(prompts)
            living = []
            for row, (answer, token, logprob) in enumerate(zip(active, tokens, logprobs, strict=True)):
                completion = completions[answer]
                if completion.finish_reason != "cancelled":
                    continue
                completion.token_ids.append(token)
                completion.logprobs.append(logprob)
                emitted[answer] = token
                if token in eos_ids:
                    completion.finish_reason = "eos"
                elif step + 1 == steps:
                    completion.finish_reason = "length"
                else:
                    living.append(row)
            if on_tokens:
                on_tokens(emitted)
            return living

        active = list(range(len(prompts)))  # which answer each row of the batch is
        if self.static and is_static(sampling):
            static = Steps(self.network, logits, cache, uniforms, sampling, seen)
            for step, said in enumerate(static.taken(should_stop)):
                if not heard(active, step, *said):
                    break
            return completions
        least = 1 if self.conversing else 2
        for step in range(steps):
            if sampling.repetition_penalty != 1:
                logits = choosing.penalise_repeats(logits, seen[active], sampling.repetition_penalty)
            tokens, logprobs = choosing.choose(logits, uniforms[active, step], sampling)
            living = heard(active, step, tokens.tolist(), logprobs.tolist())
            if not living or (should_stop and should_stop()):
                break
            if sampling.repetition_penalty != 1:
                seen[active, tokens] = True
            if len(living) < least:  # an answer that has ended keeps the last one company
                living += [row for row in range(len(active)) if row not in living][: least - len(living)]
            if len(active) - len(living) >= max(1, COMPACT_SHARE * len(active)):
                kept = torch.tensor(living, device=self.device)
                cache.keep(kept)
                tokens = tokens[kept]
                active = [active[row] for row in living]
            logits = self.network.step(tokens, cache)
        return completions

    @torch.inference_mode()
    def next_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities of what follows each prompt, at temperature 1: (prompts, vocabulary) fp32, on the CPU."""
        each = torch.arange(len(prompts), device=self.device)
        logits, _ = self.network.prefill([list(prompt) for prompt in prompts], each, max(map(len, prompts)))
        return logits.float().log_softmax(-1).cpu()

    def _seen(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Tensor:
        """Which tokens each row has said, its prompt included: (rows, vocabulary) bool; empty when not needed."""
        if sampling.repetition_penalty == 1:
            return torch.empty(0, device=self.device)
        seen = torch.zeros(len(prompts), self.vocabulary, dtype=torch.bool, device=self.device)
        for row, prompt in enumerate(prompts):
            seen[row, torch.tensor(list(prompt), device=self.device)] = True
        return seen


def context_length(config: Any) -> int:
    """How many tokens a model reads at once; models whose configuration states no bound get a common one."""
    for name in ("max_position_embeddings", "seq_length", "max_seq_len"):
        stated = getattr(config, name, None)
        if isinstance(stated, int):
            return stated
    return UNSTATED_CONTEXT


def _network(
    folder: Path,
    config: Any,
    weights: Weights,
    device: torch.device,
    dtype: torch.dtype,
    like: Network | None = None,
    *,
    four_bit: bool = False,
) -> Network:
    """The fast path where it computes exactly this architecture, else the general one.

    Args:
        like: of the untouched base model, to share with.
    """
    network: Network
    if supports(config):
        base = like if isinstance(like, LlamaNetwork) else None
        try:
            network = LlamaNetwork(config, weights, device, dtype, base, four_bit=four_bit)
        except KeyError as error:
            raise WorkbenchError(f"the weights of {folder} lack {error}", "is the folder complete?") from error
    else:
        from trainer.policy.transformers_network import TransformersNetwork

        beside = like if isinstance(like, TransformersNetwork) else None
        return TransformersNetwork.load(folder, weights, device, dtype, beside)
    weights.check_all_used()
    return network
