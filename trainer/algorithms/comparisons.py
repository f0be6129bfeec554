"""What comparisons teach with: pairs that somebody compared, pairs made from scores, and answers one by one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from storage.errors import UsageError
from storage.wording import counted
from trainer.algorithms.supervised import Row, make_row
from trainer.examples import OVERALL, Examples, Pair
from trainer.outcomes import Outcome, outcomes
from trainer.outcomes import check_enough as check_enough_outcomes
from trainer.policy.backbone import Backbone


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt; `wins` is 1 where the first is better, 0 where the second is, 0.5 for a tie."""

    first: Row
    second: Row
    wins: float

    @property
    def group(self) -> str:
        return self.first.group

    @property
    def language(self) -> str:
        return self.first.language

    def __len__(self) -> int:
        return max(len(self.first), len(self.second))


Item = Comparison | Row


def told(examples: Examples) -> list[Pair]:
    """The pairs that somebody compared, or made by an edit; of the overall attribute."""
    return [pair for pair in examples.pairs if pair.attribute == OVERALL and pair.first != pair.second]


def made(examples: Examples, margin: float) -> list[Pair]:
    """The pairs of answers to a prompt that nobody compared, but whose scores and labels differ by `margin` or more: in
    deviations of a rater's scores, where good is 1 and bad is -1."""
    compared = {frozenset((pair.first, pair.second)) for pair in examples.pairs}
    by_prompt: dict[str, list[Outcome]] = {}
    for outcome in outcomes(Examples(examples.scores, examples.labels)):
        by_prompt.setdefault(outcome.response.prompt.id, []).append(outcome)
    found = []
    for answers in by_prompt.values():
        for one, other in itertools.combinations(answers, 2):
            better, worse = (one, other) if one.value >= other.value else (other, one)
            pair = frozenset((better.response, worse.response))
            if better.value > worse.value and better.value - worse.value >= margin and pair not in compared:
                found.append(Pair(better.response, worse.response, 1.0))
    return found


def comparisons(backbone: Backbone, pairs: Sequence[Pair]) -> list[Comparison]:
    """Pairs as token ids; two answers of the same tokens teach nothing. What a judge model prefers is drawn to a tie by
    as much as its weight is below 1."""
    found = [
        Comparison(
            make_row(backbone, pair.first), make_row(backbone, pair.second), 0.5 + pair.weight * (pair.first_wins - 0.5)
        )
        for pair in pairs
    ]
    return [one for one in found if one.first.response != one.second.response]


def judged(backbone: Backbone, examples: Examples, minimum: int) -> list[Row]:
    """Answers one by one: good where their ratings are above their raters' means, won or good, else bad; those in the
    middle are left out. Raises UsageError: too few, or all alike."""
    found = outcomes(examples)
    check_enough_outcomes(found, minimum)
    rows = [make_row(backbone, one.response, outcome=one.value) for one in found if one.value]
    good = sum(row.outcome > 0 for row in rows)
    if not 0 < good < len(rows):
        raise UsageError(
            f"all {counted(len(rows), 'answer is', 'answers are')} {'good' if good else 'bad'}, "
            f"so nothing tells one from the other",
            f"rate at least one answer {'lower' if good else 'higher'} than the others",
        )
    return rows


def check_enough(pairs: Sequence[Pair], invented: Sequence[Pair], margin: float, minimum: int) -> None:
    """Refuse too few comparisons. Raises UsageError saying how many of what there are."""
    count = sum(pair.first_wins != 0.5 for pair in pairs) + len(invented)
    if count < minimum:
        raise UsageError(
            f"too few comparisons to learn from: {counted(len(pairs), 'pair or edit', 'pairs and edits')} "
            f"({len(pairs) + len(invented) - count} of them ties), and {len(invented)} made from scores and labels "
            f"that differ by {margin:g} or more; "
            f"{minimum} that prefer one answer are needed",
            "compare answers, correct some, or rate several answers to the same prompt differently; with --loss kto "
            "answers are learned from one by one",
        )
