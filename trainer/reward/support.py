"""Where a reward can be trusted: among answers like those that were rated.

A reward model says something about every text, also about those that nothing in its ratings resembles: one-word
answers after ratings of long ones. So what it says there is lowered by how little it knows. The posterior of its head
tells that of features (:mod:`trainer.reward.uncertainty`); of length and language, which the features may hold too
little of, an answer's distance to the rated ones tells it here. What is beyond their bounds is *outside*, and the share
of answers there is a figure and a gate of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

# The middle share of the rated answers' lengths, and of what the model was unsure of, that counts as rated territory.
INSIDE = 0.95
# Prior deviations of a reward, in its own deviations: per natural log unit of length beyond the rated lengths, and in a
# language in which nothing was rated. An answer a third as long as the shortest could be worth anything.
LENGTH_DEVIATION, LANGUAGE_DEVIATION = 2.0, 2.0
# Rounding of lengths to whole tokens must not put an answer outside.
LENGTH_SLACK = 0.05


class Support(msgspec.Struct, frozen=True):
    """What the rated answers were like.

    Attributes:
        shortest, longest: bounds of their lengths, tokens.
        languages: rated answers by language of the prompt.
        usual, unsure: the deviation of a reward that answers like the rated ones have on average, and that few of them
            exceed.
        best: the reward that few rated answers exceed; no other is taken to be better.
        count: rated answers.
    """

    shortest: float
    longest: float
    languages: dict[str, int]
    usual: float
    unsure: float
    best: float
    count: int

    @classmethod
    def of(
        cls, lengths: Sequence[int], languages: Sequence[str], rewards: Sequence[float], deviations: Sequence[float]
    ) -> Support:
        """Of rated answers: their lengths (tokens), languages and rewards; and the deviations of answers that were not
        learned from, or of the rated ones where there are no others."""
        tail = 50 * (1 - INSIDE)
        shortest, longest = np.percentile(lengths, [tail, 100 - tail])
        return cls(
            shortest=float(shortest),
            longest=float(longest),
            languages=dict(Counter(languages)),
            usual=float(np.mean(deviations)),
            unsure=float(np.percentile(deviations, 100 * INSIDE)),
            best=float(np.percentile(rewards, 100 - tail)),
            count=len(lengths),
        )

    def length_distance(self, tokens: int) -> float:
        """How far a length lies beyond the rated ones, in natural log units; 0 between them."""
        length = math.log(max(1, tokens))
        return max(0.0, math.log(self.shortest) - length, length - math.log(self.longest))

    def deviation(self, tokens: int, language: str, deviation: float) -> float:
        """The standard deviation of an answer's reward, with what length and language add to the posterior's."""
        of_length = LENGTH_DEVIATION * self.length_distance(tokens)
        of_language = 0.0 if language in self.languages else LANGUAGE_DEVIATION
        return math.sqrt(deviation**2 + of_length**2 + of_language**2)

    def is_outside(self, tokens: int, language: str, deviation: float) -> bool:
        """Whether nothing like this answer was rated; `deviation` is the posterior's."""
        far = self.length_distance(tokens) > LENGTH_SLACK
        return far or language not in self.languages or deviation > self.unsure
