"""Whether a judge knows what it judges: how well it foretells ratings that it never learned from."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.intervals import Interval, bootstrap_interval
from trainer.evaluation.measures import rank_correlation
from trainer.examples import Examples
from trainer.outcomes import outcomes
from trainer.reward.batches import encode
from trainer.reward.mixture import Mixture
from trainer.reward.model import RewardModel
from trainer.reward.protocol import Reward

# With fewer rated answers or prompts no agreement is told.
FEWEST_ROWS, FEWEST_PROMPTS = 8, 4


@dataclass(frozen=True)
class Judge:
    """What says at the gate how good answers are.

    Attributes:
        reward: its rewards.
        agreement: with ratings it never learned from, within languages; None where that is not known.
        lacks: why it is no judge of its own: too few ratings to fit one beside the reward that was optimised. Empty
            where it is one.
    """

    reward: Reward
    agreement: Interval | None = None
    lacks: str = ""

    @property
    def is_goal(self) -> bool:
        """Whether it is what was to be reached, rather than what somebody thinks of it: functions alone."""
        return isinstance(self.reward, Mixture) and self.reward.learned is None


def agreement(model: RewardModel, unseen: Examples) -> Interval | None:
    """Rank correlation of rewards and ratings of answers, both less their language's mean, with its 95% interval over
    prompts. None where there are too few to say.

    Between languages anything agrees with ratings that differ by language; shuffled ones do still.
    """
    found = outcomes(unseen)
    prompts = [one.response.prompt.id for one in found]
    if len(found) < FEWEST_ROWS or len(set(prompts)) < FEWEST_PROMPTS:
        return None
    encoded = [encode(model.backbone, one.response) for one in found]
    languages = [one.response.prompt.language for one in found]
    rewards = model.score_responses([asked for asked, _ in encoded], [said for _, said in encoded], languages).tolist()
    one, other = (np.array(centred(values, languages)) for values in (rewards, [outcome.value for outcome in found]))
    return bootstrap_interval(prompts, lambda chosen: rank_correlation(one[chosen], other[chosen]))


def centred(values: Sequence[float], groups: Sequence[str]) -> list[float]:
    """Values less the mean of their group."""
    by_group: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        by_group.setdefault(group, []).append(value)
    means = {group: statistics.fmean(own) for group, own in by_group.items()}
    return [value - means[group] for value, group in zip(values, groups, strict=True)]
