"""A learned reward and functions in one weighted sum; or functions alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from storage.wording import counted
from trainer.algorithms.rollouts import Rollout
from trainer.policy.layout import TokenLayout
from trainer.reward.function import LEARNED, RewardFunction, RewardFunctionError, curve_names
from trainer.reward.model import RewardModel
from trainer.reward.protocol import Reward, Scores


class Mixture:
    """`learned(x, y) + sum of weight * function(x, y)`, as a :class:`trainer.reward.protocol.Reward`.

    Functions are as sure of one answer as of another, and are taken as they are: nothing brings them to mean 0 and
    deviation 1. The parts are told before their weights.

    Args:
        learned: a fitted reward or a table, which weighs 1; None for functions alone.
    """

    def __init__(self, learned: Reward | None, functions: Sequence[RewardFunction]) -> None:
        self.learned = learned
        self.functions = list(functions)
        self.names = curve_names(functions)
        self._counts: dict[str, int] = {}  # of parts, by function

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        """The sum, and the states of the learned reward; those of the base model without one."""
        if self.learned is None:
            return self._sum(None, rollouts, layout.mask.device), reference
        said, states = self.learned.score(rollouts, trunk, layout, reference)
        return self._sum(said, rollouts, layout.mask.device), states

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        """The sum, of any number of answers.

        Raises:
            RewardFunctionError: a function failed on an answer.
        """
        said = self.learned.rate(rollouts) if self.learned is not None else None
        return self._sum(said, rollouts, torch.device("cpu"))

    def _sum(self, said: Scores | None, rollouts: Sequence[Rollout], device: torch.device) -> Scores:
        parts: dict[str, Tensor] = {}
        if said is None:
            said = Scores.certain(torch.zeros(len(rollouts), device=device))
        else:
            parts[LEARNED] = said.rewards
        total = torch.zeros_like(said.rewards)
        for name, function in zip(self.names, self.functions, strict=True):
            columns = torch.tensor(self._values(name, function, rollouts), dtype=total.dtype, device=total.device).T
            parts |= {name if len(columns) == 1 else f"{name}_part{n}": one for n, one in enumerate(columns, 1)}
            total = total + function.weight * columns.sum(0)
        return Scores(said.rewards + total, said.plain + total, said.outside, parts)

    def _values(self, name: str, function: RewardFunction, rollouts: Sequence[Rollout]) -> list[list[float]]:
        """What a function says; of how many parts is settled by what it says first."""
        values = function.values(rollouts)
        count = self._counts.setdefault(name, len(values[0]))
        if len(values[0]) != count:
            raise RewardFunctionError(
                f"{function.what} returned {counted(len(values[0]), 'part')} "
                f"for “{rollouts[0].text[:60]}”, and {count} before",
                "return the same number of parts for every answer",
            )
        return values


def model_of(reward: Reward) -> RewardModel | None:
    """The fitted model in a reward, alone or in a mixture; None where there is none."""
    learned = reward.learned if isinstance(reward, Mixture) else reward
    return learned if isinstance(learned, RewardModel) else None
