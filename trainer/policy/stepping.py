"""Sampling with static shapes: one step as tensors alone, the same on a CPU and a GPU, where it is one CUDA graph.

Everything that a step reads and writes has its shape from the start: the cache is as long as prompt and answer may be,
the place to fill is a tensor, and what was said stays on the device with its log-probabilities. The host looks every
`POLL` tokens, sees who has ended, and waits for nothing in between. Rows that have ended go on unheard until all have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from storage.records import Sampling
from trainer.policy import sampling as choosing
from trainer.policy.cache import Cache

POLL = 16  # tokens


class Stepping(Protocol):
    """A network whose step takes a frozen cache."""

    def step(self, tokens: Tensor, cache: Cache) -> Tensor: ...


def is_static(sampling: Sampling) -> bool:
    """Whether choosing a token takes no look by the host: a nucleus of unknown size does."""
    return sampling.top_p >= 1 or bool(sampling.top_k)


class Steps:
    """The answers of a batch, as far as they are.

    Args:
        logits: (rows, vocabulary) after the prompts. cache: theirs; it is frozen here.
        uniforms: (rows, steps, 2) random numbers. seen: (rows, vocabulary) bool, or empty without a penalty.

    Attributes:
        said, logprobs: (rows, steps) tokens and their log-probabilities, as far as they were sampled.
        graphed: whether a GPU runs the step as a graph, else as it stands.
    """

    graphed: bool = True

    def __init__(
        self, network: Stepping, logits: Tensor, cache: Cache, uniforms: Tensor, sampling: Sampling, seen: Tensor
    ) -> None:
        rows, steps, _ = uniforms.shape
        cache.freeze()
        self.network, self.cache, self.uniforms, self.sampling = network, cache, uniforms, sampling
        self.logits, self.seen = logits.float().clone(), seen
        self.said = torch.zeros(rows, steps, dtype=torch.long, device=logits.device)
        self.logprobs = torch.zeros(rows, steps, device=logits.device)
        self.at = torch.zeros(1, dtype=torch.long, device=logits.device)
        self._graph: Any = None

    def taken(self, should_stop: Callable[[], bool] | None = None) -> Iterator[tuple[list[int], list[float]]]:
        """(rows,) tokens and log-probabilities of one step after the other; `POLL` at a time are sampled ahead."""
        total = self.said.shape[1]
        for begin in range(0, total, POLL):
            until = min(begin + POLL, total)
            for _ in range(begin, until):
                self._advance()
            yield from zip(self.said[:, begin:until].T.tolist(), self.logprobs[:, begin:until].T.tolist(), strict=True)
            if should_stop and should_stop():
                return

    def _advance(self) -> None:
        """Sample one more token a row; nothing here waits for the device."""
        worth_it = self.said.shape[1] >= POLL  # making a graph takes as long as some steps
        if self.logits.device.type == "cuda" and self.graphed and worth_it:
            self._graph = self._graph or self._captured()
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()

    def _step(self) -> None:
        logits = self.logits
        if self.sampling.repetition_penalty != 1:
            logits = choosing.penalise_repeats(logits, self.seen, self.sampling.repetition_penalty)
        uniform = self.uniforms.index_select(1, self.at)[:, 0]
        tokens, logprobs = choosing.choose(logits, uniform, self.sampling)
        self.said.index_copy_(1, self.at, tokens[:, None])
        self.logprobs.index_copy_(1, self.at, logprobs[:, None])
        if self.sampling.repetition_penalty != 1:
            self.seen.scatter_(1, tokens[:, None], True)
        self.at += 1
        self.logits.copy_(self.network.step(tokens, self.cache))

    def _captured(self) -> Any:
        """The step as a CUDA graph, or None where torch cannot make one. The step runs once before that, as libraries
        want it, and what it changed is put back."""
        state = [self.logits, self.seen, self.said, self.logprobs, self.at, self.cache.place, self.cache.mask]
        before = [None if one is None else one.clone() for one in state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph: Any = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._step()
        except RuntimeError as error:
            warnings.warn(f"sampling goes on without a CUDA graph: {error}", stacklevel=2)
            graph, self.graphed = None, False
        for one, was in zip(state, before, strict=True):
            if one is not None and was is not None:
                one.copy_(was)
        return graph
