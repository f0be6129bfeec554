"""One number for each rated answer: how well it was received, whatever kind of rating said so."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from storage.database import Database
from storage.errors import UsageError
from storage.feedback.outcome import of as told_of
from storage.records import Begun, Rating, RatingKind, Split
from storage.wording import counted
from trainer.examples import MIDDLE, OVERALL, Examples, Response, counting_ratings, stored_responses


@dataclass(frozen=True)
class Outcome:
    """How well an answer was received.

    Attributes:
        value: in standard deviations of a rater's scores; 0 is average.
        count: how many ratings say so.
    """

    response: Response
    value: float
    count: int


@dataclass(frozen=True)
class TextOutcome:
    """What came of an answer, told after the fact. `rating_id` is the event that told it.

    Attributes:
        text: why, in words; empty where that is not told.
        worked: None where that is not told.
        value: how well, in standard deviations, from the score that was told or else from whether it worked; None where
            words alone were.
    """

    response: Response
    text: str
    rating_id: str
    worked: bool | None = None
    value: float | None = None


def outcomes(examples: Examples, told: Sequence[TextOutcome] = ()) -> list[Outcome]:
    """One outcome for each rated answer, in the order in which the answers first appear.

    A score counts as it is (standardised by rater), a label as +1 or -1 times its weight, and the pairs of an answer
    together as one rating: the mean of +1 for each that it won, -1 for each that it lost, and 0 for each tie. (So an
    answer that was compared often does not drown its scores.) The outcome is the mean over the answer's ratings.
    Ratings of another attribute than `overall` are left out: a polite answer is not thereby a good one. A judge model
    has a say where no person has, as much as its weight.

    Args:
        told: what came of answers: one more rating of each where it says that it worked or failed, or how well.
    """
    said: dict[Response, list[float]] = {}
    compared: dict[Response, list[float]] = {}
    heard = examples.heard()
    for score in heard.scores:
        if score.attribute == OVERALL:
            said.setdefault(score.response, []).append(score.value * score.weight)
    for label in heard.labels:
        if label.attribute == OVERALL:
            said.setdefault(label.response, []).append(label.weight if label.good else -label.weight)
    for pair in heard.pairs:
        if pair.attribute != OVERALL:
            continue
        compared.setdefault(pair.first, []).append(pair.weight * (2 * pair.first_wins - 1))
        compared.setdefault(pair.second, []).append(pair.weight * (1 - 2 * pair.first_wins))
    for one in told:
        if one.value is not None:
            said.setdefault(one.response, []).append(one.value)
    found = []
    for response in dict.fromkeys([*said, *compared]):
        alone, beside = said.get(response, []), compared.get(response, [])
        values = [*alone, statistics.fmean(beside)] if beside else alone
        found.append(Outcome(response, statistics.fmean(values), len(alone) + len(beside)))
    return found


def text_outcomes(database: Database, base_digest: str, begun: Begun | None = None) -> list[TextOutcome]:
    """The effective outcomes that were told of answers to *training* prompts; as :func:`trainer.examples.collect`."""
    known = stored_responses(database, base_digest, Split.TRAIN)
    return [
        _told(known[event.sample_id], event)
        for event in counting_ratings(database, begun)
        if event.kind == RatingKind.OUTCOME and event.sample_id in known
    ]


def _told(response: Response, event: Rating) -> TextOutcome:
    """An outcome, its score by the middle of its scale (few are told, so that nobody's scores have a spread)."""
    found = told_of(event)
    value = None if found.worked is None else 1.0 if found.worked else -1.0
    if found.score is not None:
        (low, high), (middle, deviation) = found.scale, MIDDLE
        value = ((found.score - low) / (high - low) - middle) / deviation
    return TextOutcome(response, found.reason.strip(), event.id, found.worked, value)


def languages(found: Sequence[Outcome]) -> dict[str, int]:
    """Rated answers by language, the most frequent first."""
    return dict(Counter(outcome.response.prompt.language for outcome in found).most_common())


def check_enough(found: Sequence[Outcome], minimum: int, told: Sequence[TextOutcome] = ()) -> None:
    """Refuse to learn from too few rated answers, or from outcomes that are all the same.

    Args:
        told: outcomes in words, where the method learns from them too.

    Raises:
        UsageError: saying how many of what are missing.
    """
    told = [one for one in told if one.value is None]  # the others are among what was found
    counts = counted(len(found), "rated answer") + f" and {counted(len(told), 'outcome')} in words" * bool(told)
    missing = minimum - len(found) - len(told)
    if missing > 0:
        raise UsageError(
            f"too few ratings of training prompts to learn from: {counts}; {minimum} are needed",
            f"rate {counted(missing, 'more answer')}, or import ratings with `workbench import FILE`",
        )
    if not told and len({round(outcome.value, 6) for outcome in found}) < 2:
        raise UsageError(
            f"all {counts} have the same outcome ({found[0].value:+.2f}), so nothing tells good from bad",
            "rate at least one answer higher or lower than the others",
        )
