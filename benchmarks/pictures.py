"""Pictures of the reports, as SVG beside their JSON: axes, lines with their intervals, and where they are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 7.0, 4.5  # inches, of one panel
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by the colour-blind


def draw(path: Path, panels: Sequence[Callable[[Any], None]], title: str) -> Path:
    """Draw panels side by side into an SVG file of this name; each panel is given its axes. Returns the file."""
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "alignment-workbench", "axes.grid": True, "grid.alpha": 0.3})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(WIDTH * len(panels), HEIGHT), squeeze=False)
    for panel, place in zip(panels, axes[0], strict=True):
        panel(place)
    figure.suptitle(title)
    figure.tight_layout()
    target = path.with_suffix(".svg")
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
    return target


def colour(number: int) -> str:
    """The colour of a curve."""
    return COLOURS[number % len(COLOURS)]


def path_of(
    axes: Any, x: Sequence[float], points: Sequence[dict[str, float]], label: str, number: int, style: str
) -> None:
    """Means in the order they were measured in, each with its 95% interval; a point has `mean`, `low` and `high`."""
    means = [point["mean"] for point in points]
    below = [point["mean"] - point["low"] for point in points]
    above = [point["high"] - point["mean"] for point in points]
    axes.errorbar(
        x, means, (below, above), fmt=style, color=colour(number), label=label, markersize=4, capsize=3, elinewidth=0.8
    )
