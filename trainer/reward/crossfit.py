"""How well ratings foretell each other: each is foretold once, by a regression that saw nothing of its prompt.

In closed form a model costs so little that one is fitted for every fold of prompts, all languages in each (stratified
K-fold cross-validation), and again with half of the prompts, several times over: what twice as many ratings brought is
the best that is known of what twice as many again would bring.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Sequence

from storage.wording import counted
from trainer.evaluation.intervals import bootstrap_interval
from trainer.examples import Example, Response, fingerprint
from trainer.reward.folds import by_people, share_of_prompts
from trainer.reward.measure import comparisons, measure
from trainer.reward.regression import Answers, Choice, Regression, regress
from trainer.reward.report import (
    HELP,
    NO_GAIN,
    TOO_FEW,
    WORSE,
    Comparison,
    Curve,
    FitReport,
    LearningCurve,
)

FOLDS = 5
HALVES = 4  # how often half of the prompts are drawn
# From so many ratings on, five numbers that were chosen on all of them tell a model nothing of those it must foretell.
MANY = 400
# With fewer prompts that have two answers rated differently, nothing is said about more of them.
FEWEST_PROMPTS = 6


def cross_fit(answers: Answers, examples: Sequence[Example], everything: Regression, learned: int) -> FitReport:
    """The report of a fit, of all ratings.

    Args:
        everything: what all the examples tell; the raters' habits in the report are those it found.
        learned: how many of the examples the reported model learned from.
    """
    choice = everything.choice if len(examples) > MANY else None
    fold_of = prompt_folds(examples)
    rewards = foretold(answers, examples, fold_of, set(fold_of), choice)
    tokens = {response: answers.tokens[row] for response, row in answers.rows.items() if response in rewards}
    known = {response.prompt.id for response in rewards}
    foreseen = by_people([example for example in examples if example.prompt.id in known])
    found = measure(examples, foreseen, rewards, tokens, everything.effects.cpu(), everything.solution.loss)
    halves = [
        foretold(answers, examples, fold_of, share_of_prompts(examples, 0.5, f"half {number}"), choice)
        for number in range(HALVES)
    ]
    curve = learning_curve(foreseen, rewards, halves)
    return dataclasses.replace(
        found,
        examples=learned,
        folds=len(set(fold_of.values())),
        learning_curve=curve,
        reasons={name: reason for name, reason in found.reasons.items() if name != "learning_curve"},
    )


def prompt_folds(examples: Sequence[Example], count: int = FOLDS) -> dict[str, int]:
    """The fold of each prompt: folds differ by one prompt at most, in all and within each language."""
    by_language: dict[str, set[str]] = {}
    for example in examples:
        by_language.setdefault(example.prompt.language, set()).add(example.prompt.id)
    ordered = [
        prompt
        for _, prompts in sorted(by_language.items())
        for prompt in sorted(prompts, key=lambda prompt: fingerprint(f"fold {prompt}"))
    ]
    return {prompt: place % count for place, prompt in enumerate(ordered)}


def foretold(
    answers: Answers,
    examples: Sequence[Example],
    fold_of: dict[str, int],
    teaching: Collection[str],
    choice: Choice | None = None,
) -> dict[Response, float]:
    """The reward of each answer by a model of the other folds; none where a fold leaves nothing to learn from.

    Args:
        teaching: the prompts that models may learn from at all.
        choice: spreads, noise and level; each model chooses its own where it is None.
    """
    rewards: dict[Response, float] = {}
    for fold in sorted(set(fold_of.values())):
        learned = [one for one in examples if fold_of[one.prompt.id] != fold and one.prompt.id in teaching]
        if not learned:
            continue
        found = regress(answers, learned, choice)
        own = [response for response in answers.rows if fold_of.get(response.prompt.id) == fold]
        values = found.rewards(answers.features[[answers.rows[response] for response in own]]).tolist()
        rewards |= dict(zip(own, values, strict=True))
    return rewards


def learning_curve(
    examples: Sequence[Example], rewards: dict[Response, float], halves: Sequence[dict[Response, float]]
) -> LearningCurve:
    """Within-prompt accuracy with half of the ratings and with all, over all languages and by language."""
    every = comparisons(examples, rewards)
    half = [comparisons(examples, found) for found in halves if len(found) == len(rewards)]
    languages = sorted({one.language for one in every})

    def of(language: str | None) -> Curve:
        chosen = [place for place, one in enumerate(every) if language in (None, one.language)]
        return _curve([every[place] for place in chosen], [[found[place] for place in chosen] for found in half])

    return LearningCurve.of(of(None), {language: of(language) for language in languages})


def _curve(every: Sequence[Comparison], halves: Sequence[Sequence[Comparison]]) -> Curve:
    prompts = [one.prompt for one in every]
    count = len(set(prompts))
    if not halves or count < FEWEST_PROMPTS:
        reason = f"{counted(count, 'prompt')} with answers that were rated differently, {FEWEST_PROMPTS} are needed"
        if count >= FEWEST_PROMPTS:
            reason = "half of the ratings is nothing to learn from"
        return Curve(None, None, None, None, len(every), count, TOO_FEW, reason)
    whole = [one.right for one in every]
    half = [statistics.fmean(found[place].right for found in halves) for place in range(len(every))]
    gained = [more - less for more, less in zip(whole, half, strict=True)]
    gain = bootstrap_interval(prompts, lambda rows: float(statistics.fmean(gained[row] for row in rows)))
    assert gain is not None, "there are comparisons"
    assert gain.bounds is not None, "several prompts give a mean an interval"
    low, high = gain.bounds
    verdict = HELP if low > 0 else WORSE if high < 0 else NO_GAIN
    return Curve(statistics.fmean(half), statistics.fmean(whole), gain.mean, gain.bounds, len(every), count, verdict)
