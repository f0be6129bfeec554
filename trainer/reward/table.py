"""A table `{input: {output: score}}` as the reward itself: known answers get their score, others by likeness.

The likeness is a character n-gram F-score as in chrF (Popović 2015), with precision and recall weighing the same.
"""

from __future__ import annotations

import statistics
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from storage.errors import UsageError
from storage.wording import counted
from trainer.algorithms.rollouts import Rollout
from trainer.examples import OVERALL, Examples
from trainer.policy.layout import TokenLayout
from trainer.reward.protocol import Scores

LONGEST_GRAM = 6
Grams = list[Counter[str]]
Table = Mapping[str, Mapping[str, float]]


class TableReward:
    """The scores of a table, normalised to mean 0 and deviation 1 over its entries.

    An answer in the table gets its score. Any other gets `default + likeness * (score - default)`, with the score of
    the likest answer to that input and the table's mean as default; so an input that is not in the table gets the
    default, which is 0 after normalisation. Texts count as equal whatever their case, white space and Unicode form.

    It is a :class:`trainer.reward.protocol.Reward` that reads texts alone.
    """

    def __init__(self, table: Table, apart: Table | None = None) -> None:
        """Normalise a table.

        Args:
            apart: scores of held-out inputs, to measure by. They are normalised as the others and have no say in how:
                what is learned from the table's own inputs is the same with and without them.

        Raises:
            UsageError: the table is empty, or all its scores are equal.
        """
        means = _means(table)
        everything = [score for answers in means.values() for score in answers.values()]
        if len(set(everything)) < 2:
            raise UsageError(
                "a reward table needs two different scores; "
                f"this one has {counted(len(everything), 'entry', 'entries')} of "
                f"{counted(len(set(everything)), 'score')}",
                "score answers of training prompts higher and lower, or import a table with `workbench import FILE`",
            )
        self.mean = statistics.fmean(everything)
        self.deviation = statistics.pstdev(everything)
        self.entries = {
            asked: {answer: (score - self.mean) / self.deviation for answer, score in answers.items()}
            for asked, answers in {**_means(apart or {}), **means}.items()  # the table's own inputs are its own
        }
        self._grams = {asked: {answer: grams(answer) for answer in answers} for asked, answers in self.entries.items()}

    @classmethod
    def of(cls, examples: Examples, apart: Examples | None = None) -> TableReward:
        """The overall scores of a workspace; an answer that several raters scored has the mean of what they gave.

        Args:
            apart: of held-out prompts, to measure by.

        Raises:
            UsageError: there are no scores to learn from, or all are equal.
        """
        return cls(_table(examples), _table(apart or Examples()))

    def __len__(self) -> int:
        """How many entries there are."""
        return sum(map(len, self.entries.values()))

    def value(self, asked: str, answer: str) -> float:
        """The normalised reward of an answer to an input."""
        answers = self.entries.get(folded(asked), {})
        said = folded(answer)
        if said in answers:
            return answers[said]
        said_grams = grams(said)
        likeness, score = max(
            ((f_score(said_grams, known), answers[text]) for text, known in self._grams.get(folded(asked), {}).items()),
            default=(0.0, 0.0),
        )
        return likeness * score

    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        """The rewards of rollouts, by their text; a value is read from the base model's states."""
        rewards = self.rate(rollouts).rewards.to(layout.mask.device)
        return Scores.certain(rewards), reference

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        """The reward of each rollout."""
        return Scores.certain(
            torch.tensor([self.value(rollout.prompt.transcript, rollout.text) for rollout in rollouts])
        )


def _table(examples: Examples) -> dict[str, dict[str, float]]:
    """The mean overall score of each answer, by prompt."""
    given: dict[str, dict[str, list[float]]] = {}
    for score in examples.heard().scores:
        if score.attribute == OVERALL:
            value = score.value * score.weight
            given.setdefault(score.prompt.transcript, {}).setdefault(score.response.text, []).append(value)
    return {
        asked: {answer: statistics.fmean(values) for answer, values in answers.items()}
        for asked, answers in given.items()
    }


def _means(table: Table) -> dict[str, dict[str, float]]:
    """The table with its texts folded; what falls together has the mean of its scores."""
    entries: dict[str, dict[str, list[float]]] = {}
    for asked, answers in table.items():
        for answer, score in answers.items():
            entries.setdefault(folded(asked), {}).setdefault(folded(answer), []).append(score)
    return {
        asked: {answer: statistics.fmean(scores) for answer, scores in answers.items()}
        for asked, answers in entries.items()
    }


def folded(text: str) -> str:
    """A text without what makes no difference: composed (NFC), case folded, white space single and trimmed."""
    # Folding can take a composed text apart again.
    return unicodedata.normalize("NFC", " ".join(unicodedata.normalize("NFC", text).casefold().split()))


def grams(text: str) -> Grams:
    """How often each run of 1 to 6 characters occurs, by its length; white space does not count."""
    bare = "".join(text.split())
    return [
        Counter(bare[start : start + size] for start in range(len(bare) - size + 1))
        for size in range(1, LONGEST_GRAM + 1)
    ]


def f_score(one: Grams, other: Grams) -> float:
    """From 0 (nothing in common) to 1: the mean, over the lengths that either text reaches, of `2 common / total`."""
    shares = []
    for left, right in zip(one, other, strict=True):
        total = left.total() + right.total()
        if total:
            shares.append(2 * (left & right).total() / total)
    return statistics.fmean(shares) if shares else 0.0
