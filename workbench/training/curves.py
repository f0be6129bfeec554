"""Curves for small plots: thinning, gaps, the best point, sparklines, and the time that is left. Pure functions."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Series:
    """The finite points of one curve in step order, as they grow."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def put(self, step: int, value: float | None) -> None:
        """Take in a figure; one of a step that is known replaces it."""
        place = len(self.steps) if not self.steps or step > self.steps[-1] else bisect_left(self.steps, step)
        known = place < len(self.steps) and self.steps[place] == step
        if value is None or not math.isfinite(value):
            if known:
                del self.steps[place], self.values[place]
        elif known:
            self.values[place] = value
        else:
            self.steps.insert(place, step)
            self.values.insert(place, value)

    def thinned(self, limit: int) -> Curve:
        """At most `limit` of the points.

        Each run of points becomes its lowest and highest one, so that spikes stay visible; the last point always stays.
        """
        limit = max(limit, 4)
        count = len(self.steps)
        if count <= limit:
            return Curve(tuple(self.steps), tuple(self.values))
        size = math.ceil(2 * count / (limit - 1))
        kept: list[int] = []
        for start in range(0, count, size):
            run = self.values[start : start + size]
            kept += sorted({start + run.index(min(run)), start + run.index(max(run))})
        if kept[-1] != count - 1:
            kept.append(count - 1)
        return Curve(tuple(self.steps[place] for place in kept), tuple(self.values[place] for place in kept))


def points_of(series: Iterable[tuple[int, float | None]], limit: int) -> Curve:
    """The drawable points of a stored series, thinned to at most `limit`."""
    found = Series()
    for step, value in series:
        found.put(step, value)
    return found.thinned(limit)


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
