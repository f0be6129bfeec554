"""Sampling answers from one version of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from storage.errors import UsageError, WorkbenchError
from storage.records import Sampling
from trainer.policy import sampling as choosing
from trainer.policy.adapters import FILE_NAME, HEAD, Adapter, read_adapter
from trainer.policy.llama import EMBEDDING, LlamaNetwork, supports
from trainer.policy.models import weight_files

# Finished rows are dropped from the batch once they are this share of it.
COMPACT_SHARE = 1 / 8
UNSTATED_CONTEXT = 2048  # tokens
OnTokens = Callable[[list[int | None]], None]


class Changes(Protocol):
    """What a version changes in its base model: an adapter, or the weights of a full version in memory."""

    kind: ClassVar[str]  # lora or full

    @property
    def names(self) -> set[str]: ...

    def merge(self, name: str, weight: Tensor) -> Tensor: ...


class Network(Protocol):
    """What the sampling loop asks of a model."""

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, Any]: ...

    def step(self, tokens: Tensor, cache: Any) -> Tensor: ...

    def adapted(self, adapter: Adapter) -> Network: ...


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
    """

    def __init__(
        self,
        folder: Path,
        config: Any,
        network: Network,
        device: torch.device,
        dtype: torch.dtype,
        shared: Network | None = None,
    ) -> None:
        self.shared = shared
        self.folder = folder
        self.config = config
        self.network = network
        self.device = device
        self.dtype = dtype
        self.parameters = parameter_count(folder)
        self.context = context_length(config)
        self.vocabulary: int = config.vocab_size

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        version: Path | None = None,
        *,
        four_bit: bool = False,
    ) -> Decoder:
        """Build from a model folder, and the file of a version on top of it.

        Args:
            version: a LoRA adapter file, or the safetensors file of a full version.
            four_bit: a few rows at a time, as in a conversation, read weights that lie on a 4-bit grid as such.

        Raises:
            WorkbenchError: a file is damaged, or the version was made for another model.
        """
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        config = getattr(config, "text_config", None) or config
        if version is not None and version.name != FILE_NAME:  # a full version shares nothing worth building first
            weights = Weights.open(folder, version)
            return cls(folder, config, _network(folder, config, weights, device, dtype), device, dtype)
        base = _network(folder, config, Weights.open(folder, None), device, dtype, four_bit=four_bit)
        return cls(folder, config, base, device, dtype, base).with_version(version)

    def with_version(self, version: Path | Changes | None) -> Decoder:
        """Another version of the same base model, built beside this one; what both have in common is shared.

        An adapter stays beside the weights (:mod:`trainer.policy.unmerged` says why).

        Args:
            version: a version's file, what one changes (still in memory), or None for the untouched base.

        Raises:
            WorkbenchError: as :meth:`load`.
        """
        if isinstance(version, Path) and version.name == FILE_NAME:
            version = read_adapter(version)
        if version is None or isinstance(version, Adapter):
            shared = self.shared or _network(
                self.folder, self.config, Weights.open(self.folder, None), self.device, self.dtype
            )
            network = shared if version is None else shared.adapted(version)
            return Decoder(self.folder, self.config, network, self.device, self.dtype, shared)
        weights = (
            Weights.open(self.folder, version)
            if isinstance(version, Path)
            else Weights(weight_files(self.folder), version)
        )
        network = _network(self.folder, self.config, weights, self.device, self.dtype, self.shared)
        return Decoder(self.folder, self.config, network, self.device, self.dtype, self.shared)

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
        active = list(range(len(prompts)))  # which answer each row of the batch is
        least = 1 if self.conversing else 2
        seen = self._seen(prompts, sampling)
        logits, cache = self.network.prefill([list(prompt) for prompt in distinct], rows, longest + steps)

        for step in range(steps):
            if sampling.repetition_penalty != 1:
                logits = choosing.penalise_repeats(logits, seen[active], sampling.repetition_penalty)
            tokens, logprobs = choosing.choose(logits, uniforms[active, step], sampling)
            emitted: list[int | None] = [None] * len(prompts)
            living = []
            for row, (answer, token, logprob) in enumerate(
                zip(active, tokens.tolist(), logprobs.tolist(), strict=True)
            ):
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


