"""A plot whose places have names, drawn as rows of text: a label, the interval on a scale, and the figures.

Names may be of any script: all is measured in cells. Nothing is told by colour alone: series have signs of their own,
and `▲` and `▼` say that an interval lies wholly above or below the line.
"""

from __future__ import annotations

import math
import sys
from itertools import cycle
from statistics import median

from textual.content import Content

from storage.insight.figure import Plot, Point, Series
from workbench.shell.screen import packed
from workbench.text import fitted, one_line, width

SIGNS = "●■◆○□◇"
COLORS = ("policy", "accent", "secondary", "warning", "foreground", "text-muted")
NARROW = 60  # cells; below, the ends of intervals are drawn and not written
LEAST_LANE = 8  # cells of a scale
LARGEST = sys.float_info.max
FEW, CUT = 4, 2.0  # of at least so many intervals, one reaches no further than so many times their median width


def marks(plot: Plot) -> dict[str, tuple[str, str]]:
    """A sign and a theme colour for each series, by its name; a line that is alone among dots needs no sign."""
    alone = sum(one.kind == "line" for one in plot.series) == 1 < len(plot.series)
    signs = iter(cycle(SIGNS))
    return {
        one.name: (
            "─" if one.kind == "line" and alone else next(signs),
            "reference" if one.name == "reference" else color,
        )
        for one, color in zip(plot.series, cycle(COLORS), strict=False)
    }


def legend(plot: Plot, cells: int, first: str = "") -> Content:
    """Which sign is which series, and what is said of an interval beyond the line; `first` is said before that."""
    told = marks(plot)
    parts = [Content.styled(one_line(first, cells), "$text-muted")] if first else []
    parts += [
        Content.assemble((f"{told[one.name][0]} ", f"bold ${told[one.name][1]}"), one_line(one.name, 40))
        for one in plot.series
    ]
    if plot.places and any(_beyond(point, plot.level).strip() for point in plot.points):
        parts.append(Content.styled(f"▲ all above {plot.level:.3g}  ▼ all below", "$text-muted"))
    low, high = _span(plot)
    bounds = [end for point in plot.points for end in (point.low, point.high) if end is not None]
    if plot.places and any(not low <= end <= high for end in bounds):
        parts.append(Content.styled("◂ ▸ goes on", "$text-muted"))
    return packed(parts, cells)


