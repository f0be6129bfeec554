"""What a judge's answers mean: a score between 1 and 5, or how probably the first of two answers is the better one.

A pair is asked in both orders. With logits, those of "the first answer" are averaged over the orders before they become
a probability, so that a judge that prefers what stands first by any constant has no say by that; without them, the
probabilities are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from storage.feedback import log
from storage.feedback.kinds import RatingKind
from storage.feedback.unjudged import Item
from storage.records import Choice, Rating, Source
from trainer.judge.rubric import Question

UNDECIDED = 0.005  # this near to a half it is a tie


@dataclass(frozen=True)
class Verdict:
    """The answer to a question.

    Attributes:
        logits: the log-probability of each label, up to a constant; None where only `choice` is known.
        choice: the place of the label that was said, or is likeliest.
    """

    choice: int
    logits: tuple[float, ...] | None = None

    @classmethod
    def of(cls, logits: Sequence[float]) -> Verdict:
        return cls(max(range(len(logits)), key=logits.__getitem__), tuple(logits))

    def probabilities(self, count: int) -> list[float]:
        """Of each of so many labels."""
        if self.logits is None:
            return [float(place == self.choice) for place in range(count)]
        most = max(self.logits)
        weights = [math.exp(logit - most) for logit in self.logits]
        return [weight / sum(weights) for weight in weights]


class Judge(Protocol):
    """Who is asked."""

    def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        """The verdict on each; None where what was answered is none, an exception where the asking failed."""

    def tokens(self, question: Question) -> int:
        """About how many tokens a question costs, its answer included."""


def score(verdict: Verdict) -> float:
    """The expected score, from 1 to 5."""
    return sum(place * share for place, share in enumerate(verdict.probabilities(5), start=1))


def preference(in_order: Verdict, turned: Verdict) -> float:
    """How probably the first answer is the better one, from what was said with it as A, and with it as B."""
    if in_order.logits is None or turned.logits is None:
        return (in_order.probabilities(2)[0] + turned.probabilities(2)[1]) / 2
    margin = (in_order.logits[0] - in_order.logits[1] + turned.logits[1] - turned.logits[0]) / 2
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, margin))))


def rating(item: Item, verdicts: Sequence[Verdict], rater: str, guideline: str) -> Rating:
    """What a judge says of an item, as a rating."""
    said: dict[str, Any] = {"source": Source.AI, "guideline": guideline}
    if item.kind == RatingKind.SCORE:
        return log.score(item.answers[0].id, round(score(verdicts[0]), 2), rater, **said)
    first = round(preference(verdicts[0], verdicts[1]), 4)
    choice = Choice.TIE if abs(first - 0.5) < UNDECIDED else Choice.A if first > 0.5 else Choice.B
    one, other = item.answers
    return log.pair(one.id, other.id, choice, rater, value=first, blind=True, **said)
