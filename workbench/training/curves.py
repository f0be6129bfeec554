"""Curves for small plots: thinning, gaps, the best point, sparklines, and the time that is left. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Curve:
    """Finite points in step order; what was null or not finite in the store is left out."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def now(self) -> float:
        return self.values[-1]

    @property
    def change(self) -> float:
        """The latest value less the first."""
        return self.values[-1] - self.values[0]

    @property
    def best(self) -> tuple[float, int]:
        """The greatest value and its step."""
        value = max(self.values)
        return value, self.steps[self.values.index(value)]

    @property
    def least(self) -> tuple[float, int]:
        """The smallest value and its step."""
        value = min(self.values)
        return value, self.steps[self.values.index(value)]


def points_of(series: Sequence[tuple[int, float | None]], limit: int) -> Curve:
    """The drawable points of a stored series, thinned to at most `limit`.

    Each run of points becomes its lowest and highest one, so that spikes stay visible; the last point always stays.
    """
    points = [(step, value) for step, value in series if value is not None and math.isfinite(value)]
    limit = max(limit, 4)
    if len(points) > limit:
        size = math.ceil(2 * len(points) / (limit - 1))
        kept: list[tuple[int, float]] = []
        for start in range(0, len(points), size):
            run = points[start : start + size]
            kept += sorted({min(run, key=lambda p: p[1]), max(run, key=lambda p: p[1])})
        if kept[-1] != points[-1]:
            kept.append(points[-1])
        points = kept
    return curve_of(points)


def curve_of(points: Sequence[tuple[int, float]]) -> Curve:
    """Points that are thinned and finite already, as a curve."""
    return Curve(tuple(step for step, _ in points), tuple(value for _, value in points))


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest values as at most `width` small blocks; empty when there is nothing to see."""
    shown = [value for value in values if math.isfinite(value)][-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high == low:
        return _BLOCKS[3] * len(shown)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in shown)


def bar(part: int, whole: int, width: int) -> str:
    """A horizontal bar of up to `width` cells; something is never drawn as nothing."""
    return "▇" * max(1, round(width * part / whole)) if part and whole else ""


def seconds_left(moments: Sequence[tuple[int, str]], step: int, steps: int) -> float | None:
    """The time to the last step, from the pace of the latest ones.

    `moments` are `(step, timestamp)` in step order. None when fewer than two steps were timed or no end is known.
    """
    if len(moments) < 2 or steps <= 0:
        return None
    (first, began), (last, ended) = moments[0], moments[-1]
    elapsed = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    if last <= first or elapsed <= 0:
        return None
    return max(0.0, (steps - step) * elapsed / (last - first))