class Weights:
    """Tensors by name with a version's changes applied; read from disk as they are asked for.

    Attributes:
        changes: what a version changes in the files' weights; None for a file that holds them changed already.
        is_full: whether the file is that of a full version.
    """

    def __init__(self, files: Sequence[Path], changes: Changes | None = None) -> None:
        self.changes = changes
        self.is_full = False
        self._used: set[str] = set()
        self._files: dict[str, Any] = {}
        for file in files:
            try:
                opened = safe_open(str(file), framework="pt")
            except (OSError, SafetensorError) as error:
                raise WorkbenchError(f"the weights {file} cannot be read: {error}", "the file is damaged") from error
            self._files.update(dict.fromkeys(opened.keys(), opened))

    @classmethod
    def open(cls, folder: Path, version_file: Path | None) -> Weights:
        """The weights of a model folder; with a version's file, those of the version."""
        if version_file is None:
            return cls(weight_files(folder))
        if version_file.name == FILE_NAME:
            return cls(weight_files(folder), read_adapter(version_file))
        full = cls([version_file])
        full.is_full = True
        full.check_shapes(cls(weight_files(folder)))
        return full

    def changed(self, name: str) -> bool:
        """Whether a version changes this tensor of the files."""
        return self.changes is not None and name in self.changes.names

    @property
    def shares_embedding(self) -> bool:
        """Whether the embedding is that of the untouched base."""
        return not self.is_full and not self.changed(EMBEDDING)

    @property
    def shares_head(self) -> bool:
        """Whether the output head is that of the untouched base, be it tied to the embedding or not."""
        return self.shares_embedding and not self.changed(HEAD)

    def get(self, name: str) -> Tensor | None:
        """A tensor with the version's update merged in, or None when the model has none of that name.

        Where the embedding is the output head as well, a version that changes the head alone gets one made of it.
        """
        made = name == HEAD and name not in self._files and self.changed(HEAD)
        source = EMBEDDING if made else name
        opened = self._files.get(source)
        if opened is None:
            return None
        self._used.add(name)
        tensor = opened.get_tensor(source)
        merged = self.changes.merge(name, tensor) if self.changes else tensor
        # A view would keep the whole file in memory, beside the copies that are made of most weights.
        return merged.clone() if merged is tensor else merged

    def check_shapes(self, base: Weights) -> None:
        """Raise WorkbenchError when a weight has another shape here than in the base model (read from the headers)."""
        for name in self._files.keys() & base._files.keys():
            here, there = (weights._files[name].get_slice(name).get_shape() for weights in (self, base))
            if here != there:
                raise WorkbenchError(
                    f"{name} is {here}, the model needs {there}", "this version was trained on another base model"
                )

    def mark_used(self, name: str) -> None:
        """Note that a weight's change was applied by other means than :meth:`get`."""
        self._used.add(name)

    def names(self) -> list[str]:
        """All tensor names."""
        return list(self._files)

    def check_all_used(self) -> None:
        """Raise WorkbenchError when the version changes a weight that this model does not have."""
        unknown = self.changes.names - self._used if self.changes else set()
        if unknown:
            raise WorkbenchError(
                f"the version changes weights that the model lacks, such as {min(unknown)}",
                "this version was trained on another base model",
            )


def context_length(config: Any) -> int:
    """How many tokens a model reads at once; models whose configuration states no bound get a common one."""
    for name in ("max_position_embeddings", "seq_length", "max_seq_len"):
        stated = getattr(config, name, None)
        if isinstance(stated, int):
            return stated
    return UNSTATED_CONTEXT


def parameter_count(folder: Path) -> int:
    """How many numbers the weight files of a model folder hold, read from their headers."""
    count = 0
    for file in weight_files(folder):
        with safe_open(str(file), framework="pt") as opened:
            count += sum(math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    return count


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
        base = like.base if isinstance(like, LlamaNetwork) else None
        try:
            network = LlamaNetwork(config, weights, device, dtype, base, four_bit=four_bit)
        except KeyError as error:
            raise WorkbenchError(f"the weights of {folder} lack {error}", "is the folder complete?") from error
    else:
        from trainer.policy.transformers_network import TransformersNetwork

        beside = like if isinstance(like, TransformersNetwork) else None
        network = TransformersNetwork.load(folder, weights, device, dtype, beside)
    weights.check_all_used()
    return network
