"""A plot on two axes of numbers, drawn with plotext's characters: on a widget's plot, or on plotext itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from storage.insight.figure import Plot, Point
from workbench.text import one_line
from workbench.widgets.intervals import marks

LEVEL = "text-muted"  # the name of the colour of the line
MOST_LABELS = 40  # points; more of them would write over each other
LONGEST_LABEL = 10  # cells


def draw(onto: Any, shown: Plot, colors: Mapping[str, Any], width: int, height: int) -> None:
    """Lines, and dots with their intervals upright and their labels beside them.

    Args:
        onto: what has plotext's functions.
        colors: what plotext takes for a colour, by the names that `marks` gives, and that of the line.
        width, height: the room, in cells.
    """
    told, points = marks(shown), shown.points
    if shown.level is not None:
        onto.hline(shown.level, color=colors[LEVEL])
    named = len(points) <= MOST_LABELS
    for one in sorted(shown.series, key=lambda one: one.kind != "line"):  # dots lie on top
        sign, color = told[one.name][0], colors[told[one.name][1]]
        xs, ys = [point.x for point in one.points], [point.y for point in one.points]
        if one.kind == "line":
            onto.plot(xs, ys, marker="braille", color=color)
        for point in one.points:
            if point.low is not None and point.high is not None:
                onto.plot([point.x, point.x], [point.low, point.high], marker="│", color=color)
                for end, cap in ((point.low, "┴"), (point.high, "┬")):
                    onto.text(cap, point.x, end, color=color, alignment="center")
        if one.kind != "line":
            onto.scatter(xs, ys, marker=sign, color=color)
        elif xs and sign != "─":
            onto.scatter(xs[-1:], ys[-1:], marker=sign, color=color)
        if named and one.kind != "line":
            for point in one.points:
                onto.text(sign + _label(point), point.x, point.y, color=color, style="bold", alignment="left")
    label = LONGEST_LABEL / max(LONGEST_LABEL + 1, width) if named else 0.0
    bounds = [value for point in points for value in (point.low, point.high) if value is not None]
    level = [] if shown.level is None else [shown.level]
    across = _axis([point.x for point in points], 0.03, label)  # the last label begins at its point
    upwards = _axis([point.y for point in points] + bounds + level, 0.0, 0.0)
    onto.xlim(*across)
    onto.ylim(*upwards)
    onto.xticks(*_ticks(across, max(2, width // 14)))
    onto.yticks(*_ticks(upwards, max(2, height // 4)))


def _axis(values: list[float], before: float, beyond: float) -> tuple[float, float]:
    """From the lowest value to the highest, and shares of that on both sides; never less than can be told apart."""
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    return low - before * (high - low), high + beyond * (high - low)


def _ticks(axis: tuple[float, float], most: int) -> tuple[list[float], list[str]]:
    """Round values along an axis, in steps of 1, 2 or 5 times a power of ten, and how they are written."""
    low, high = axis
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most)
    places = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return places, [f"{place:.6g}" for place in places]


def _label(point: Point) -> str:
    """The label, where plotext can place it: a wide character would push its line apart."""
    return one_line(point.label, LONGEST_LABEL) if point.label.isascii() else ""
