"""A figure as text for a terminal: how to read it, the plot drawn with characters, what to know of it, the table."""

from __future__ import annotations

import textwrap
from itertools import cycle

from storage.insight.figure import Figure, Found, Plot
from storage.wording import counted
from workbench.text import columns, one_line, safe_text, width
from workbench.widgets import axes, intervals

HEIGHT = 18
COLORS = (244, 75, 214, 78, 205, 117, 220, 141)  # of the 256 that terminals share


def page(figure: Figure, found: Found, *, wide: int, colored: bool, most: int | None = None) -> str:
    """The figure in at most `wide` columns, but for its table, which has what it needs, and of which the first `most`
    rows are shown."""
    lines = [figure.title, *textwrap.wrap(figure.what, wide), ""]
    if found.plot is None:
        lines += textwrap.wrap(safe_text(f"Nothing to draw: {found.missing}."), wide)
    else:
        lines += [one_line(found.plot.title, wide), *_drawn(found.plot, wide, colored), ""]
    for note in found.notes:
        lines += textwrap.wrap(one_line(note, 1000), wide, initial_indent="- ", subsequent_indent="  ")
    if found.table.rows:
        lines += ["", *columns(found.table.header, found.table.told[:most])]
    if most is not None and len(found.table.rows) > most:
        lines.append(f"and {counted(len(found.table.rows) - most, 'more row')}: workbench insight {figure.name}")
    return "\n".join(lines)


def _drawn(plot: Plot, wide: int, colored: bool) -> list[str]:
    legend = intervals.legend(plot, wide).plain.splitlines()
    if not plot.places:
        return [*legend, *_plane(plot, wide, colored).splitlines(), one_line(f"{plot.y} against {plot.x}", wide)]
    names, lanes = (column.plain.split("\n") for column in intervals.rows(plot, wide))
    room = max(map(width, names))
    rows = [name + " " * (room - width(name)) + lane for name, lane in zip(names, lanes, strict=True)]
    return [*legend, *(row.rstrip() for row in rows), one_line(plot.y, wide)]


def _plane(plot: Plot, wide: int, colored: bool) -> str:
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(wide, HEIGHT)
    names = dict.fromkeys([axes.LEVEL, *(color for _, color in intervals.marks(plot).values())])
    axes.draw(plotext, plot, dict(zip(names, cycle(COLORS))), wide, HEIGHT)
    drawn = plotext.build()
    plotext.clear_figure()
    return drawn if colored else plotext.uncolorize(drawn)
