"""How well a fitted reward model agrees with ratings that it never saw, and what else moves the ratings."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainer.evaluation.intervals import bootstrap_interval
from trainer.evaluation.measures import Calibration, area_under_curve, calibration, rank_correlation, slope
from trainer.examples import OVERALL, Example, Labelled, Pair, Response, Scored
from trainer.reward.batches import responses_of, side_of
from trainer.reward.effects import RatingEffects

# A rank correlation of fewer scores says nothing.
FEWEST_SCORES = 5
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Agreement:
    """How often model and held-out ratings agree; None where there were too few to say.

    Attributes:
        spearman: rank correlation of reward and standardised score.
        pair_accuracy: share of decided pairs whose winner has the higher reward.
        label_accuracy: share of labels that the model, knowing the rater's leniency, foretells.
    """

    spearman: float | None
    spearman_n: int
    pair_accuracy: float | None
    pair_n: int
    label_accuracy: float | None
    label_n: int


@dataclass(frozen=True)
class RaterReport:
    """A rater's habits (:mod:`trainer.reward.effects`), how many of the ratings were learned from, and agreement."""

    offset: float
    gain: float
    leniency: float
    side: float
    learned: int
    agreement: Agreement


@dataclass(frozen=True)
class LanguageReport:
    """Mean reward, before normalisation, of the held-out answers in a language, how many they are, and agreement."""

    reward: float
    answers: int
    agreement: Agreement


@dataclass(frozen=True)
class FitReport:
    """The quality of a fit. Held-out figures are of overall ratings, with 95% intervals that draw whole prompts.

    Attributes:
        score_slope: of standardised scores on the predicted ones; 1 is calibrated.
        score_noise: variance of a standardised score around its prediction; 1 where too few were held out.
        gamma: what the log ratio of token counts adds to the logit of a pair.
        length_correlation: rank correlation of reward and log token count over `length_n` held-out answers.
        language_spread: standard deviation, between languages, of the mean reward.
    """

    examples: int
    held_out: int
    held_out_prompts: int
    train_loss: float
    spearman: float | None
    spearman_n: int
    spearman_interval: Bounds | None
    pair_accuracy: float | None
    pair_n: int
    pair_accuracy_interval: Bounds | None
    label_accuracy: float | None
    label_n: int
    label_accuracy_interval: Bounds | None
    label_auc: float | None
    label_auc_interval: Bounds | None
    pair_calibration: Calibration | None
    label_calibration: Calibration | None
    score_slope: float | None
    score_slope_interval: Bounds | None
    score_noise: float
    gamma: float
    length_correlation: float | None
    length_n: int
    language_spread: float | None
    languages: dict[str, LanguageReport]
    raters: dict[str, RaterReport]

    def sentence(self) -> str:
        """The figures in words, each with its sample size."""
        words = f"learned from {self.examples}, held out {self.held_out}"
        if self.spearman is not None:
            words += f", rank correlation {self.spearman:+.2f}{_span(self.spearman_interval, '+.2f')}"
            words += f" (n {self.spearman_n})"
        if self.pair_accuracy is not None:
            words += f", pair accuracy {self.pair_accuracy:.0%}{_span(self.pair_accuracy_interval, '.0%')}"
            words += f" (n {self.pair_n})"
        if self.label_accuracy is not None:
            words += f", label accuracy {self.label_accuracy:.0%}{_span(self.label_accuracy_interval, '.0%')}"
            words += f" (n {self.label_n})"
        return words


@dataclass(frozen=True)
class _Held:
    """A held-out example with what the model says of it.

    Attributes:
        reward: of the answer, or the margin of the first answer of a pair.
        predicted: the standardised score, or the probability of good or of the first winning.
        observed: the standardised score, or what came of it: 1, 0, or 0.5 for a tie.
    """

    example: Example
    reward: float
    predicted: float
    observed: float


def measure(
    learned: Sequence[Example],
    kept: Sequence[Example],
    rewards: Mapping[Response, float],
    tokens: Mapping[Response, int],
    effects: RatingEffects,
    loss: float,
) -> FitReport:
    """Compare rewards with ratings.

    Args:
        kept: the examples to measure with.
        rewards: of all their responses, before normalisation.
        effects: on the CPU.
        tokens: how many each of these responses has.
        loss: the last of the fit.
    """
    held = [_held(example, rewards, tokens, effects) for example in kept]
    overall = [row for row in held if row.example.attribute == OVERALL]
    scores, labels, pairs = _scores(overall), _labels(overall), _decided(overall)
    ranked, total = scores if len(scores) >= FEWEST_SCORES else [], agreement(overall)
    errors = [(row.predicted - row.observed) ** 2 for row in scores]
    counts = Counter(str(example.habit) for example in learned if example.habit)
    languages = _languages(overall, rewards)
    means = [language.reward for language in languages.values()]
    answers = sorted(tokens, key=lambda response: (response.prompt.id, response.text))
    return FitReport(
        examples=len(learned),
        held_out=len(kept),
        held_out_prompts=len({example.prompt.id for example in kept}),
        train_loss=loss,
        spearman=total.spearman,
        spearman_n=total.spearman_n,
        spearman_interval=_bounds(ranked, _spearman),
        pair_accuracy=total.pair_accuracy,
        pair_n=total.pair_n,
        pair_accuracy_interval=_bounds(pairs, _pair_accuracy),
        label_accuracy=total.label_accuracy,
        label_n=total.label_n,
        label_accuracy_interval=_bounds(labels, _label_accuracy),
        label_auc=_area(labels) if _both_kinds(labels) else None,
        label_auc_interval=_bounds(labels, _area) if _both_kinds(labels) else None,
        pair_calibration=_calibration(pairs),
        label_calibration=_calibration(labels),
        score_slope=_slope(ranked) if ranked else None,
        score_slope_interval=_bounds(ranked, _slope),
        score_noise=statistics.fmean(errors) if len(errors) >= 2 * FEWEST_SCORES else 1.0,
        gamma=float(effects.gamma.detach()),
        length_correlation=rank_correlation([rewards[a] for a in answers], [math.log(tokens[a]) for a in answers])
        if len(answers) >= FEWEST_SCORES
        else None,
        length_n=len(answers),
        language_spread=statistics.pstdev(means) if len(means) > 1 else None,
        languages=languages,
        raters=_raters(held, effects, counts),
    )