def rows(plot: Plot, cells: int) -> tuple[Content, Content]:
    """A row for each point, place by place, below the scale; together `cells` wide.

    The names of the places are apart: each is a paragraph of its own, which may run from right to left.
    """
    by_place = [
        (place, one, point)
        for place in range(len(plot.places))
        for one in plot.series
        for point in one.points
        if round(point.x) == place
    ]
    if not by_place:
        return Content(), Content()
    names = [one_line(name, 60) for name in plot.places]
    figures = {id(point): _figures(point, cells) for _, _, point in by_place}
    aside = min(max(map(width, names)), max(6, cells // (4 if cells < NARROW else 3)))
    beside = max(map(width, figures.values())) + 1
    room = cells - aside - beside - 3
    if room < LEAST_LANE:
        beside, room = 0, max(LEAST_LANE, cells - aside - 3)
    scale = Scale.of(plot, room)
    told = marks(plot)
    named, lanes = [Content()], [Content.styled(f"   {scale.ticks()}", "$text-muted")]
    before = -1
    for place, one, point in by_place:
        sign, color = told[one.name]
        named.append(Content.styled(fitted(names[place], aside) if place != before else "", "bold"))
        figure = f" {figures[id(point)]}" if beside else ""
        lane = scale.lane(one, point, sign, color)
        lanes.append(Content.assemble(f" {_beyond(point, plot.level)} ", lane, (figure, "$text-muted")))
        before = place
    return Content("\n").join(named), Content("\n").join(lanes)


class Scale:
    """From values to cells, so that all points, their intervals and the line find room."""

    def __init__(self, low: float, high: float, level: float | None, cells: int) -> None:
        self.low, self.high, self.level, self.cells = low, high, level, cells

    @classmethod
    def of(cls, plot: Plot, cells: int) -> Scale:
        """The scale that a plot needs; bars begin at zero."""
        low, high = _span(plot)
        size = max(1.0, abs(low), abs(high))
        if high / 2 - low / 2 < 1e-9 * size:  # they cannot be told apart
            low, high = max(low - size / 2, -LARGEST), min(high + size / 2, LARGEST)
        return cls(low, high, plot.level, cells)

    def at(self, value: float) -> int:
        """The cell of a value; of one beyond an end, that end. In halves: the span may be more than a number can be."""
        share = (min(max(value, self.low), self.high) / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return round(share * (self.cells - 1))

    def ticks(self) -> str:
        """Both ends, in as many digits as fit, and the line where there is room for it between them."""
        line = [" "] * self.cells
        said = ((f"{self.low:.{digits}g}", f"{self.high:.{digits}g}") for digits in (3, 2, 1))
        ends = next((ends for ends in said if sum(map(len, ends)) < self.cells), ("", ""))
        line[: len(ends[0])] = ends[0]
        line[self.cells - len(ends[1]) :] = ends[1]
        if self.level is not None:
            words = f"{self.level:.3g}"
            start = self.at(self.level) - len(words) // 2
            if start > len(ends[0]) and start + len(words) < self.cells - len(ends[1]):
                line[start : start + len(words)] = words
        return "".join(line)

    def lane(self, one: Series, point: Point, sign: str, color: str) -> Content:
        """A point on the scale: its bar, its interval, its sign, and the line behind them."""
        line = [" "] * self.cells
        if self.level is not None:
            line[self.at(self.level)] = "┊"
        if one.kind == "bars":
            first, last = sorted((self.at(0.0), self.at(point.y)))
            line[first : last + 1] = "▇" * (last + 1 - first)
        if point.low is not None and point.high is not None:
            first, last = self.at(point.low), self.at(point.high)
            line[first : last + 1] = "─" * (last + 1 - first)
            line[first], line[last] = "◂" if point.low < self.low else "├", "▸" if point.high > self.high else "┤"
        if one.kind != "bars" or point.low is not None:
            line[self.at(point.y)] = sign
        text = "".join(line)
        before, drawn = len(text) - len(text.lstrip(" ┊")), text.rstrip(" ┊")
        return Content.assemble(
            (text[:before], "$text-muted"), (drawn[before:], f"${color}"), (text[len(drawn) :], "$text-muted")
        )


def _span(plot: Plot) -> tuple[float, float]:
    """The lowest and the highest value that has to be in sight.

    An interval that is much wider than most is cut off: drawn in full, it would leave no room to tell the others apart.
    """
    widths = [point.high - point.low for point in plot.points if point.low is not None and point.high is not None]
    reach = CUT * median(widths) if len(widths) >= FEW else math.inf
    values = [point.y for point in plot.points]
    values += [max(point.low, point.y - reach) for point in plot.points if point.low is not None]
    values += [min(point.high, point.y + reach) for point in plot.points if point.high is not None]
    values += [0.0] if any(one.kind == "bars" for one in plot.series) else []
    values += [plot.level] if plot.level is not None else []
    return min(values), max(values)


def _beyond(point: Point, level: float | None) -> str:
    """Whether the whole interval lies on one side of the line."""
    if level is None or point.low is None or point.high is None:
        return " "
    return "▲" if point.low > level else "▼" if point.high < level else " "


def _figures(point: Point, cells: int) -> str:
    bounds = ""
    if point.low is not None and point.high is not None and cells >= NARROW:
        bounds = f" [{point.low:.3g}, {point.high:.3g}]"
    return f"{point.y:.3g}{bounds}" + (f" n {point.n}" if point.n is not None else "")
