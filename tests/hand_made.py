"""Answers and verdicts made by hand, and samplers that the product has no use for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from storage.records import Prompt
from trainer.algorithms.rollouts import Rollout
from trainer.evaluation.seen import Side
from trainer.policy.adapters import Adapter
from trainer.policy.decoding import Completion, Decoder
from trainer.policy.llama import LlamaNetwork
from trainer.policy.models import weight_files
from trainer.policy.weights import Weights
from trainer.reward.protocol import Scores


def rollout(prompt: Prompt, tokens: Sequence[int], *, ended: bool = True, asked: Sequence[int] = (5, 6)) -> Rollout:
    """An answer of these tokens."""
    said = Completion(list(tokens), [-1.0] * len(tokens), "eos" if ended else "length")
    return Rollout(prompt, list(asked), said, " ".join(map(str, tokens)))


def scores(rewards: Sequence[float], outside: Sequence[bool] | None = None) -> Scores:
    """What a judge says, plainly."""
    plain = torch.tensor(list(rewards))
    return Scores(plain, plain, torch.tensor(list(outside or [False] * len(plain))))


def side(answers: Sequence[tuple[Prompt, int, bool, float]]) -> Side:
    """A side of answers (prompt, tokens, ended, reward), those of a prompt beside each other."""
    said = [rollout(prompt, range(3, 3 + tokens), ended=ended) for prompt, tokens, ended, _ in answers]
    return Side(said, scores([reward for *_, reward in answers]))


def merged(folder: Path, adapter: Adapter, dtype: torch.dtype) -> Decoder:
    """A sampler with an adapter added to its weights, which are then rounded to their number format."""
    plain = Decoder.load(folder, torch.device("cpu"), dtype)
    weights = Weights(weight_files(folder), adapter)
    network = LlamaNetwork(plain.config, weights, plain.device, dtype)
    return Decoder(folder, plain.config, network, plain.device, dtype)


class RewardByTokens:
    """A reward of the tokens alone, as a :class:`trainer.reward.protocol.Reward`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        return Scores.certain(torch.tensor([float(self.value(one.completion.token_ids)) for one in rollouts]))

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: Any, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        return self.rate(rollouts), reference
