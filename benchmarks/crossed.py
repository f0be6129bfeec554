"""Intervals of a figure over two kinds of units at once: seeds, and the prompts that all seeds are asked."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

from scipy import stats

from trainer.evaluation.intervals import Interval

Seed = TypeVar("Seed")
Prompt = TypeVar("Prompt")


def crossed_interval(
    seeds: Sequence[Seed],
    prompts: Sequence[Prompt],
    figure: Callable[[Sequence[Seed], Sequence[Prompt]], float | None],
    level: float = 0.95,
) -> Interval | None:
    """Student's t interval of a figure that differs from seed to seed and from prompt to prompt.

    Its variance is the sum of two jackknife variances, that of leaving out a seed and that of leaving out a prompt. For
    a mean these are the mean squares of the seeds and of the prompts over the number of values, so that the sum is the
    variance of the mean in a crossed design with both effects at random, with the residual counted twice: too wide
    rather than too narrow. The degrees of freedom are Satterthwaite's (1946); with three seeds that differ there are
    hardly more than two. (Bootstraps of three seeds are too narrow by far: their spread has a third less variance.)

    Args:
        figure: of some of the seeds and some of the prompts; None where they do not tell it.

    Returns:
        The figure of everything as `mean`, with `n` the number of prompts; None where it cannot be told. Of a single
        seed the interval is over prompts alone. Without bounds where there are fewer than two prompts, or where leaving
        one out leaves nothing to tell.
    """
    value = figure(seeds, prompts)
    if value is None:
        return None
    parts = [
        _jackknife([figure(left, prompts) for left in _without_one(seeds)]),
        _jackknife([figure(seeds, left) for left in _without_one(prompts)]),
    ]
    if len(prompts) < 2 or None in parts:
        return Interval(value, -math.inf, math.inf, len(prompts))
    told = [(part, units - 1) for part, units in zip(parts, (len(seeds), len(prompts)), strict=True) if part]
    variance = sum(part for part, _ in told)
    if not variance:
        return Interval(value, value, value, len(prompts))
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in told)
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Interval(value, value - half, value + half, len(prompts))


def _without_one(units: Sequence[Seed]) -> list[list[Seed]]:
    """The units less each of them in turn; nothing where that leaves none."""
    return [[*units[:place], *units[place + 1 :]] for place in range(len(units))] if len(units) > 1 else []


def _jackknife(values: Sequence[float | None]) -> float | None:
    """The variance of a figure by what it is without each unit (Efron and Stein 1981); 0 of nothing, None if one is."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return (len(known) - 1) * statistics.pvariance(known) if known else 0.0