def agreement(held: Sequence[_Held]) -> Agreement:
    """The figures of some held-out examples."""
    scores, labels, pairs = _scores(held), _labels(held), _decided(held)
    return Agreement(
        _spearman(scores) if len(scores) >= FEWEST_SCORES else None,
        len(scores),
        _pair_accuracy(pairs) if pairs else None,
        len(pairs),
        _label_accuracy(labels) if labels else None,
        len(labels),
    )


@torch.no_grad()
def _held(
    example: Example, rewards: Mapping[Response, float], tokens: Mapping[Response, int], effects: RatingEffects
) -> _Held:
    place = torch.tensor([effects.place(example.habit)])
    match example:
        case Scored():
            reward, observed = rewards[example.response], example.value
            predicted = effects.score(torch.tensor([reward]), place)
        case Labelled():
            reward, observed = rewards[example.response], float(example.good)
            predicted = torch.sigmoid(effects.label(torch.tensor([reward]), place))
        case Pair():
            reward, observed = rewards[example.first] - rewards[example.second], example.first_wins
            length = math.log(tokens[example.first] / tokens[example.second])
            sides, lengths = torch.tensor([side_of(example)]), torch.tensor([length])
            predicted = torch.sigmoid(effects.pair(torch.tensor([reward]), place, sides, lengths))
    return _Held(example, reward, float(predicted), observed)


def _scores(held: Sequence[_Held]) -> list[_Held]:
    return [row for row in held if isinstance(row.example, Scored)]


def _labels(held: Sequence[_Held]) -> list[_Held]:
    return [row for row in held if isinstance(row.example, Labelled)]


def _decided(held: Sequence[_Held]) -> list[_Held]:
    return [row for row in held if isinstance(row.example, Pair) and row.observed != 0.5]


def _spearman(rows: Sequence[_Held]) -> float:
    return rank_correlation([row.reward for row in rows], [row.observed for row in rows])


def _pair_accuracy(rows: Sequence[_Held]) -> float:
    return statistics.fmean((row.reward > 0) == (row.observed > 0.5) for row in rows)


def _label_accuracy(rows: Sequence[_Held]) -> float:
    return statistics.fmean((row.predicted > 0.5) == (row.observed > 0.5) for row in rows)


def _area(rows: Sequence[_Held]) -> float:
    return area_under_curve([row.reward for row in rows], [row.observed > 0.5 for row in rows])


def _slope(rows: Sequence[_Held]) -> float:
    return slope([row.predicted for row in rows], [row.observed for row in rows])


def _both_kinds(labels: Sequence[_Held]) -> bool:
    return len({row.observed for row in labels}) == 2


def _calibration(rows: Sequence[_Held]) -> Calibration | None:
    return calibration([row.predicted for row in rows], [row.observed for row in rows]) if rows else None


def _bounds(rows: Sequence[_Held], figure: Callable[[list[_Held]], float]) -> Bounds | None:
    """The 95% interval of a figure; None where there are fewer than two prompts."""
    if not rows:
        return None

    def chosen(numbers: np.ndarray) -> float:
        return figure([rows[number] for number in numbers])

    found = bootstrap_interval([row.example.prompt.id for row in rows], chosen)
    return (found.low, found.high) if found.n > 1 else None


def _languages(held: Sequence[_Held], rewards: Mapping[Response, float]) -> dict[str, LanguageReport]:
    found = {}
    for language in sorted({row.example.prompt.language for row in held}):
        rows = [row for row in held if row.example.prompt.language == language]
        answers = {answer for row in rows for answer in responses_of(row.example)}
        mean = statistics.fmean(rewards[answer] for answer in answers)
        found[language] = LanguageReport(mean, len(answers), agreement(rows))
    return found


def _raters(held: Sequence[_Held], effects: RatingEffects, counts: Counter[str]) -> dict[str, RaterReport]:
    """By rater, and by "rater (attribute)" for other attributes than overall."""
    found = {}
    for habit, place in effects.index.items():
        gain = float(effects.gain(torch.tensor([place])).detach())
        offset, leniency, side = (
            float(values[place - 1].detach()) for values in (effects.offset, effects.leniency, effects.side)
        )
        theirs = [row for row in held if row.example.habit == habit]
        found[str(habit)] = RaterReport(offset, gain, leniency, side, counts[str(habit)], agreement(theirs))
    return found


def _span(bounds: Bounds | None, form: str) -> str:
    return f" [{bounds[0]:{form}}, {bounds[1]:{form}}]" if bounds else ""
