"""Sampling answers from one version of the weights."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from storage.errors import UsageError, WorkbenchError
from storage.records import Sampling
from trainer.heap import available
from trainer.policy.adapters import FILE_NAME, Adapter, read_adapter
from trainer.policy.attention import SHORT
from trainer.policy.layout import TokenLayout
from trainer.policy.llama import LlamaNetwork, supports
from trainer.policy.models import weight_files
from trainer.policy.models.config import read_config
from trainer.policy.models.folder import count
from trainer.policy.stepping import Batch, Stepping, is_static
from trainer.policy.weights import Changes, Weights

# Rows of a batch whose answers have ended are given to waiting prompts, or dropped, once they are this share of it.
ENDED_SHARE = 1 / 8
# Rows sampled at once where memory allows: on a CPU more are hardly faster; on a GPU they cost little more than few.
ROWS, GPU_ROWS = 64, 512
SCORED_ROWS = 12  # texts that are scored at once
MEMORY_SHARE = 1 / 2  # of the free memory, that a batch may take
UNSTATED_CONTEXT = 2048  # tokens
OnTokens = Callable[[list[int | None]], None]


class Network(Stepping, Protocol):
    """What sampling asks of a model."""

    def adapted(self, adapter: Adapter, /) -> Network: ...

    def log_likelihood(self, layout: TokenLayout, /) -> Tensor: ...


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

    @cached_property
    def parameters(self) -> int:
        """How many numbers the model has; counted when somebody asks, as the head of a GGUF file is read for it, with
        all the words of its tokenizer."""
        return count(self.folder, self.source)

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
        on_end: Callable[[int, Completion], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        rows: int | None = None,
    ) -> list[Completion]:
        """Sample one answer to each prompt; those with the same prompt that begin together share its prefill.

        As many are sampled at once as memory allows, and a prompt that waits takes the row of an answer that has ended.
        The same seed, version and device give the same tokens, whatever else is asked.

        Args:
            prompts: token ids.
            seeds: one a prompt.
            on_tokens: called at each step with one new token for each prompt, None for those that said none.
            on_end: called with the place of a prompt and its answer, as soon as that has ended.
            should_stop: asked at each step; once true, unfinished answers end as `cancelled`.
            rows: how many are sampled at once; None is as many as :meth:`rows_at_once` says.

        Raises:
            UsageError: a prompt that is empty or leaves no room in the context for an answer.
        """
        for prompt in prompts:
            if not prompt or len(prompt) + 1 > self.context:
                raise UsageError(
                    f"a prompt of {len(prompt)} tokens cannot be answered: the context holds {self.context}",
                    "write something" if not prompt else "shorten the prompt",
                )
        if not prompts:
            return []
        limits = [min(sampling.max_new_tokens, self.context - len(prompt)) for prompt in prompts]
        capacity = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
        capacity += -capacity % 8  # as attention likes it on a GPU
        most = rows or self.rows_at_once(len(prompts), max(map(len, prompts)), capacity)
        if not self.network.continuous:  # one batch after the other, as even as can be
            most = math.ceil(len(prompts) / math.ceil(len(prompts) / most))
        static = self.static and is_static(sampling)
        batch = Batch(self.network, sampling, capacity, max(limits), self.vocabulary, self.device, static=static)
        completions = [Completion() for _ in prompts]
        waiting = deque(range(len(prompts)))
        active: list[int] = []  # which answer each row of the batch is

        def heard(said: Sequence[int], tokens: list[int], logprobs: list[float]) -> None:
            """Note what was said, and by which answers."""
            emitted: list[int | None] = [None] * len(prompts)
            for answer, token, logprob in zip(said, tokens, logprobs, strict=True):
                completion = completions[answer]
                if completion.finish_reason != "cancelled":
                    continue
                completion.token_ids.append(token)
                completion.logprobs.append(logprob)
                emitted[answer] = token
                if token in eos_ids:
                    completion.finish_reason = "eos"
                elif len(completion.token_ids) == limits[answer]:
                    completion.finish_reason = "length"
                if on_end and completion.finish_reason != "cancelled":
                    on_end(answer, completion)
            if on_tokens:
                on_tokens(emitted)

        def admitted(count: int, places: Sequence[int] = ()) -> list[int]:
            """So many of the answers that have waited longest, or all of them, once they have begun."""
            fresh = [waiting.popleft() for _ in range(min(count, len(waiting)))]
            asked, drawn = [prompts[answer] for answer in fresh], [seeds[answer] for answer in fresh]
            heard(fresh, *batch.admit(asked, drawn, places[: len(fresh)]))
            return fresh

        def living() -> list[int]:
            """The rows whose answers go on."""
            return [row for row, answer in enumerate(active) if completions[answer].finish_reason == "cancelled"]

        while waiting or living():
            ended = sorted(set(range(len(active))) - set(living()))
            if len(ended) == len(active):
                active = admitted(most)
            elif len(ended) >= ENDED_SHARE * len(active) > 0:
                if waiting and self.network.continuous:
                    for row, answer in zip(ended, admitted(len(ended), ended), strict=False):
                        active[row] = answer
                elif not static:
                    company = 0 if self.conversing else max(0, 2 - len(living()))  # for an answer that is the last
                    kept = living() + ended[:company]
                    if len(kept) < len(active):
                        batch.keep(kept)
                        active = [active[row] for row in kept]
            left = max((limits[active[row]] - len(completions[active[row]].token_ids) for row in living()), default=0)
            for tokens, logprobs in batch.take(left):
                heard(active, tokens, logprobs)
            if should_stop and should_stop():
                break
        return completions

    def rows_at_once(self, wanted: int, prompt: int, capacity: int) -> int:
        """How many of the wanted rows are sampled at once: those that fit into a share of the memory that is free now.

        Args:
            prompt: tokens of the longest prompt. capacity: tokens of prompt and answer together.
        """
        most = min(wanted, GPU_ROWS if self.device.type == "cuda" else ROWS)
        if most <= 2:
            return most
        fits = MEMORY_SHARE * available(self.device) / row_bytes(self.config, prompt, capacity, self.dtype)
        return min(most, max(2, int(fits)))

    @torch.inference_mode()
    def next_logprobs(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Log-probabilities of what follows each prompt, at temperature 1: (prompts, vocabulary) fp32, on the CPU."""
        each = torch.arange(len(prompts), device=self.device)
        logits, _ = self.network.prefill([list(prompt) for prompt in prompts], each, max(map(len, prompts)))
        return logits.float().log_softmax(-1).cpu()

    @torch.inference_mode()
    def likelihood(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """Log-probability of each response after its prompt, at temperature 1, in nats; a few rows at a time.

        Both are at least one token long.
        """
        found: list[float] = []
        for start in range(0, len(responses), SCORED_ROWS):
            rows = slice(start, start + SCORED_ROWS)
            layout = TokenLayout.build(prompts[rows], responses[rows], self.device)
            found += self.network.log_likelihood(layout).sum(1).tolist()
        return found


def context_length(config: Any) -> int:
    """How many tokens a model reads at once; models whose configuration states no bound get a common one."""
    for name in ("max_position_embeddings", "seq_length", "max_seq_len"):
        stated = getattr(config, name, None)
        if isinstance(stated, int):
            return stated
    return UNSTATED_CONTEXT


def row_bytes(config: Any, prompt: int, capacity: int, dtype: torch.dtype) -> int:
    """Bytes that one more row takes in sampling, at the most: its keys and values, twice while a prompt takes over the
    row, what reading the prompt holds in one layer, and its logits.

    Args:
        config: a transformers configuration; sizes that it does not state are taken to be the usual ones.
        prompt, capacity: tokens of the prompt, and of prompt and answer.
    """
    heads = getattr(config, "num_attention_heads", None) or 1
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    cached = 2 * config.num_hidden_layers * 2 * key_heads * size * capacity * dtype.itemsize
    weighed = 2 * heads * min(prompt, SHORT) ** 2 * 8  # attention, before and after the softmax, in fp64
    return cached + weighed + 4 * prompt * (4 * config.hidden_size + 3 * inner) + 4 * 4 * config.vocab_size


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
    if not supports(config):
        from trainer.policy.transformers_network import TransformersNetwork

        beside = like if isinstance(like, TransformersNetwork) else None
        return TransformersNetwork.load(folder, weights, device, dtype, beside)
    base = like if isinstance(like, LlamaNetwork) else None
    try:
        return LlamaNetwork(config, weights, device, dtype, base, four_bit=four_bit)
    except KeyError as error:
        raise WorkbenchError(f"the weights of {folder} lack {error}", "is the folder complete?") from error
