"""What a reward model weighs in all: words, states, length and language, and what it makes of tags and raters.

The standard errors of what is fitted are those of the posterior; those of tags and languages are over answers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import msgspec
import torch

from storage.database import Database
from storage.feedback import tag_sheet
from storage.records import Begun, RatingKind, Split
from trainer.examples import Response, counting_ratings, stored_responses
from trainer.explaining.answer import PARTS
from trainer.reward.regression import Answers, Regression


class Mean(msgspec.Struct, frozen=True):
    """A mean over n answers with its standard error; None where there are too few to tell."""

    mean: float
    error: float | None
    n: int


class Weighs(msgspec.Struct, frozen=True):
    """What a reward model weighs in all, in deviations of the reward. Fields that end in `error` are standard errors.

    Attributes:
        parts: the deviation, over the rated answers, of what each part of the features gives.
        length_doubled: what an answer of twice as many tokens gains by that alone.
        in_language: what an answer that is surely in its prompt's language gains by that alone.
        longer_wins: of pairs, the logits that the logarithm of the ratio of lengths is taken for a rater's habit by.
        raters: the habits of each (and attribute): offset of scores, leniency of labels, leaning to the left of pairs.
            Habits are no part of the reward: the model keeps none of them.
        tags: what rated answers with a tag are rewarded above the others in their language.
        languages: what rated answers are rewarded, by the language of the prompt.
    """

    parts: dict[str, float]
    length_doubled: float
    in_language: float
    longer_wins: float
    raters: dict[str, dict[str, float]]
    length_doubled_error: float = 0.0
    in_language_error: float = 0.0
    longer_wins_error: float = 0.0
    tags: dict[str, Mean] = {}
    languages: dict[str, Mean] = {}


def tagged(database: Database, base_digest: str, begun: Begun | None) -> dict[Response, set[str]]:
    """The tags of answers to training prompts, as they counted when a job began: harms and flaws, and other names."""
    known = stored_responses(database, base_digest, Split.TRAIN)
    found: dict[Response, set[str]] = {}
    for event in counting_ratings(database, begun):
        if event.kind == RatingKind.TAGS and event.sample_id in known:
            said = tag_sheet.read(event.tags or {})
            found.setdefault(known[event.sample_id], set()).update({*said.degrees, *said.beside} - {"severity"})
    return found


@torch.no_grad()
def weighs(
    answers: Answers, found: Regression, deviation: float, tags: Mapping[Response, set[str]] | None = None
) -> Weighs:
    """What a fit gives for each part of what it reads, and what it takes for habits of raters instead.

    Args:
        deviation: of the reward. tags: of answers.
    """
    given = ((answers.features - found.centre) * found.weights / deviation).split(answers.parts, 1)
    parts = {name: float(part.sum(1).std()) for name, part in zip(PARTS, given, strict=True)}
    unit = answers.features.shape[1] ** -0.5  # what a number of 1 is among the features
    alone = torch.eye(answers.features.shape[1])[-2:]
    sure = found.posterior().difference_deviations(alone) * unit / deviation
    length, language = (found.weights[-2:] * unit / deviation).tolist()
    length_error, language_error = sure.tolist()
    effects, told = found.effects, len(found.turn)
    errors = torch.cholesky_inverse(found.solution.factor).diagonal().sqrt()[told + 1 :]
    habits = errors[:-1].view(3, -1)
    raters = {
        str(habit): {
            "offset": float(effects.offset[place - 1]),
            "leniency": float(effects.leniency[place - 1]),
            "side": float(effects.side[place - 1]),
            "offset_error": float(habits[0, place - 1]),
            "leniency_error": float(habits[1, place - 1]),
            "side_error": float(habits[2, place - 1]),
        }
        for habit, place in effects.index.items()
    }
    rewards = (found.rewards(answers.features) / deviation).tolist()
    by_language: dict[str, list[float]] = {}
    for response, row in answers.rows.items():
        by_language.setdefault(response.prompt.language, []).append(rewards[row])
    usual = {name: statistics.fmean(own) for name, own in by_language.items()}
    above = {response: rewards[row] - usual[response.prompt.language] for response, row in answers.rows.items()}
    return Weighs(
        parts, length * math.log(2), language, float(effects.gamma), raters,
        length_error * math.log(2), language_error, float(errors[-1]),
        _by_tag(above, tags or {}), {name: _mean(own) for name, own in sorted(by_language.items())},
    )  # fmt: skip


def _by_tag(above: Mapping[Response, float], tags: Mapping[Response, set[str]]) -> dict[str, Mean]:
    """Of each tag, the mean of answers that have it less that of those that have it not, and its error (Welch's)."""
    found = {}
    for name in sorted({tag for response in above for tag in tags.get(response, ())}):
        having = [value for response, value in above.items() if name in tags.get(response, ())]
        others = [value for response, value in above.items() if name not in tags.get(response, ())]
        own, rest = _mean(having), _mean(others)
        known = own.error is not None and rest.error is not None
        error = math.hypot(own.error or 0.0, rest.error or 0.0) if known else None
        found[name] = Mean(own.mean - rest.mean, error, own.n)
    return found


def _mean(values: Sequence[float]) -> Mean:
    if not values:
        return Mean(0.0, None, 0)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), error, len(values))
