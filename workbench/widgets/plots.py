"""A small plot of curves over steps, in braille dots."""

from __future__ import annotations

from dataclasses import dataclass

from textual.color import Color
from textual.content import Content
from textual_plotext import PlotextPlot

from workbench.training.curves import Curve


@dataclass(frozen=True)
class Line:
    """One curve and its colour, a theme variable such as `policy` or `text-muted`.

    `name`, of one ASCII letter, stands at the curve's end, so that several are told apart without colours.
    """

    curve: Curve
    color: str
    name: str = ""


class CurvePlot(PlotextPlot, can_focus=False):
    """Curves with their latest figures in the frame. Draws nothing again while nothing changes."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.drawn: object = None

    def show(self, title: str, lines: list[Line], figures: str, level: float | None = None) -> None:
        """Draw lines (the first lies on top) and, when given, a horizontal `level`."""
        wanted = (title, tuple(lines), figures, level, self.app.theme, self.size)
        if wanted == self.drawn or not self.size:
            return
        self.drawn = wanted
        self.border_title = Content(title)
        self.border_subtitle = Content.styled(figures, "$text-muted")
        plot = self.plt
        plot.clear_data()
        plot.clear_figure()
        drawable = [line for line in lines if line.curve]
        if level is not None and drawable:
            plot.hline(level, color=self._rgb("reference"))
        for line in reversed(drawable):
            plot.plot(line.curve.steps, line.curve.values, marker="braille", color=self._rgb(line.color))
        for line in drawable:
            if line.name:
                place = line.curve.steps[-1], line.curve.values[-1]
                plot.text(line.name, *place, color=self._rgb(line.color), style="bold", alignment="right")
        plot.xaxes(True, False)
        plot.yaxes(True, False)
        plot.grid(False, False)
        steps = [step for line in drawable for step in line.curve.steps]
        if steps:
            first, last = min(steps), max(steps)
            plot.xticks(sorted({first, (first + last) // 2, last}))
        plot.yfrequency(3 if self.size.height < 9 else 5)
        self.refresh()

    def _rgb(self, name: str) -> tuple[int, int, int]:
        return Color.parse(self.app.theme_variables.get(name, "#8791a3")).rgb
