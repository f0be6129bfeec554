"""Pictures made by plotext, in braille dots. Each is drawn on a thread of its own, and kept until it changes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from typing import Protocol

from rich.console import Console
from rich.segment import Segment
from rich.text import Text
from textual import work
from textual.color import Color
from textual.content import Content
from textual.events import Resize
from textual.strip import Strip
from textual_plotext import PlotextPlot
from textual_plotext.plot import Plot

from storage import faults
from storage.workspace import Workspace
from workbench.text import one_line
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


class Drawable(Protocol):
    """All that a picture is made of; two that are equal give the same picture."""

    def strips(self) -> list[Strip]:
        """The lines of the picture, from its parts alone."""
        ...


@dataclass(frozen=True)
class Ground:
    """What every picture is drawn on: the theme, the colours by their names, and the room, in cells."""

    theme: str
    colors: tuple[tuple[str, tuple[int, int, int]], ...]
    width: int
    height: int

    def plot(self) -> Plot:
        """An empty plot of this size."""
        plot = Plot()
        plot.plotsize(self.width, self.height)
        plot._set_size(self.width, self.height)  # plotsize alone does not hold (textual-plotext's issue 5)
        plot.theme(self.theme)
        plot.xaxes(True, False)
        plot.yaxes(True, False)
        plot.grid(False, False)
        plot.yfrequency(3 if self.height < 9 else 5)
        return plot


class Picture(PlotextPlot, can_focus=False):
    """What a `Drawable` looks like. Nothing is drawn again while nothing changes."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.drawn: Drawable | None = None
        self.wanted: Drawable | None = None
        self._picture: list[Strip] = []

    def drawing(self) -> Drawable | None:
        """What is to be drawn now; None where there is nothing."""
        raise NotImplementedError

    def on_resize(self, event: Resize) -> None:
        self.draw_anew()

    def render_line(self, y: int) -> Strip:
        """One line, as it was drawn for the size that the plot had then."""
        line = self._picture[y] if y < len(self._picture) else Strip([])
        return line.adjust_cell_length(self.size.width, self.rich_style)

    def draw_anew(self) -> None:
        """Draw what is wanted now; the picture follows when it is ready."""
        wanted = self.drawing() if self.size else None
        if wanted is not None and wanted != self.wanted:
            self.wanted = wanted
            self._build(wanted)

    @work(exclusive=True, description="a picture")
    async def _build(self, wanted: Drawable) -> None:
        workspace = getattr(self.app, "workspace", None)
        picture = await asyncio.get_running_loop().run_in_executor(_PLOTTING, drawn_or_told, wanted, workspace)
        if wanted == self.wanted:
            self._picture, self.drawn = picture, wanted
            self.refresh()

    def ground(self, names: set[str]) -> Ground:
        """The widget's room, with these theme variables as colours."""
        colors = tuple((name, self._rgb(name)) for name in sorted(names))
        theme = self._get_plotext_theme_name(self.app.theme)
        return Ground(theme, colors, self.size.width, self.size.height)

    def _rgb(self, name: str) -> tuple[int, int, int]:
        return Color.parse(self.app.theme_variables.get(name, "#8791a3")).rgb


def drawn_or_told(wanted: Drawable, workspace: Workspace | None) -> list[Strip]:
    """The picture; where drawing it fails, that in words, with the fault in the log: it is no reason to end the app."""
    try:
        return wanted.strips()
    except Exception as error:
        told = faults.in_words(error, workspace)
        return [Strip([Segment(line)]) for line in (f"✕ {told.message}", f"  {one_line(told.hint or '')}")]


def strips_of(plot: Plot) -> list[Strip]:
    """A finished plot as lines for the terminal."""
    picture = Text.from_ansi(plot.build()).split(allow_blank=True)
    return [Strip(line.render(_CONSOLE)) for line in picture]


@dataclass(frozen=True)
class Curves:
    """Curves over steps (the first lies on top) and a horizontal `level`."""

    lines: tuple[Line, ...]
    level: float | None
    ground: Ground

    def strips(self) -> list[Strip]:
        colors = dict(self.ground.colors)
        plot = self.ground.plot()
        drawable = [line for line in self.lines if line.curve]
        if self.level is not None and drawable:
            plot.hline(self.level, color=colors["reference"])
        for line in reversed(drawable):
            plot.plot(line.curve.steps, line.curve.values, marker="braille", color=colors[line.color])
        for line in drawable:
            if line.name:
                place = line.curve.steps[-1], line.curve.values[-1]
                plot.text(line.name, *place, color=colors[line.color], style="bold", alignment="right")
        steps = [step for line in drawable for step in (line.curve.steps[0], line.curve.steps[-1])]
        if steps:
            first, last = min(steps), max(steps)
            plot.xticks(sorted({first, (first + last) // 2, last}))
        return strips_of(plot)


class CurvePlot(Picture):
    """Curves with their latest figures in the frame."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self._shown: tuple[tuple[Line, ...], float | None] = ((), None)

    def show(self, title: str, lines: list[Line], figures: str, level: float | None = None) -> None:
        """Say what to draw; the picture follows when it is ready."""
        self.border_title = Content(title)
        self.border_subtitle = Content.styled(figures, "$text-muted")
        self._shown = (tuple(lines), level)
        self.draw_anew()

    def drawing(self) -> Curves | None:
        lines, level = self._shown
        return Curves(lines, level, self.ground({"reference", *(line.color for line in lines)})) if lines else None
