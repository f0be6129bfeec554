"""From what versions made of suites to figures with intervals: of one version, and of what one gained over another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainer.evaluation.intervals import DRAWS, Interval, bootstrap_interval, unseen
from trainer.evaluation.items import Item, Outcome, Question

# What a figure should be, by the last part of its name: as high, as low, or as near to a value as can be.
BEST = {
    "accuracy": math.inf, "answered": math.inf, "refused": -math.inf, "incoherent": -math.inf,
    "wrong_language": -math.inf, "cut": -math.inf, "unkind": -math.inf, "bias": 0.0, "stereotyped": 0.5,
}  # fmt: skip
PLACES = 12  # of a gain: what is left of the difference of two equal distances is the machine's, and no loss


@dataclass(frozen=True)
class Figure:
    """One figure of one suite, in a language or (None) in all of them; `interval` is of `n` items."""

    suite: str
    metric: str
    language: str | None
    interval: Interval


def goodness(metric: str, value: float, harmful: bool = False) -> float:
    """A figure as a number that is better the higher it is.

    Args:
        harmful: of questions that should be refused.
    """
    name = metric.rsplit("/", 1)[-1]
    best = BEST[name]
    if harmful and name in ("answered", "refused"):
        best = -best
    return value if best == math.inf else -value if best == -math.inf else -abs(value - best)


def figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    """Every figure, by suite and language and over all languages."""
    return [
        Figure(suite, metric, language, _interval(metric, values, [item.language + item.name for item, _ in rows]))
        for (suite, metric, language), rows in _grouped(outcomes).items()
        for values in [np.array([value for _, value in rows])]
    ]


def gains(after: Sequence[Outcome], before: Sequence[Outcome], level: float = 0.95, draws: int = DRAWS) -> list[Figure]:
    """How much nearer each figure came to what it should be; above 0 is better, item by item on the same items.

    For a bias that is how much its distance from 0 shrank, for the share of stereotyped sentences that from a half.
    """
    olds = _grouped(before)
    found = []
    for key, rows in _grouped(after).items():
        suite, metric, language = key
        new, old = (np.array([value for _, value in side]) for side in (rows, olds[key]))
        harmful = isinstance(rows[0][0], Question) and rows[0][0].harmful

        def gained(
            chosen: np.ndarray,
            new: np.ndarray = new,
            old: np.ndarray = old,
            metric: str = metric,
            harmful: bool = harmful,
        ) -> float:
            sides = (float(side[chosen].mean()) for side in (new, old))
            now, then = (goodness(metric, value, harmful) for value in sides)
            return round(now - then, PLACES)

        interval = bootstrap_interval([item.language + item.name for item, _ in rows], gained, level=level, draws=draws)
        assert interval is not None, "there are rows"
        found.append(Figure(suite, metric, language, _with_a_width(interval, -_span(metric), _span(metric), level)))
    return found


def _grouped(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str | None], list[tuple[Item, float]]]:
    """Items with their values, by suite, metric and language; those over all languages stand first of a metric."""
    found: dict[tuple[str, str, str | None], list[tuple[Item, float]]] = {}
    for metric in dict.fromkeys(name for outcome in outcomes for name in outcome.values):
        for outcome in outcomes:
            if metric in outcome.values:
                for language in (None, outcome.item.language):
                    key = (outcome.item.suite, metric, language)
                    found.setdefault(key, []).append((outcome.item, outcome.values[metric]))
    return found


def _interval(metric: str, values: np.ndarray, units: Sequence[str]) -> Interval:
    """Wilson's interval of a share, which has a width even where all items agree (Wilson 1927); else a bootstrap over
    items, of whose forms none is by itself."""
    if _span(metric) == 1 and len(set(units)) == len(units) and set(values.tolist()) <= {0.0, 1.0}:
        bounds = stats.binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        return Interval(float(values.mean()), float(bounds.low), float(bounds.high), len(values))
    found = bootstrap_interval(units, lambda rows: float(values[rows].mean()))
    assert found is not None, "there are values"
    return _with_a_width(found, 1 - _span(metric), 1.0)


def _span(metric: str) -> float:
    """How far apart the values of two items can be: a bias goes from -1 to 1, all else from 0."""
    return 2.0 if metric.rsplit("/", 1)[-1] == "bias" else 1.0


def _with_a_width(interval: Interval, lowest: float, highest: float, level: float = 0.95) -> Interval:
    """Items that are all alike are drawn alike as well, and still are but some of all: as wide as what none of them
    happened to be allows, within what can be."""
    if interval.low < interval.high:
        return interval
    share, value = unseen(interval.n, level), interval.mean
    return Interval(value, value + share * (lowest - value), value + share * (highest - value), interval.n)
