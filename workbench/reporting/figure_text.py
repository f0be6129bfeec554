"""A figure as text for a terminal: how to read it, the plot drawn with characters, what to know of it, the table."""

from __future__ import annotations

import textwrap

from storage.insight.figure import Figure, Found, Plot, Series
from workbench.text import columns, one_line, safe_text, width
from workbench.widgets import intervals

HEIGHT = 18
MOST_LABELS = 40  # points; more of them would write over each other
COLORS = (75, 214, 78, 205, 117, 220, 141, 203)  # of the 256 that terminals share


def page(figure: Figure, found: Found, *, wide: int, colored: bool) -> str:
    """The figure in at most `wide` columns, but for its table, which has what it needs."""
    lines = [figure.title, *textwrap.wrap(figure.what, wide), ""]
    if found.plot is None:
        lines += textwrap.wrap(safe_text(f"Nothing to draw: {found.missing}."), wide)
    else:
        lines += [one_line(found.plot.title, wide), *_drawn(found.plot, wide, colored), ""]
    for note in found.notes:
        lines += textwrap.wrap(one_line(note, 1000), wide, initial_indent="- ", subsequent_indent="  ")
    if found.table.rows:
        lines += ["", *columns(found.table.header, found.table.told)]
    return "\n".join(lines)


def _drawn(plot: Plot, wide: int, colored: bool) -> list[str]:
    legend = intervals.legend(plot, wide).plain.splitlines()
    if not plot.places:
        return [*legend, *_plane(plot, wide, colored).splitlines()]
    names, lanes = (column.plain.split("\n") for column in intervals.rows(plot, wide))
    room = max(map(width, names))
    rows = [name + " " * (room - width(name)) + lane for name, lane in zip(names, lanes, strict=True)]
    return [*legend, *(row.rstrip() for row in rows), one_line(plot.y, wide)]


def _plane(plot: Plot, wide: int, colored: bool) -> str:
    """Two axes of numbers; a dot is drawn with the sign of its series."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(wide, HEIGHT)
    plotext.xlabel(_ascii(plot.x))
    plotext.title(_ascii(f"{plot.y}, upwards"))
    if plot.level is not None:
        plotext.hline(plot.level)
    marks = intervals.marks(plot)
    named = len(plot.points) <= MOST_LABELS
    for number, series in enumerate(plot.series):
        _series(plotext, series, marks[series.name][0], COLORS[number % len(COLORS)], named)
    drawn = plotext.build()
    plotext.clear_figure()
    return drawn if colored else plotext.uncolorize(drawn)


def _series(plotext: object, series: Series, sign: str, color: int, named: bool) -> None:
    xs, ys = [point.x for point in series.points], [point.y for point in series.points]
    if series.kind == "line":
        plotext.plot(xs, ys, marker="braille", color=color)  # type: ignore[attr-defined]
        return
    for point in series.points:
        if point.low is not None and point.high is not None:
            ends = [point.low, point.high]
            plotext.plot([point.x] * 2, ends, marker="│", color=color)  # type: ignore[attr-defined]
    plotext.scatter(xs, ys, marker=sign, color=color)  # type: ignore[attr-defined]
    for point in series.points if named else ():
        plotext.text(f" {_ascii(point.label)}", point.x, point.y, color=color)  # type: ignore[attr-defined]


def _ascii(text: str) -> str:
    """For plotext, whose rows a wide character would break."""
    return one_line(text, 80).encode("ascii", "replace").decode()
