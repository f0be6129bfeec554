"""Rewards of a fitted model beside ratings that it never saw: each figure of a report, or why there is none."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from storage.wording import counted
from trainer.evaluation.intervals import bootstrap_interval
from trainer.evaluation.measures import Calibration, area_under_curve, calibration, rank_correlation, slope
from trainer.examples import OVERALL, Example, Habit, Labelled, Pair, Response, Scored
from trainer.reward.batches import responses_of, side_of
from trainer.reward.effects import RatingEffects
from trainer.reward.report import Agreement, Bounds, Comparison, FitReport, LanguageReport, RaterReport

# A rank correlation of fewer scores says nothing.
FEWEST_SCORES = 5
Row = TypeVar("Row")


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
    languages = _languages(overall, rewards)
    means = [language.reward for language in languages.values()]
    answers = sorted(tokens, key=lambda response: (response.prompt.id, response.text))
    lengths, valued = [math.log(tokens[answer]) for answer in answers], [rewards[answer] for answer in answers]
    compared, levels = _comparisons(overall), _levels(overall)
    errors = [(row.predicted - row.observed) ** 2 for row in scores]
    why = {
        "within_prompt_accuracy": "" if compared else "no two held-out answers to a prompt were rated differently",
        "between_prompts_spearman": _few(levels, "prompts of languages that have another one")
        or _alike([level.observed for level in levels], "prompts' mean ratings")
        or _alike([level.reward for level in levels], "prompts' mean rewards"),
        "spearman": _few(scores, "scores") or _alike([row.observed for row in scores], "scores")
        or _alike([row.reward for row in scores], "rewards of scored answers"),
        "pair_accuracy": "" if pairs else "no decided pair was held out",
        "pair_calibration": "" if pairs else "no decided pair was held out",
        "label_accuracy": "" if labels else "no label was held out",
        "label_calibration": "" if labels else "no label was held out",
        "label_auc": _one_sided(labels),
        "score_slope": _few(scores, "scores") or _alike([row.predicted for row in scores], "predicted scores"),
        "score_noise": _few(scores, "scores", 2 * FEWEST_SCORES),
        "gamma": "" if any(isinstance(one, Pair) for one in learned) else "no pair was learned from",
        "length_correlation": _few(answers, "answers") or _alike(lengths, "lengths of answers")
        or _alike(valued, "rewards of answers"),
        "learning_curve": "one model was measured, on ratings kept apart from it",
        "language_spread": "" if len(means) > 1 else f"answers in {len(means)} of 2 languages were held out",
    }  # fmt: skip
    within = bootstrap_interval([one.prompt for one in compared], _of(compared, _accuracy))
    between = bootstrap_interval([one.prompt for one in levels], _of(levels, _level_correlation))
    intervals = {
        name: bootstrap_interval([row.example.prompt.id for row in rows], _of(rows, figure))
        for name, rows, figure in (
            ("spearman", scores, _spearman),
            ("pair_accuracy", pairs, _pair_accuracy),
            ("label_accuracy", labels, _label_accuracy),
            ("label_auc", labels, _area),
            ("score_slope", scores, _slope),
        )
        if not why[name]
    }
    for name, found in (("within_prompt_accuracy", within), ("between_prompts_spearman", between)):
        if found is not None and not why[name]:
            intervals[name] = found
    reasons = {name: reason for name, reason in why.items() if reason}
    for name in (
        "within_prompt_accuracy", "between_prompts_spearman", "spearman", "pair_accuracy", "label_accuracy",
        "label_auc", "score_slope",
    ):  # fmt: skip
        found = intervals.get(name)
        if found is None or not found.bounded:
            reasons[f"{name}_interval"] = reasons.get(name) or (found.reason if found else "not told by the ratings")

    def value(name: str) -> float | None:
        found = intervals.get(name)
        return found.mean if found else None

    def bounds(name: str) -> Bounds | None:
        found = intervals.get(name)
        return found.bounds if found else None

    return FitReport(
        examples=len(learned),
        held_out=len(kept),
        held_out_prompts=len({example.prompt.id for example in kept}),
        train_loss=loss,
        within_prompt_accuracy=value("within_prompt_accuracy"),
        within_prompt_n=len(compared),
        within_prompt_prompts=len({one.prompt for one in compared}),
        within_prompt_accuracy_interval=bounds("within_prompt_accuracy"),
        between_prompts_spearman=value("between_prompts_spearman"),
        between_prompts_n=len(levels),
        between_prompts_spearman_interval=bounds("between_prompts_spearman"),
        spearman=value("spearman"),
        spearman_n=len(scores),
        spearman_interval=bounds("spearman"),
        pair_accuracy=value("pair_accuracy"),
        pair_n=len(pairs),
        pair_accuracy_interval=bounds("pair_accuracy"),
        label_accuracy=value("label_accuracy"),
        label_n=len(labels),
        label_accuracy_interval=bounds("label_accuracy"),
        label_auc=value("label_auc"),
        label_auc_interval=bounds("label_auc"),
        pair_calibration=_calibration(pairs),
        label_calibration=_calibration(labels),
        score_slope=value("score_slope"),
        score_slope_interval=bounds("score_slope"),
        score_noise=None if why["score_noise"] else statistics.fmean(errors),
        gamma=None if why["gamma"] else float(effects.gamma.detach()),
        length_correlation=None if why["length_correlation"] else rank_correlation(valued, lengths),
        length_n=len(answers),
        language_spread=None if why["language_spread"] else statistics.pstdev(means),
        languages=languages,
        raters=_raters(held, effects, learned),
        reasons=reasons,
    )


def comparisons(examples: Sequence[Example], rewards: Mapping[Response, float]) -> list[Comparison]:
    """All pairs of answers to a prompt that an overall rating tells apart: scores and labels of one rater that differ,
    and decided pairs."""
    return _comparisons([_plain(one, rewards) for one in examples if one.attribute == OVERALL])


def agreement(held: Sequence[_Held]) -> Agreement:
    """The figures of some held-out examples."""
    scores, labels, pairs = _scores(held), _labels(held), _decided(held)
    why = {
        "spearman": _few(scores, "scores") or _alike([row.observed for row in scores], "scores")
        or _alike([row.reward for row in scores], "rewards of scored answers"),
        "pair_accuracy": "" if pairs else "no decided pair was held out",
        "label_accuracy": "" if labels else "no label was held out",
    }  # fmt: skip
    return Agreement(
        None if why["spearman"] else _spearman(scores),
        len(scores),
        _pair_accuracy(pairs) if pairs else None,
        len(pairs),
        _label_accuracy(labels) if labels else None,
        len(labels),
        {name: reason for name, reason in why.items() if reason},
    )


def _few(found: Sequence[object], what: str, needed: int = FEWEST_SCORES) -> str:
    """Why a figure of so few says nothing; empty where there are enough."""
    return "" if len(found) >= needed else f"{len(found)} {what} were held out, {needed} are needed"


def _alike(values: Sequence[float], what: str) -> str:
    """Why values that are all the same say nothing; empty where they differ."""
    return "" if len(set(values)) > 1 else f"all {len(values)} held-out {what} are equal"


def _one_sided(labels: Sequence[_Held]) -> str:
    if not labels:
        return "no label was held out"
    kinds = {row.observed for row in labels}
    return (
        ""
        if len(kinds) > 1
        else f"all {counted(len(labels), 'held-out label is', 'held-out labels are')} "
        f"{'good' if kinds == {1.0} else 'bad'}"
    )


def _of(rows: Sequence[Row], figure: Callable[[list[Row]], float | None]) -> Callable[[np.ndarray], float | None]:
    """A figure of the rows of some numbers."""
    return lambda numbers: figure([rows[number] for number in numbers])


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


def _plain(example: Example, rewards: Mapping[Response, float]) -> _Held:
    """An example with its reward, and nothing predicted."""
    match example:
        case Scored():
            return _Held(example, rewards[example.response], math.nan, example.value)
        case Labelled():
            return _Held(example, rewards[example.response], math.nan, float(example.good))
        case Pair():
            return _Held(example, rewards[example.first] - rewards[example.second], math.nan, example.first_wins)


def _comparisons(held: Sequence[_Held]) -> list[Comparison]:
    together: dict[tuple[str, type, Habit | None], list[_Held]] = {}
    for row in (*_scores(held), *_labels(held)):
        together.setdefault((row.example.prompt.id, type(row.example), row.example.habit), []).append(row)
    found = []
    for rows in together.values():
        for one, other in itertools.combinations(rows, 2):
            if one.observed != other.observed:
                found.append(_compared(one, one.reward - other.reward, one.observed > other.observed))
    return found + [_compared(row, row.reward, row.observed > 0.5) for row in _decided(held)]


def _compared(row: _Held, margin: float, better: bool) -> Comparison:
    right = 0.5 if margin == 0 else float((margin > 0) == better)
    return Comparison(row.example.prompt.id, row.example.prompt.language, right)


@dataclass(frozen=True)
class _Level:
    """A prompt's mean reward and mean rating, less those of its language's prompts."""

    prompt: str
    reward: float
    observed: float


def _levels(held: Sequence[_Held]) -> list[_Level]:
    """Of prompts whose answers have scores or labels (a label counts 1 or -1), in languages that have several."""
    of_prompt: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in (*_scores(held), *_labels(held)):
        observed = row.observed if isinstance(row.example, Scored) else 2 * row.observed - 1
        prompt = row.example.prompt
        of_prompt.setdefault((prompt.language, prompt.id), []).append((row.reward, observed))
    means = {key: tuple(statistics.fmean(part) for part in zip(*rows, strict=True)) for key, rows in of_prompt.items()}
    found = []
    for language in sorted({language for language, _ in means}):
        own = {prompt: both for (spoken, prompt), both in means.items() if spoken == language}
        if len(own) > 1:
            reward, observed = (statistics.fmean(part) for part in zip(*own.values(), strict=True))
            found += [_Level(prompt, both[0] - reward, both[1] - observed) for prompt, both in own.items()]
    return found


def _accuracy(compared: Sequence[Comparison]) -> float:
    return statistics.fmean(one.right for one in compared)


def _level_correlation(levels: Sequence[_Level]) -> float | None:
    return rank_correlation([one.reward for one in levels], [one.observed for one in levels])


def _scores(held: Sequence[_Held]) -> list[_Held]:
    return [row for row in held if isinstance(row.example, Scored)]


def _labels(held: Sequence[_Held]) -> list[_Held]:
    return [row for row in held if isinstance(row.example, Labelled)]


def _decided(held: Sequence[_Held]) -> list[_Held]:
    return [row for row in held if isinstance(row.example, Pair) and row.observed != 0.5]


def _spearman(rows: Sequence[_Held]) -> float | None:
    return rank_correlation([row.reward for row in rows], [row.observed for row in rows])


def _pair_accuracy(rows: Sequence[_Held]) -> float:
    return statistics.fmean((row.reward > 0) == (row.observed > 0.5) for row in rows)


def _label_accuracy(rows: Sequence[_Held]) -> float:
    return statistics.fmean((row.predicted > 0.5) == (row.observed > 0.5) for row in rows)


def _area(rows: Sequence[_Held]) -> float | None:
    return area_under_curve([row.reward for row in rows], [row.observed > 0.5 for row in rows])


def _slope(rows: Sequence[_Held]) -> float | None:
    return slope([row.predicted for row in rows], [row.observed for row in rows])


def _calibration(rows: Sequence[_Held]) -> Calibration | None:
    return calibration([row.predicted for row in rows], [row.observed for row in rows])


def _languages(held: Sequence[_Held], rewards: Mapping[Response, float]) -> dict[str, LanguageReport]:
    found = {}
    for language in sorted({row.example.prompt.language for row in held}):
        rows = [row for row in held if row.example.prompt.language == language]
        answers = {answer for row in rows for answer in responses_of(row.example)}
        mean = statistics.fmean(rewards[answer] for answer in answers)
        found[language] = LanguageReport(mean, len(answers), agreement(rows))
    return found


def _raters(held: Sequence[_Held], effects: RatingEffects, learned: Sequence[Example]) -> dict[str, RaterReport]:
    """By rater, and by "rater (attribute)" for other attributes than overall."""
    counts = Counter((one.habit, type(one)) for one in learned)
    sided = {one.habit for one in learned if isinstance(one, Pair) and one.first_left is not None}

    def told(values: torch.Tensor, place: int, *, shown: bool) -> float | None:
        return float(values[place - 1].detach()) if shown else None

    found = {}
    for habit, place in effects.index.items():
        scores, labels, pairs = (counts[habit, kind] for kind in (Scored, Labelled, Pair))
        count = scores + labels + pairs
        found[str(habit)] = RaterReport(
            offset=told(effects.offset, place, shown=scores > 0),
            gain=float(effects.gain(torch.tensor([place])).detach()) if count else None,
            leniency=told(effects.leniency, place, shown=labels > 0),
            side=told(effects.side, place, shown=habit in sided),
            learned=count,
            agreement=agreement([row for row in held if row.example.habit == habit]),
        )
    return found
