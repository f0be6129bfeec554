"""A figure as an SVG picture that needs nothing beside it: texts stay texts, so that any script is drawn by whoever
shows it.

A plot whose places have names is drawn with a row for each (a forest plot); another one on two axes of numbers. Series
differ in colour and in shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from storage.html_page import escaped
from storage.insight.figure import Figure, Plot, Point, Series
from storage.signs import one_line, width

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by the colour-blind
MOST_LABELS = 40  # points that have their label beside them; more would lie upon each other
WIDE, TALL, ROW = 760, 340, 20  # pixels: the picture, the frame of a plot of numbers, a row of a place
CELL = 6.6  # pixels of a cell of text, at 12 pixels
_LONGEST, _LONGEST_TITLE = 48, 80  # cells of a name, of a title
_INK, _FAINT, _LINE = "#1c2024", "#5b6470", "#d8d8d4"
_NO_XML = dict.fromkeys((0xFFFE, 0xFFFF), "\ufffd")  # which XML cannot hold


@dataclass(frozen=True)
class Axis:
    """From values to pixels; `end` may lie below `start`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Iterable[float], start: float, end: float) -> Axis:
        """An axis that has room for some values, and a little more."""
        known = list(values)
        low, high = min(known), max(known)
        room = 0.06 * (high - low) or abs(low) * 0.1 or 0.5
        return cls(low - room, high + room, start, end)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values along it, in steps of 1, 2 or 5 times a power of ten."""
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
        first = math.ceil(self.low / step)
        return [(first + number) * step for number in range(8) if (first + number) * step <= self.high]


def picture(figure: Figure, plot: Plot) -> str:
    """The plot of a figure as a document of its own."""
    parts = [_text(16, 26, plot.title, size=16, colour=_INK, cells=_LONGEST_TITLE)]
    top = 46.0
    for line in _packed(plot.series):
        x = 16.0
        for number, one in line:
            is_line = one.kind == "line"
            sign = _line(x, top - 4, x + 12, top - 4, _mark(number)[1]) if is_line else _shape(number, x + 6, top - 4)
            parts += [sign, _text(x + 16, top, one.name, colour=_INK)]
            x += _wide(one.name) + 34
        top += 18
    body, bottom = (_rows if plot.places else _plane)(plot, top + 4)
    tall = bottom + 12
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{tall:.0f}" viewBox="0 0 {WIDE} {tall:.0f}" '
        f'font-family="system-ui, sans-serif" role="img">\n<title>{_escaped(plot.title)}</title>\n'
        f"<desc>{_escaped(figure.what)}</desc>\n"
        f'<rect width="{WIDE}" height="{tall:.0f}" fill="#fff"/>\n' + "\n".join([*parts, *body]) + "\n</svg>\n"
    )


def extent(plot: Plot) -> list[float]:
    """All values along the axis of `y`: points, the ends of their intervals, and the level."""
    values = [value for point in plot.points for value in (point.y, point.low, point.high) if value is not None]
    return values + ([plot.level] if plot.level is not None else [])


def rows_of(plot: Plot) -> list[tuple[int, str, Point]]:
    """A row for each point, as the number of its series, the name of its place and the point, place by place."""
    found = [(place, one, point) for place, series in enumerate(plot.series)
             for one, point in ((plot.places[round(point.x)], point) for point in series.points)]  # fmt: skip
    return sorted(found, key=lambda row: (row[2].x, row[0]))


def _rows(plot: Plot, top: float) -> tuple[list[str], float]:
    """A row for each point, below each other; the value goes to the right. Returns the parts and where they end."""
    rows = rows_of(plot)
    left = min(WIDE * 0.4, 30 + max(_wide(name) for name in plot.places))
    beside = max(_wide(_figures(point)) for _, _, point in rows) + 20
    axis = Axis.of(extent(plot), left, WIDE - beside)
    bottom = top + ROW * len(rows) + 8
    parts = [_text(axis.at(tick), bottom + 16, f"{tick:.3g}", "middle") for tick in axis.ticks()]
    parts += [_line(axis.at(tick), top, axis.at(tick), bottom) for tick in axis.ticks()]
    if plot.level is not None:
        parts.append(_line(axis.at(plot.level), top, axis.at(plot.level), bottom, _FAINT, "4 3"))
    y = top + ROW * 0.7
    for name, own in groupby(rows, key=lambda row: row[1]):
        parts.append(_text(left - 10, y + 4, name, "end", colour=_INK))
        for number, _, point in own:
            if point.low is not None and point.high is not None:
                parts += _interval(axis.at(point.low), y, axis.at(point.high), y, number)
            parts += [_shape(number, axis.at(point.y), y), _text(WIDE - 16, y + 4, _figures(point), "end")]
            y += ROW
    parts.append(_text((left + WIDE - beside) / 2, bottom + 36, plot.y, "middle", cells=_LONGEST_TITLE))
    return parts, bottom + 40


def _plane(plot: Plot, top: float) -> tuple[list[str], float]:
    """Two axes of numbers. Returns the parts and where they end."""
    bottom, left, right = top + TALL, 78.0, WIDE - 60.0
    across = Axis.of([point.x for point in plot.points], left, right)
    up = Axis.of(extent(plot), bottom, top)
    parts = [_text(across.at(tick), bottom + 16, f"{tick:.3g}", "middle") for tick in across.ticks()]
    parts += [_text(left - 8, up.at(tick) + 4, f"{tick:.3g}", "end") for tick in up.ticks()]
    parts += [_line(left, up.at(tick), right, up.at(tick)) for tick in up.ticks()]
    if plot.level is not None:
        parts.append(_line(left, up.at(plot.level), right, up.at(plot.level), _FAINT, "4 3"))
    parts.append(f'<path d="M{left} {top:.1f}V{bottom:.1f}H{right}" fill="none" stroke="{_FAINT}"/>')
    for number, series in enumerate(plot.series):
        places = [(across.at(point.x), up.at(point.y)) for point in series.points]
        if series.kind == "line":
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{joined}" fill="none" stroke="{_mark(number)[1]}" stroke-width="1.5"/>')
            continue
        parts += _dots(series, number, places, up, named=len(plot.points) <= MOST_LABELS)
    parts.append(_text((left + right) / 2, bottom + 36, plot.x, "middle", cells=_LONGEST_TITLE))
    middle = (top + bottom) / 2
    parts.append(_text(20, middle, plot.y, "middle", turned=True, cells=_LONGEST_TITLE))
    return parts, bottom + 40


def _dots(series: Series, number: int, places: Sequence[tuple[float, float]], up: Axis, *, named: bool) -> list[str]:
    parts = []
    for point, (x, y) in zip(series.points, places, strict=True):
        if point.low is not None and point.high is not None:
            parts += _interval(x, up.at(point.low), x, up.at(point.high), number)
        parts.append(_shape(number, x, y))
        if named and point.label:
            parts.append(_text(x + 8, y - 5, point.label, colour=_INK))
    return parts


def _figures(point: Point) -> str:
    bounds = "" if point.low is None or point.high is None else f" [{point.low:.3g}, {point.high:.3g}]"
    return f"{point.y:.3g}{bounds}" + ("" if point.n is None else f" n {point.n}")


def _packed(series: Sequence[Series]) -> list[list[tuple[int, Series]]]:
    """The legend, each with its number, in lines that fit."""
    lines: list[list[tuple[int, Series]]] = [[]]
    room = WIDE - 32.0
    for number, one in enumerate(series):
        needed = _wide(one.name) + 34
        if needed > room and lines[-1]:
            lines.append([])
            room = WIDE - 32.0
        lines[-1].append((number, one))
        room -= needed
    return lines


def _mark(number: int) -> tuple[int, str]:
    """The shape and the colour of a series; together they repeat after twelve."""
    return number % 4, COLOURS[number % len(COLOURS)]


def _shape(number: int, x: float, y: float) -> str:
    """The sign of a series."""
    shape, colour = _mark(number)
    match shape:
        case 0:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        case 1:
            return f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7" fill="{colour}"/>'
        case 2:
            return f'<path d="M{x:.1f} {y - 5:.1f}l5 5-5 5-5-5z" fill="{colour}"/>'
        case _:
            return f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" fill="{colour}"/>'


def _interval(x1: float, y1: float, x2: float, y2: float, number: int) -> list[str]:
    """A line with an end at each side."""
    colour = _mark(number)[1]
    across, up = (0, 3) if y1 == y2 else (3, 0)
    ends = [_line(x - across, y - up, x + across, y + up, colour) for x, y in ((x1, y1), (x2, y2))]
    return [_line(x1, y1, x2, y2, colour), *ends]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = _LINE, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", *, size: int = 12, colour: str = _FAINT, turned: bool = False,
    cells: int = _LONGEST,
) -> str:  # fmt: skip
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{turn}>'
            f"{_escaped(one_line(text, cells))}</text>")  # fmt: skip


def _escaped(text: str) -> str:
    return escaped(text).translate(_NO_XML)


def _wide(text: str) -> float:
    """How many pixels a name takes, about."""
    return min(width(one_line(text, _LONGEST)), _LONGEST) * CELL
