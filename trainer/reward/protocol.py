"""What a policy learner and the gate need of a reward: a fitted model gives it, and so do other sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from trainer.algorithms.rollouts import Rollout
from trainer.policy.layout import TokenLayout


@dataclass(frozen=True)
class Scores:
    """How good B answers are, (B,) each, on a scale of mean 0 and deviation 1.

    Attributes:
        rewards: what is learned from and judged by: a lower confidence bound where the source knows its uncertainty.
        plain: its best guess.
        outside: true where nothing like the answer was ever rated.
        parts: what a reward of several parts says of each, by name, before their weights.
    """

    rewards: Tensor
    plain: Tensor
    outside: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def certain(cls, rewards: Tensor) -> Scores:
        """Of a source that is as sure of one answer as of another."""
        return cls(rewards, rewards, torch.zeros_like(rewards, dtype=torch.bool))


class Reward(Protocol):
    """Says how good answers are, on a scale of mean 0 and deviation 1."""

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        """The rewards of a batch that is laid out already, and states from which a value can be read.

        Args:
            rollouts: B answers.
            trunk: (N, hidden) of their tokens after the lower layers of the backbone.
            layout: where the tokens stand.
            reference: (N, hidden) after all layers of the base model.

        Returns:
            what is said of each answer, and a state of every token (N, hidden).
        """
        ...

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        """The rewards of any number of answers."""
        ...


class ConstantReward:
    """The same for every answer: a control, in which whatever a run gains is no gain in reward."""

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        """Zeros; a value is read from the base model's states."""
        return Scores.certain(torch.zeros(len(rollouts), device=layout.mask.device)), reference

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        """Zeros."""
        return Scores.certain(torch.zeros(len(rollouts)))
