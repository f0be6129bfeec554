"""Hindsight: learn from all answers, good and bad, by telling the model afterwards what became of each.

Two relabellings turn rated answers into rows to imitate:

- *instruction* (hindsight instruction relabelling, Zhang et al. 2023): the prompt is extended by a sentence that asks
  for the outcome that the answer then had. Outcomes in words are asked for in their own words.
- *chain* (chain of hindsight, Liu et al. 2023): a worse answer comes before a better one in a conversation; the loss
  is on the two answers, never on what was asked.

In both the best answers are learned under the plain prompt as well. So **the plain prompt means the best outcome**: the
model is served as it is and asked plainly, and nobody has to know the special sentences.

Grades are taken among the answers in the same language. So the best answer of each language is one of the highest
grade, though raters of that language may be harsh, or the model poor in it.

The sentences are in English whatever the language of the prompt, so that what a grade means is learned once for all.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from storage.errors import UsageError
from storage.records import Message, Prompt
from storage.wording import counted
from trainer.algorithms.supervised import Row, SupervisedLearner, make_row
from trainer.examples import Response
from trainer.outcomes import Outcome, TextOutcome
from trainer.outcomes import check_enough as check_outcomes
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot
from trainer.processes import Processes
from trainer.supervised_config import HindsightConfig, Relabelling

WORSE_FIRST = "First give a weaker answer."
THEN_BETTER = "Now give a better answer."


STAGE = "hindsight"


def hindsight(
    backbone: Backbone,
    found: Sequence[Outcome],
    told: Sequence[TextOutcome],
    config: HindsightConfig,
    seed: int,
    parent: Snapshot | None = None,
    processes: Processes | None = None,
) -> SupervisedLearner:
    """A learner that imitates relabelled answers.

    Args:
        told: what was told of answers; only the relabelling `instruction` learns from its words.
        parent: the version to go on from.
        processes: those that work on this together.

    Raises:
        UsageError: there are too few outcomes, nothing to compare, or the parent is of another kind.
    """
    learned = relabelled_rows(backbone, found, told, config)
    return SupervisedLearner(STAGE, backbone, learned, config, seed, parent, processes)


@dataclass(frozen=True)
class Relabelled:
    """An answer under what is asked for it afterwards: `messages` end with the sentence of hindsight, if there is one.

    `says` is what became of the answer, in a few words.
    """

    response: Response
    messages: tuple[Message, ...]
    says: str


def relabelled_rows(
    backbone: Backbone, found: Sequence[Outcome], told: Sequence[TextOutcome], config: HindsightConfig
) -> list[Row]:
    """The rows to imitate. Raises UsageError: there are too few outcomes, or nothing to compare."""
    check_enough(found, told, config)
    return rows_of(backbone, relabelled(found, told, config))


def relabelled(found: Sequence[Outcome], told: Sequence[TextOutcome], config: HindsightConfig) -> list[Relabelled]:
    """The answers as they will be learned from."""
    if config.relabelling == Relabelling.CHAIN:
        return chain(found)
    return instructions(found, told, config.levels)


def rows_of(backbone: Backbone, answers: Sequence[Relabelled]) -> list[Row]:
    """Relabelled answers as token ids."""
    encode = backbone.tokenizer.encode_messages
    return [make_row(backbone, one.response, encode(one.messages)) for one in answers]


def check_enough(found: Sequence[Outcome], told: Sequence[TextOutcome], config: HindsightConfig) -> None:
    """Refuse to learn from too little. Raises UsageError saying how many of what are missing."""
    if config.relabelling == Relabelling.INSTRUCTION:
        check_outcomes(found, config.minimum, told)
        return
    check_outcomes(found, config.minimum)
    if not comparisons(found):
        prompts = len({outcome.response.prompt.id for outcome in found})
        raise UsageError(
            f"no two of the {counted(len(found), 'rated answer')} (to {counted(prompts, 'prompt')}) "
            "answer the same prompt with different outcomes, so there is no worse and better to chain",
            "rate several answers to the same prompt, or use --relabelling instruction",
        )


def instructions(found: Sequence[Outcome], told: Sequence[TextOutcome], levels: int) -> list[Relabelled]:
    """Every answer under a prompt that asks for its outcome; those of the highest level under the plain prompt too.

    Levels are taken within each language: see :func:`grade_within`.
    """
    made = []
    languages = [outcome.response.prompt.language for outcome in found]
    grades = grade_within(languages, [outcome.value for outcome in found], levels)
    highest = max(grades, default=0)
    for outcome, level in zip(found, grades, strict=True):
        made.append(_asked_for(outcome.response, for_level(level, highest), f"grade {level} of {highest}"))
        if level == highest:
            made.append(_plain(outcome.response, f"grade {level} of {highest}, asked plainly"))
    said = ((one, sentence) for one in told if (sentence := for_told(one.text, one.worked)))
    return made + [_asked_for(one.response, sentence, "what was told of it") for one, sentence in said]


def chain(found: Sequence[Outcome]) -> list[Relabelled]:
    """Three rows for two answers to a prompt: the worse, the better after it, and the better under the plain prompt.

    The conversation before the better answer stands in its prompt, so that no loss is on it.
    """
    made: dict[Relabelled, None] = {}  # a set that keeps its order: the plain row of a best answer is wanted once
    for worse, better in comparisons(found):
        opening = _asked_with(worse.prompt, WORSE_FIRST)
        made[Relabelled(worse, opening, "the worse of two")] = None
        conversation = (*opening, Message("assistant", worse.text), Message("user", THEN_BETTER))
        made[Relabelled(better, conversation, "the better after the worse")] = None
        made[_plain(better, "the best, asked plainly")] = None
    return list(made)


def comparisons(found: Sequence[Outcome]) -> list[tuple[Response, Response]]:
    """(worse, better) answers to the same prompt: each with the best of its prompt, in turn where several are best."""
    by_prompt: dict[str, list[Outcome]] = {}
    for outcome in found:
        by_prompt.setdefault(outcome.response.prompt.id, []).append(outcome)
    pairs = []
    for answers in by_prompt.values():
        best = max(outcome.value for outcome in answers)
        winners = [outcome.response for outcome in answers if outcome.value == best]
        losers = [outcome.response for outcome in answers if outcome.value < best]
        pairs += [(worse, winners[place % len(winners)]) for place, worse in enumerate(losers)]
    return pairs


def grade(values: Sequence[float], levels: int) -> list[int]:
    """Grades from 1 (the worst) by quantile: equal values get the same grade, and no grade in between is unused.

    Where there are no more different values than levels, each value is a grade of its own.
    """
    distinct = sorted(set(values))
    ordered = sorted(values)
    quantile = {value: math.floor(levels * bisect_left(ordered, value) / len(values)) for value in distinct}
    rough = {value: place for place, value in enumerate(distinct)} if len(distinct) <= levels else quantile
    if len(set(rough.values())) == 1 < len(distinct):  # more than the rest share the best value
        rough = {value: int(value == distinct[-1]) for value in distinct}
    used = sorted(set(rough.values()))
    return [used.index(rough[value]) + 1 for value in values]


def grade_within(languages: Sequence[str], values: Sequence[float], levels: int) -> list[int]:
    """Grades among the answers in the same language: the worst of each has 1, the best the highest grade of all.

    A language that is rated low throughout would otherwise have no good answer to ask for. Languages with fewer than
    `levels` answers, or with answers that are all rated alike, are graded together; where those too are all alike, as
    all answers together would be.

    Args:
        languages: of each answer. values: how well it was received.
    """
    places: dict[str, list[int]] = {}
    for place, language in enumerate(languages):
        places.setdefault(language, []).append(place)
    comparable = [
        group for group in places.values() if len(group) >= levels and len({values[place] for place in group}) > 1
    ]
    alone = {place for group in comparable for place in group}
    pooled = [place for place in range(len(values)) if place not in alone]
    overall = grade(values, levels)
    graded: list[tuple[list[int], list[int], int]] = []  # places, their grades, and the highest that there is
    for group in [*comparable, pooled] if pooled else comparable:
        own = grade([values[place] for place in group], levels)
        if max(own) == 1:
            own = [overall[place] for place in group]
            graded.append((group, own, max(overall)))
        else:
            graded.append((group, own, max(own)))
    highest = max((top for _, _, top in graded), default=0)
    found = [0] * len(values)
    for group, own, top in graded:
        for place, level in zip(group, own, strict=True):
            found[place] = _stretched(level, top, highest)
    return found


def _stretched(level: int, top: int, highest: int) -> int:
    """A grade from 1 to `top` as one from 1 to `highest`: few grades lie as far apart as many, and none coincide."""
    return level if top in (1, highest) else 1 + round((level - 1) * (highest - 1) / (top - 1))


def for_level(level: int, highest: int) -> str:
    """The sentence that asks for an outcome."""
    return f"Answer so that a rater gives it {level} of {highest}."


def for_text(outcome: str) -> str:
    """The sentence that asks for an outcome told in words."""
    return f"Answer so that this happens: {outcome}"


def for_told(reason: str, worked: bool | None) -> str:
    """The sentence that asks for an outcome as it was told; empty where a score alone was told, which is a grade."""
    if worked is None:
        return for_text(reason) if reason else ""
    aim = "Answer so that it works" if worked else "Answer so that it fails"
    return f"{aim}, and this happens: {reason}" if reason else f"{aim}."


def extended(text: str, sentence: str) -> str:
    """The user's last message with a sentence of hindsight."""
    return f"{text}\n\n{sentence}"


def _asked_with(prompt: Prompt, sentence: str) -> tuple[Message, ...]:
    """The messages of a prompt, the last with a sentence of hindsight."""
    *earlier, last = prompt.messages
    return (*earlier, Message("user", extended(last.content, sentence)))


def _asked_for(response: Response, sentence: str, says: str) -> Relabelled:
    return Relabelled(response, _asked_with(response.prompt, sentence), says)


def _plain(response: Response, says: str) -> Relabelled:
    return Relabelled(response, response.prompt.messages, says)
