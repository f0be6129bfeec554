"""Means with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


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
