"""What moves a rating besides the answer's quality: the rater's habits, the side it stood on, and its length.

With the reward r of an answer, a rater's
- score is `offset + gain * r`,
- label is good with probability `sigma(leniency + gain * r)`,
- pair is won by the first with probability `sigma(gain * (r_1 - r_2) + side * s + gamma * log(tokens_1 / tokens_2))`,
  where s is 1 when the first stood left, -1 when it stood right and 0 when that is not known.

A gain is shared by all that a rater gives, and that of overall ratings is above 0. Another attribute than `overall`
is a habit of its own: its gain starts at a half, may fall to 0 or below, and its ratings weigh half, so that an
attribute that has nothing to do with the overall quality stops moving the reward.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainer.examples import OVERALL, Example, Habit

PRIOR = 2.0  # in ratings: it fades as there are more of them
ATTRIBUTE_GAIN = 0.5
ATTRIBUTE_WEIGHT = 0.5


class RatingEffects(nn.Module):
    """The habits by :class:`Habit`, and gamma; all are drawn towards having no effect.

    Place 0 is nobody in particular: offset, leniency and side 0, gain 1, never learned.

    Args:
        habits: those that occur.
        examples: how many are learned from; the more, the weaker the draw.
    """

    overall: Tensor

    def __init__(self, habits: Iterable[Habit], examples: int) -> None:
        super().__init__()
        ordered = sorted(set(habits))
        self.examples = examples
        self.index = {habit: place for place, habit in enumerate(ordered, start=1)}
        self.offset = nn.Parameter(torch.zeros(len(ordered)))
        self.bend = nn.Parameter(torch.zeros(len(ordered)))
        self.leniency = nn.Parameter(torch.zeros(len(ordered)))
        self.side = nn.Parameter(torch.zeros(len(ordered)))
        self.gamma = nn.Parameter(torch.zeros(()))
        overall = torch.tensor([habit.attribute == OVERALL for habit in ordered], dtype=torch.bool)
        self.register_buffer("overall", overall, persistent=False)

    @classmethod
    def of(cls, examples: Iterable[Example], count: int) -> RatingEffects:
        """Those that occur in some examples."""
        return cls((example.habit for example in examples if example.habit), count)

    def place(self, habit: Habit | None) -> int:
        """Where a habit stands; 0 for one that is not known."""
        return self.index.get(habit, 0) if habit else 0

    def gain(self, places: Tensor) -> Tensor:
        """(n,) places -> (n,) gains."""
        gains = torch.where(self.overall, self.bend.exp(), ATTRIBUTE_GAIN + self.bend)
        return _with_nobody(gains, 1.0)[places]

    def score(self, rewards: Tensor, places: Tensor) -> Tensor:
        """(n,) expected standardised scores."""
        return _with_nobody(self.offset)[places] + self.gain(places) * rewards

    def label(self, rewards: Tensor, places: Tensor) -> Tensor:
        """(n,) logits of a good label."""
        return _with_nobody(self.leniency)[places] + self.gain(places) * rewards

    def pair(self, margins: Tensor, places: Tensor, sides: Tensor, lengths: Tensor) -> Tensor:
        """(n,) logits that the first wins, from reward margins, sides and differences of log token counts."""
        return self.gain(places) * margins + _with_nobody(self.side)[places] * sides + self.gamma * lengths

    def penalty(self) -> Tensor:
        """What the draw costs."""
        parts = (self.offset, self.bend, self.leniency, self.side, self.gamma)
        squares = torch.stack([part.square().sum() for part in parts]).sum()
        return PRIOR * squares / max(1, self.examples)


def weight_of(habit: Habit | None) -> float:
    """How much a rating weighs by its attribute."""
    return 1.0 if habit is None or habit.attribute == OVERALL else ATTRIBUTE_WEIGHT


def _with_nobody(values: Tensor, nobody: float = 0.0) -> Tensor:
    return torch.cat([values.new_full((1,), nobody), values])
