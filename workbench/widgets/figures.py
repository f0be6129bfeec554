"""A figure of the workspace, drawn: rows of intervals where its places have names, else points on two axes."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.strip import Strip
from textual.widgets import Static

from storage.insight.figure import Plot, Point
from workbench.shell.screen import present, put
from workbench.text import one_line
from workbench.widgets.intervals import NARROW, legend, marks, rows
from workbench.widgets.plots import Ground, Picture, strips_of

MOST_LABELS = 40  # points; more of them would write over each other
LONGEST_LABEL = 10  # cells


@dataclass(frozen=True)
class Points:
    """Series on two axes of numbers: lines, and dots with their intervals upright."""

    shown: Plot
    ground: Ground

    def strips(self) -> list[Strip]:
        colors, told = dict(self.ground.colors), marks(self.shown)
        plot = self.ground.plot()
        if self.shown.level is not None:
            plot.hline(self.shown.level, color=colors["text-muted"])
        named = len(self.shown.points) <= MOST_LABELS
        for one in sorted(self.shown.series, key=lambda one: one.kind != "line"):  # dots lie on top
            sign, color = told[one.name][0], colors[told[one.name][1]]
            xs, ys = [point.x for point in one.points], [point.y for point in one.points]
            if one.kind == "line":
                plot.plot(xs, ys, marker="braille", color=color)
            for point in one.points:
                if point.low is not None and point.high is not None:
                    plot.plot([point.x, point.x], [point.low, point.high], marker="│", color=color)
                    for end, cap in ((point.low, "┴"), (point.high, "┬")):
                        plot.text(cap, point.x, end, color=color, alignment="center")
            if one.kind != "line":
                plot.scatter(xs, ys, marker=sign, color=color)
            elif xs and sign != "─":
                plot.scatter(xs[-1:], ys[-1:], marker=sign, color=color)
            if named and one.kind != "line":
                for point in one.points:
                    plot.text(sign + _label(point), point.x, point.y, color=color, style="bold", alignment="left")
        points = self.shown.points
        label = LONGEST_LABEL / max(LONGEST_LABEL + 1, self.ground.width) if named else 0.0
        bounds = [value for point in points for value in (point.low, point.high) if value is not None]
        level = [] if self.shown.level is None else [self.shown.level]
        across = _axis([point.x for point in points], label)  # the last label begins at its point
        upwards = _axis([point.y for point in points] + bounds + level, 0.0)
        plot.xlim(*across)
        plot.ylim(*upwards)
        plot.xticks(*_ticks(across, 3 if self.ground.width < NARROW else 5))
        plot.yticks(*_ticks(upwards, 3 if self.ground.height < 9 else 5))
        return strips_of(plot)


def _axis(values: list[float], beyond: float) -> tuple[float, float]:
    """From the lowest value to the highest, and a share of that beyond; never less than can be told apart."""
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(1.0, abs(low), abs(high)):
        low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
    return low, high + beyond * (high - low)


def _ticks(axis: tuple[float, float], count: int) -> tuple[list[float], list[str]]:
    """Places along an axis, and their figures."""
    places = [axis[0] + (axis[1] - axis[0]) * part / (count - 1) for part in range(count)]
    return places, [f"{place:.3g}" for place in places]


def _label(point: Point) -> str:
    """The label, where plotext can place it: a wide character would push its line apart."""
    return one_line(point.label, LONGEST_LABEL) if point.label.isascii() else ""


class PointPlot(Picture):
    """Points on two axes."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.shown: Plot | None = None

    def show(self, plot: Plot) -> None:
        self.shown = plot
        self.draw_anew()

    def drawing(self) -> Points | None:
        if self.shown is None or not self.shown.points:
            return None
        colors = {color for _, color in marks(self.shown).values()} | {"text-muted"}
        return Points(self.shown, self.ground(colors))


class FigureView(VerticalScroll):
    """A plot with its title and its legend; more rows than there is room for scroll."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.plot: Plot | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="legend", markup=False)
        with Horizontal(id="rows"):
            yield Static(id="names", markup=False)
            yield Static(id="lanes", markup=False)
        yield PointPlot(id="points")

    def show(self, plot: Plot) -> None:
        self.plot = plot
        self.border_title = Content(one_line(plot.title, 80))
        across = plot.y if plot.places else f"{plot.y} against {plot.x}"
        self.border_subtitle = Content.styled(one_line(across, max(10, self.size.width - 2)), "$text-muted")
        self._draw()

    def on_resize(self) -> None:
        if self.plot is not None:
            self.show(self.plot)

    def _draw(self) -> None:
        plot, cells = self.plot, self.scrollable_content_region.width
        if plot is None or not cells:
            return
        told = legend(plot, cells)
        present(self.query_one("#legend"), bool(told.plain))
        put(self.query_one("#legend", Static), told)
        present(self.query_one("#rows"), bool(plot.places))
        present(self.query_one("#points"), not plot.places)
        if plot.places:
            for name, drawn in zip(("#names", "#lanes"), rows(plot, cells), strict=True):
                put(self.query_one(name, Static), drawn)
        else:
            self.query_one("#points", PointPlot).show(plot)
