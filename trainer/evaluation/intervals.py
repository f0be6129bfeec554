"""Means and other figures with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

DRAWS = 400


@dataclass(frozen=True)
class Interval:
    """A mean over `n` independent units, with the bounds of its 95% interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of a mean; the units must be independent (prompts, not the answers to one prompt).

    Values that are not finite give a mean and bounds that are not finite either.
    """
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    variance = sum((value - mean) * (value - mean) for value in values) / (n - 1)
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n)


def bootstrap_interval(
    units: Sequence[Hashable], figure: Callable[[np.ndarray], float], *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Percentile bootstrap of any figure of rows, drawing whole units (Efron 1979; Field and Welsh 2007).

    Args:
        units: the unit that each row belongs to, such as its prompt: rows of one unit are not independent.
        figure: what is computed from the numbers of the chosen rows (with repeats).

    Returns:
        The figure of all rows as `mean`, with `n` the number of units; unbounded where there are fewer than two.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, unit in enumerate(units):
        rows.setdefault(unit, []).append(row)
    groups = [np.array(members) for members in rows.values()]
    value = figure(np.arange(len(units)))
    if len(groups) < 2:
        return Interval(value, -math.inf, math.inf, len(groups))
    generator = np.random.default_rng(seed)
    found = [
        figure(np.concatenate([groups[place] for place in generator.integers(len(groups), size=len(groups))]))
        for _ in range(draws)
    ]
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(value, float(low), float(high), len(groups))
