"""A small plot of curves over steps, in braille dots. It is drawn on a thread of its own, and kept until it changes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO

from rich.console import Console
from rich.text import Text
from textual import work
from textual.color import Color
from textual.content import Content
from textual.events import Resize
from textual.strip import Strip
from textual_plotext import PlotextPlot
from textual_plotext.plot import Plot

from workbench.training.curves import Curve

_PLOTTING = ThreadPoolExecutor(1, thread_name_prefix="plots")  # one: plotext keeps its themes in one place
_CONSOLE = Console(file=StringIO(), color_system="truecolor")  # what styles are read with; nothing is printed


@dataclass(frozen=True)
class Line:
    """One curve and its colour, a theme variable such as `policy` or `text-muted`.

    `name`, of one ASCII letter, stands at the curve's end, so that several are told apart without colours.
    """

    curve: Curve
    color: str
    name: str = ""


@dataclass(frozen=True)
class Drawing:
    """All that a picture is made of: lines (the first lies on top), a horizontal `level`, and its place."""

    lines: tuple[Line, ...]
    level: float | None
    theme: str
    colors: tuple[tuple[str, tuple[int, int, int]], ...]
    width: int
    height: int


class CurvePlot(PlotextPlot, can_focus=False):
    """Curves with their latest figures in the frame. Draws nothing again while nothing changes."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.drawn: Drawing | None = None
        self.wanted: Drawing | None = None
        self._shown: tuple[tuple[Line, ...], float | None] = ((), None)
        self._picture: list[Strip] = []

    def show(self, title: str, lines: list[Line], figures: str, level: float | None = None) -> None:
        """Say what to draw; the picture follows when it is ready."""
        self.border_title = Content(title)
        self.border_subtitle = Content.styled(figures, "$text-muted")
        self._shown = (tuple(lines), level)
        self._draw()

    def on_resize(self, event: Resize) -> None:
        self._draw()

    def render_line(self, y: int) -> Strip:
        """One line, as it was drawn for the size that the plot had then."""
        line = self._picture[y] if y < len(self._picture) else Strip([])
        return line.adjust_cell_length(self.size.width, self.rich_style)

    def _draw(self) -> None:
        lines, level = self._shown
        if not self.size or not lines:
            return
        names = sorted({"reference", *(line.color for line in lines)})
        colors = tuple((name, self._rgb(name)) for name in names)
        theme = self._get_plotext_theme_name(self.app.theme)
        wanted = Drawing(lines, level, theme, colors, self.size.width, self.size.height)
        if wanted != self.wanted:
            self.wanted = wanted
            self._build(wanted)

    @work(exclusive=True, description="a picture")
    async def _build(self, wanted: Drawing) -> None:
        picture = await asyncio.get_running_loop().run_in_executor(_PLOTTING, build, wanted)
        if wanted == self.wanted:
            self._picture, self.drawn = picture, wanted
            self.refresh()

    def _rgb(self, name: str) -> tuple[int, int, int]:
        return Color.parse(self.app.theme_variables.get(name, "#8791a3")).rgb


def build(drawing: Drawing) -> list[Strip]:
    """The lines of the picture, from its parts alone."""
    colors = dict(drawing.colors)
    plot = Plot()
    plot.plotsize(drawing.width, drawing.height)
    plot._set_size(drawing.width, drawing.height)  # plotsize alone does not hold (textual-plotext's issue 5)
    plot.theme(drawing.theme)
    drawable = [line for line in drawing.lines if line.curve]
    if drawing.level is not None and drawable:
        plot.hline(drawing.level, color=colors["reference"])
    for line in reversed(drawable):
        plot.plot(line.curve.steps, line.curve.values, marker="braille", color=colors[line.color])
    for line in drawable:
        if line.name:
            place = line.curve.steps[-1], line.curve.values[-1]
            plot.text(line.name, *place, color=colors[line.color], style="bold", alignment="right")
    plot.xaxes(True, False)
    plot.yaxes(True, False)
    plot.grid(False, False)
    steps = [step for line in drawable for step in (line.curve.steps[0], line.curve.steps[-1])]
    if steps:
        first, last = min(steps), max(steps)
        plot.xticks(sorted({first, (first + last) // 2, last}))
    plot.yfrequency(3 if drawing.height < 9 else 5)
    picture = Text.from_ansi(plot.build()).split(allow_blank=True)
    return [Strip(line.render(_CONSOLE)) for line in picture]
