"""A figure of the workspace, drawn: rows of intervals where its places have names, else points on two axes."""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.strip import Strip
from textual.widgets import Static

from storage.insight.figure import Plot
from workbench.shell.screen import present, put
from workbench.text import one_line
from workbench.widgets import axes
from workbench.widgets.intervals import NARROW, legend, marks, rows
from workbench.widgets.plots import Ground, Picture, strips_of


@dataclass(frozen=True)
class Points:
    """Series on two axes of numbers: lines, and dots with their intervals upright."""

    shown: Plot
    ground: Ground

    def strips(self) -> list[Strip]:
        plot = self.ground.plot()
        axes.draw(plot, self.shown, dict(self.ground.colors), self.ground.width, self.ground.height)
        return strips_of(plot)


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
        across = plot.y if plot.places else f"{plot.x} →"
        self.border_subtitle = Content.styled(one_line(across, max(10, self.size.width - 2)), "$text-muted")
        self._draw()

    def on_resize(self) -> None:
        if self.plot is not None:
            self.show(self.plot)

    def _draw(self) -> None:
        plot, cells = self.plot, self.scrollable_content_region.width
        if plot is None or not cells:
            return
        upwards = f"↑ {plot.y}" if cells >= NARROW and not plot.places else ""
        told = legend(plot, cells, upwards)
        present(self.query_one("#legend"), bool(told.plain))
        put(self.query_one("#legend", Static), told)
        present(self.query_one("#rows"), bool(plot.places))
        present(self.query_one("#points"), not plot.places)
        if plot.places:
            for name, drawn in zip(("#names", "#lanes"), rows(plot, cells), strict=True):
                put(self.query_one(name, Static), drawn)
        else:
            self.query_one("#points", PointPlot).show(plot)
