"""A figure as a PNG picture, by matplotlib, which is the extra `plots`: it brings its own fonts, wherever it runs.

As a program it makes the picture of the plot that stands on standard input, as JSON: importing matplotlib would stop
whoever draws a screen.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from storage.errors import UsageError
from storage.insight.figure import Plot, Point
from storage.signs import one_line
from workbench.reporting.figure_svg import COLOURS, MOST_LABELS, rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure

MARKS = "osD^"
DOTS_PER_INCH = 160
FONTLESS = "no installed font has some of its characters; the SVG leaves fonts to who shows it"
_LONGEST = 48  # cells of a name


def picture(plot: Plot) -> tuple[bytes, bool]:
    """The plot as a PNG file, and whether there was a font for all of its characters.

    Raises:
        UsageError: matplotlib is not installed.
    """
    written = io.BytesIO()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drawn(plot).canvas.print_figure(written, format="png", metadata={"Software": None})
    return written.getvalue(), not any("missing from font" in str(one.message) for one in told)


def drawn(plot: Plot) -> MatplotlibFigure:
    """The plot as matplotlib has it. Raises UsageError where that is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "PNG pictures are drawn by matplotlib, which is not installed",
            'install it with `pip install "alignment-workbench[plots]"`; --svg needs nothing',
        ) from error
    tall = 1.6 + 0.26 * sum(len(one.points) for one in plot.series) if plot.places else 4.6
    figure = Figure(figsize=(8.0, min(tall, 100.0)), layout="constrained", dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(_plain(plot.title, 80), loc="left")
    axes.grid(alpha=0.3)
    (_rows if plot.places else _plane)(axes, plot)
    if len(plot.series) > 1:
        figure.legend(loc="outside lower left", ncols=2, fontsize="small", frameon=False)
    return figure


def _rows(axes: Axes, plot: Plot) -> None:
    """A row for each point, from the top; the value goes to the right."""
    rows = rows_of(plot)
    for number, series in enumerate(plot.series):
        own = [(float(place), point) for place, (of, _, point) in enumerate(rows) if of == number]
        _dots(axes, series.name, number, own, across=True)
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
        if series.kind == "line":
            xs, ys = [point.x for point in series.points], [point.y for point in series.points]
            axes.plot(xs, ys, color=COLOURS[number % len(COLOURS)], label=_plain(series.name))
            continue
        _dots(axes, series.name, number, [(point.x, point) for point in series.points], across=False)
        for point in series.points if len(plot.points) <= MOST_LABELS else ():
            axes.annotate(_plain(point.label), (point.x, point.y), (5, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel(_plain(plot.x, 80))
    axes.set_ylabel(_plain(plot.y, 80))


def _dots(axes: Axes, name: str, number: int, placed: Sequence[tuple[float, Point]], *, across: bool) -> None:
    """Dots, each where it stands with its interval; values lie along x where `across` says so."""
    places, points = [place for place, _ in placed], [point for _, point in placed]
    values = [point.y for point in points]
    below = [0.0 if point.low is None else max(0.0, point.y - point.low) for point in points]
    above = [0.0 if point.high is None else max(0.0, point.high - point.y) for point in points]
    reach = [below, above]
    axes.errorbar(
        *((values, places) if across else (places, values)), xerr=reach if across else None,
        yerr=None if across else reach, capsize=3, markersize=5, fmt=MARKS[number % len(MARKS)],
        color=COLOURS[number % len(COLOURS)], label=_plain(name), elinewidth=1,
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
