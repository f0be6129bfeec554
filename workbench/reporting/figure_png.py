"""A figure as a PNG picture, by matplotlib, which is the extra `plots`: it brings its own fonts, wherever it runs.

As a program it makes the picture of the plot that stands on standard input, as JSON: importing matplotlib would stop
whoever draws a screen.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import TYPE_CHECKING

import msgspec

from storage.errors import UsageError
from storage.insight.figure import Plot, Series
from storage.signs import one_line
from workbench.reporting.figure_svg import COLOURS, MOST_LABELS, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = "osD^"
DOTS_PER_INCH = 160
FONTLESS = "no installed font has some of its characters; the SVG leaves fonts to who shows it"
_LONGEST = 48  # cells of a name


def picture(plot: Plot) -> tuple[bytes, bool]:
    """The plot as a PNG file, and whether there was a font for all of its characters.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "PNG pictures are drawn by matplotlib, which is not installed",
            'install it with `pip install "alignment-workbench[plots]"`; --svg needs nothing',
        ) from error
    tall = 1.6 + 0.26 * sum(len(one.points) for one in plot.series) if plot.places else 4.6
    figure = Figure(figsize=(8.0, min(tall, 100.0)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(_plain(plot.title, 80), loc="left")
    axes.grid(alpha=0.3)
    (_rows if plot.places else _plane)(axes, plot)
    if len(plot.series) > 1:
        figure.legend(loc="outside lower left", ncols=2, fontsize="small", frameon=False)
    written = io.BytesIO()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        canvas.print_png(written, metadata={"Software": None})
    return written.getvalue(), not any("missing from font" in str(one.message) for one in told)


def _rows(axes: Axes, plot: Plot) -> None:
    """A row for each point, from the top; the value goes to the right."""
    rows = rows_of(plot)
    for number, series in enumerate(plot.series):
        own = [(place, point) for place, (of, _, point) in enumerate(rows) if of == number]
        _dots(axes, series, number, [point.y for _, point in own], [float(place) for place, _ in own], across=True)
    names = [name for _, name, _ in rows]
    firsts = [place for place, name in enumerate(names) if name not in names[:place]]
    axes.set_yticks(firsts, [_plain(names[place]) for place in firsts])
    axes.invert_yaxis()
    if plot.level is not None:
        axes.axvline(plot.level, color="0.4", linestyle="--", linewidth=1)
    axes.set_xlabel(_plain(plot.y, 80))


def _plane(axes: Axes, plot: Plot) -> None:
    """Two axes of numbers."""
    if plot.level is not None:
        axes.axhline(plot.level, color="0.4", linestyle="--", linewidth=1)
    for number, series in enumerate(plot.series):
        xs, ys = [point.x for point in series.points], [point.y for point in series.points]
        if series.kind == "line":
            axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], label=_plain(series.name))
            continue
        _dots(axes, series, number, xs, ys, across=False)
        for point in series.points if len(plot.points) <= MOST_LABELS else ():
            axes.annotate(_plain(point.label), (point.x, point.y), (5, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel(_plain(plot.x, 80))
    axes.set_ylabel(_plain(plot.y, 80))


def _dots(axes: Axes, series: Series, number: int, xs: list[float], ys: list[float], *, across: bool) -> None:
    """Dots with their intervals, which lie along x where `across` says so."""
    bounds = [(point.y - (point.y if point.low is None else point.low),
               (point.y if point.high is None else point.high) - point.y) for point in series.points]  # fmt: skip
    reach = [[max(0.0, below) for below, _ in bounds], [max(0.0, above) for _, above in bounds]]
    axes.errorbar(
        xs, ys, xerr=reach if across else None, yerr=None if across else reach, capsize=3, markersize=5,
        fmt=MARKS[number % len(MARKS)], color=COLOURS[number % len(COLOURS)], label=_plain(series.name), elinewidth=1,
    )  # fmt: skip


def _plain(text: str, cells: int = _LONGEST) -> str:
    """A name on one line, of which `$` begins no formula; a leading `_` would hide a series from the legend."""
    told = one_line(text, cells).replace("$", r"\$")
    return f" {told}" if told.startswith("_") else told


if __name__ == "__main__":
    made, is_whole = picture(msgspec.json.decode(sys.stdin.buffer.read(), type=Plot))
    sys.stdout.buffer.write(made)
    if not is_whole:
        print(FONTLESS, file=sys.stderr)
