"""Which ratings teach the reward that is optimised, and which the judge: two models that share no prompt.

A policy finds what a reward model is wrong about. A judge that learned from other prompts is wrong about other things,
and each can be measured on what the other learned from: every rating is foretold once by a model that never saw it.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from trainer.config import Control
from trainer.examples import Example, Examples, Labelled, Pair, Scored, fingerprint

# With fewer ratings a judge knows too little to be asked.
FEWEST_JUDGED = 12
Item = TypeVar("Item")


def folds(examples: Examples, share: float, minimum: int) -> tuple[Examples, Examples]:
    """Examples for the reward that is optimised, and for the judge; all of a prompt's go the same way.

    Prompts are shared out within each language, in a fixed pseudo-random order. The judge gets nothing where the other
    would be left with fewer than `minimum`, or the judge itself with too few.

    Args:
        share: of the prompts, for the judge.
    """
    chosen = share_of_prompts(examples.every(), share, "judge")
    judge = _those(examples, lambda example: example.prompt.id in chosen)
    optimised = _those(examples, lambda example: example.prompt.id not in chosen)
    if judge.count() < FEWEST_JUDGED or optimised.count() < minimum:
        return examples, Examples()
    return optimised, judge


def without(examples: Examples, prompts: set[str]) -> Examples:
    """The examples of all other prompts."""
    return _those(examples, lambda example: example.prompt.id not in prompts)


def shuffled(examples: Examples, seed: int) -> Examples:
    """What was said, permuted among the examples of the same kind and language: what is rated stays, and how the
    ratings are spread, but nothing tells good from bad any more."""
    generator = random.Random(f"{seed} control")

    def permuted(found: Sequence[Item], put: Callable[[Item, Item], Item]) -> list[Item]:
        by_language: dict[str, list[int]] = {}
        for place, example in enumerate(found):
            by_language.setdefault(example.prompt.language, []).append(place)  # type: ignore[attr-defined]
        made = list(found)
        for places in by_language.values():
            others = generator.sample(places, len(places))
            for place, other in zip(places, others, strict=True):
                made[place] = put(found[place], found[other])
        return made

    def turned(pair: Pair) -> Pair:
        """Which of two answers stands first says who won: told anew by lot before winners are permuted."""
        if generator.random() < 0.5:
            return pair
        left = None if pair.first_left is None else not pair.first_left
        return dataclasses.replace(
            pair, first=pair.second, second=pair.first, first_wins=1 - pair.first_wins, first_left=left
        )

    def said(other: Example) -> dict[str, Any]:
        """Who said it, and how much it weighs."""
        return {name: getattr(other, name) for name in ("rater", "attribute", "weight", "by_judge")}

    def scored(one: Scored, other: Scored) -> Scored:
        return dataclasses.replace(one, value=other.value, **said(other))

    def labelled(one: Labelled, other: Labelled) -> Labelled:
        return dataclasses.replace(one, good=other.good, **said(other))

    def paired(one: Pair, other: Pair) -> Pair:
        return dataclasses.replace(one, first_wins=other.first_wins, **said(other))

    return Examples(
        permuted(examples.scores, scored),
        permuted(examples.labels, labelled),
        permuted([turned(pair) for pair in examples.pairs], paired),
        list(examples.rating_ids),
    )


def controlled(examples: Examples, control: Control, seed: int) -> Examples:
    """What a run learns from: the ratings, or those of a control."""
    return shuffled(examples, seed) if control == Control.SHUFFLED else examples


def by_people(examples: Sequence[Example]) -> list[Example]:
    """What a reward is measured by: what people said, and only where they said nothing at all what judge models did."""
    return [example for example in examples if not example.by_judge] or list(examples)


def to_measure(examples: Examples) -> Examples:
    """The same of examples by kind."""
    kept = set(map(id, by_people(examples.every())))
    return _those(examples, lambda example: id(example) in kept)


def share_of_prompts(examples: Sequence[Example], share: float, salt: str) -> set[str]:
    """A share of the prompts of each language, by a fixed pseudo-random order that depends on the salt."""
    by_language: dict[str, set[str]] = {}
    for example in examples:
        by_language.setdefault(example.prompt.language, set()).add(example.prompt.id)
    chosen: set[str] = set()
    owed = 0.0  # what rounding has kept from the share so far, so that many small languages give theirs together
    for _, prompts in sorted(by_language.items()):
        owed += share * len(prompts)
        ordered = sorted(prompts, key=lambda prompt: fingerprint(f"{salt} {prompt}"))
        chosen.update(ordered[: round(owed)])
        owed -= round(owed)
    return chosen


def _those(examples: Examples, wanted: Callable[[Example], bool]) -> Examples:
    return Examples(
        [one for one in examples.scores if wanted(one)],
        [one for one in examples.labels if wanted(one)],
        [one for one in examples.pairs if wanted(one)],
        examples.rating_ids,
    )
