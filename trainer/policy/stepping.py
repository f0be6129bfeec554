"""A batch of answers on their way: one step as tensors alone, the same on a CPU and a GPU, where it is one CUDA graph.

Each row is at a place of its own, in its answer as in the cache, so that the row of an answer that has ended can be
given to another prompt (continuous batching, Yu et al. 2022): the batch stays full as long as prompts wait.

With static shapes the host looks every `POLL` tokens, sees who has ended, and waits for nothing in between; rows that
have ended go on unheard. Else it looks at each token, and rows may leave as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from storage.records import Sampling
from trainer.policy import sampling as choosing

POLL = 16  # tokens


class Stepping(Protocol):
    """What a batch asks of a network.

    Attributes:
        continuous: whether prompts may take the rows of answers that have ended.
    """

    continuous: bool

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, Any]: ...

    def step(self, tokens: Tensor, cache: Any) -> Tensor: ...


def is_static(sampling: Sampling) -> bool:
    """Whether choosing a token takes no look by the host: a nucleus of unknown size does."""
    return sampling.top_p >= 1 or bool(sampling.top_k)


class Batch:
    """Rows that are sampled together; empty until prompts are admitted.

    Args:
        capacity: how many tokens prompt and answer may fill together. steps: how many an answer may have at most.

    Attributes:
        tokens: (rows,) said last. at: (rows,) how many each row has said. uniforms: (rows, steps, 2) random numbers.
        seen: (rows, vocabulary) bool, which tokens a row was asked or has said; (rows, 0) without a penalty.
        said, logprobs: (POLL or 1, rows) tokens and their log-probabilities since the host looked; `turn`: how many.
        graphed: whether a GPU runs the step as a graph, else as it stands.
    """

    graphed: bool = True
    tokens: Tensor
    at: Tensor
    uniforms: Tensor
    seen: Tensor
    said: Tensor
    logprobs: Tensor
    turn: Tensor
    cache: Any

    def __init__(
        self,
        network: Stepping,
        sampling: Sampling,
        capacity: int,
        steps: int,
        vocabulary: int,
        device: torch.device,
        *,
        static: bool,
    ) -> None:
        self.network, self.sampling, self.device = network, sampling, device
        self.capacity, self.steps = capacity, steps
        self.vocabulary = vocabulary if sampling.repetition_penalty != 1 else 0  # of what is seen
        self.ahead = POLL if static else 1
        self._graph: Any = None

    def admit(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], places: Sequence[int] = ()
    ) -> tuple[list[int], list[float]]:
        """Read prompts, one a row; returns the first token of each answer, and its log-probability.

        Args:
            places: the rows that they take, of answers that have ended. Without any the batch begins anew.
        """
        if not places:
            self.cache = None  # frees that of the batch before
        numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        rows = torch.tensor([numbers[tuple(prompt)] for prompt in prompts], device=self.device)
        logits, cache = self.network.prefill(list(map(list, numbers)), rows, self.capacity)
        uniforms = choosing.uniforms(seeds, self.steps).to(self.device)
        seen = torch.zeros(len(prompts), self.vocabulary, dtype=torch.bool, device=self.device)
        if self.vocabulary:
            for row, prompt in enumerate(prompts):
                seen[row, torch.tensor(list(prompt), device=self.device)] = True
        tokens, logprobs = self._chosen(logits, uniforms[:, 0], seen)
        at = torch.ones_like(tokens)
        if places:
            where = torch.tensor(list(places), device=self.device)
            self.cache.admit(where, cache)
            for own, fresh in zip(self._rows(), (tokens, at, uniforms, seen), strict=True):
                own[where] = fresh
        else:
            self.tokens, self.at, self.uniforms, self.seen, self.cache = tokens, at, uniforms, seen, cache
            self.said = torch.zeros(self.ahead, len(prompts), dtype=torch.long, device=self.device)
            self.logprobs = torch.zeros(self.said.shape, device=self.device)
            self.turn = torch.zeros(1, dtype=torch.long, device=self.device)
            self._graph = None
            if self.ahead > 1:
                self.cache.freeze()
        return tokens.tolist(), logprobs.tolist()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these."""
        kept = torch.tensor(list(rows), device=self.device)
        self.cache.keep(kept)
        self.tokens, self.at, self.uniforms, self.seen = (one[kept] for one in self._rows())
        self.said, self.logprobs = self.said[:, kept], self.logprobs[:, kept]

    def take(self, most: int) -> list[tuple[list[int], list[float]]]:
        """(rows,) tokens and log-probabilities of the next steps, `most` of them at most."""
        steps = min(most, self.ahead)
        self.turn.zero_()
        for _ in range(steps):
            self._advance()
        return list(zip(self.said[:steps].tolist(), self.logprobs[:steps].tolist(), strict=True))

    def _rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.tokens, self.at, self.uniforms, self.seen

    def _advance(self) -> None:
        """Sample one more token a row; with static shapes nothing here waits for the device."""
        worth_it = self.ahead > 1 and self.steps >= POLL  # making a graph takes as long as some steps
        if self.device.type == "cuda" and self.graphed and worth_it:
            self._graph = self._graph or self._captured()
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()

    def _step(self) -> None:
        logits = self.network.step(self.tokens, self.cache)
        uniform = self.uniforms.gather(1, self.at[:, None, None].expand(-1, 1, 2))[:, 0]
        tokens, logprobs = self._chosen(logits, uniform, self.seen)
        self.tokens.copy_(tokens)
        self.said.index_copy_(0, self.turn, tokens[None])
        self.logprobs.index_copy_(0, self.turn, logprobs[None])
        self.at.add_(1).clamp_(max=self.steps - 1)
        self.turn += 1

    def _chosen(self, logits: Tensor, uniform: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        if self.vocabulary:
            logits = choosing.penalise_repeats(logits, seen, self.sampling.repetition_penalty)
        tokens, logprobs = choosing.choose(logits, uniform, self.sampling)
        if self.vocabulary:
            seen.scatter_(1, tokens[:, None], True)
        return tokens, logprobs

    def _captured(self) -> Any:
        """The step as a CUDA graph, or None where torch cannot make one. The step runs once before that, as libraries
        want it, and what it changed is put back."""
        cache = self.cache
        state = [self.tokens, self.at, self.seen, self.said, self.logprobs, self.turn, cache.lengths, cache.mask]
        before = [one.clone() for one in state]
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
            one.copy_(was)
        return graph
