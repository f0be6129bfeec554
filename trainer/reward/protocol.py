"""What a policy learner needs of a reward: a fitted model gives it, and so does a table of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from trainer.algorithms.rollouts import Rollout
from trainer.policy.layout import TokenLayout


class Reward(Protocol):
    """Says how good answers are, on a scale of mean 0 and deviation 1."""

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rewards of a batch that is laid out already, and states from which a value can be read.

        Args:
            rollouts: B answers.
            trunk: (N, hidden) of their tokens after the lower layers of the backbone.
            layout: where the tokens stand.
            reference: (N, hidden) after all layers of the base model.

        Returns:
            rewards (B,), and a state of every token (N, hidden).
        """
        ...

    def score_rollouts(self, rollouts: Sequence[Rollout]) -> list[float]:
        """The rewards of any number of answers."""
        ...
