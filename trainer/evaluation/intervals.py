"""Means and other figures with 95% intervals; a figure that cannot be told, or has no interval, says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from trainer.evaluation.matched import tail

DRAWS = 400
# Where more of the draws than this leave a figure undefined, the others do not tell its spread.
MOST_UNDEFINED = 0.1
# From so many units on the expansion is a good approximation.
FEWEST_EXPANDED = 4


@dataclass(frozen=True)
class Interval:
    """A mean over `n` independent units (prompts), with the bounds of its 95% interval.

    Where nothing bounds it, as with a single prompt, the bounds are infinite: no test of them passes by mistake.
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def bounded(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval, for documents; None where there is none."""
        return (self.low, self.high) if self.bounded else None

    @property
    def reason(self) -> str:
        """Why there is no interval; empty where there is one."""
        if self.bounded:
            return ""
        if not math.isfinite(self.mean):
            return "not finite"
        return f"{self.n} prompt{'s, too alike' if self.n > 1 else ''}"

    def __str__(self) -> str:
        if not self.bounded:
            return f"{self.mean:+.2f} ({self.reason}: no interval)"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of a mean; the units must be independent (prompts, not the answers to one prompt).

    Values that are not finite give a mean and bounds that are not finite either; a single value has no bounds.

    Raises:
        ValueError: there is no value.
    """
    n = len(values)
    if not n:
        raise ValueError("the mean of nothing has no value")
    mean = sum(values) / n
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    variance = sum((value - mean) * (value - mean) for value in values) / (n - 1)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n)


def widened(interval: Interval, half: float) -> Interval:
    """An interval with an error of its own added, of this half width: independent errors add as squares do."""
    low, high = (math.hypot(bound - interval.mean, half) for bound in (interval.low, interval.high))
    return Interval(interval.mean, interval.mean - low, interval.mean + high, interval.n)


def unseen(n: int, level: float = 0.95) -> float:
    """The largest share of units that may be otherwise though none of `n` was: the exact upper bound of 0 of n (Clopper
    and Pearson 1934)."""
    return float(1 - ((1 - level) / 2) ** (1 / n))


def bootstrap_interval(
    units: Sequence[Hashable],
    figure: Callable[[np.ndarray], float | None],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Percentile bootstrap of any figure of rows, drawing whole units (Efron 1979; Field and Welsh 2007), with the
    percentiles expanded as few units need (Hesterberg 2015).

    Args:
        units: the unit that each row belongs to, such as its prompt: rows of one unit are not independent.
        figure: what is computed from the numbers of the chosen rows (with repeats); None where they do not tell it.

    Returns:
        The figure of all rows as `mean`, with `n` the number of units; None where they do not tell it. Draws that do
        not tell it are left out. Without bounds where there are fewer than two units, or where more than a tenth of
        the draws do not tell the figure.
    """
    if not len(units):
        return None
    rows: dict[Hashable, list[int]] = {}
    for row, unit in enumerate(units):
        rows.setdefault(unit, []).append(row)
    groups = [np.array(members) for members in rows.values()]
    value = figure(np.arange(len(units)))
    if value is None:
        return None
    unbounded = Interval(value, -math.inf, math.inf, len(groups))
    if len(groups) < 2:
        return unbounded
    generator = np.random.default_rng(seed)
    found = [
        figure(np.concatenate([groups[place] for place in generator.integers(len(groups), size=len(groups))]))
        for _ in range(draws)
    ]
    told = [one for one in found if one is not None]
    if len(told) < (1 - MOST_UNDEFINED) * draws:
        return unbounded
    out = 100 * (tail(len(groups), level) if len(groups) >= FEWEST_EXPANDED else (1 - level) / 2)
    low, high = np.percentile(told, [out, 100 - out])
    return Interval(value, float(low), float(high), len(groups))
