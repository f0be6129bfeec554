"""What a figure is: a plot and a table that are read from the workspace, and how to read them.

Everything here is plain data. The terminal, the app, SVG, PNG and CSV draw or write the same :class:`Found`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from storage.database import Database

Cell = str | int | float | None
TOO_FAR = 1e300  # no axis goes there: the difference of two such numbers may be none


class Point(msgspec.Struct, frozen=True):
    """One value `y` at `x`, both finite and less than :data:`TOO_FAR`.

    Attributes:
        low, high: the 95% interval of `y`; None where there is none.
        label: what it is of, such as a version's name; raw text.
        n: how many units (prompts, pairs, ratings) `y` is of; None where that is not known.
    """

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    n: int | None = None


class Series(msgspec.Struct, frozen=True):
    """Points of one kind under one name."""

    name: str
    points: tuple[Point, ...]
    kind: Literal["line", "dots"] = "dots"


class Plot(msgspec.Struct, frozen=True):
    """Series in one frame.

    Attributes:
        x, y: what the axes are, with units.
        level: a horizontal line, above which is better, or which chance gives.
        places: names of what stands at x = 0, 1, 2, ... where x is no number; raw text.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    level: float | None = None
    places: tuple[str, ...] = ()

    @property
    def points(self) -> list[Point]:
        """All of all series."""
        return [point for one in self.series for point in one.points]


class Table(msgspec.Struct, frozen=True):
    """Plain values under a header; None is what is not known."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...] = ()

    @property
    def told(self) -> list[list[str]]:
        """The rows as a person reads them: three digits, and a dash for what is not known."""
        return [[_told(cell) for cell in row] for row in self.rows]


class Found(msgspec.Struct, frozen=True):
    """What a figure shows of a workspace today.

    Attributes:
        plot: None where there is nothing to draw.
        notes: what to know of it, a sentence each; the most important first.
        missing: where there is no plot, what to do so that there is one; else empty.
    """

    plot: Plot | None
    table: Table
    notes: tuple[str, ...] = ()
    missing: str = ""


class Figure(msgspec.Struct, frozen=True):
    """A figure by its name on the command line; `what` says in a sentence how to read it."""

    name: str
    title: str
    what: str
    read: Callable[[Database], Found]


def point(
    x: float, y: float, interval: tuple[float | None, float | None] | None, label: str = "", n: int | None = None
) -> Point | None:
    """A point, with its interval where that has two ends; None where no axis can hold x or y."""
    if not (abs(x) < TOO_FAR and abs(y) < TOO_FAR):  # which what is no number is not either
        return None
    low, high = interval or (None, None)
    if low is None or high is None or not (abs(low) < TOO_FAR and abs(high) < TOO_FAR):
        low = high = None
    return Point(x, y, low, high, label, n)


class Placed:
    """Series that are filled point by point, each at a place that has a name; `all` is the first place.

    Args:
        places: their order, where it is not that in which they come.
        by_name: whether it is that of their names, as of languages.
    """

    def __init__(self, places: Iterable[str] = (), *, by_name: bool = False) -> None:
        self._order = tuple(places)
        self._by_name = by_name
        self._points: dict[str, list[tuple[str, Point]]] = {}

    def add(
        self, series: str, place: str, y: float | None, low: float | None = None, high: float | None = None,
        n: int | None = None,
    ) -> None:  # fmt: skip
        """A value at a place; one that is not known, or not finite, is left out."""
        made = None if y is None else point(0.0, y, (low, high), place, n)
        if made is not None:
            self._points.setdefault(series, []).append((place, made))

    @property
    def places(self) -> tuple[str, ...]:
        """Those that have a point, in their order; `all` before them."""
        used = dict.fromkeys(place for points in self._points.values() for place, _ in points)
        ordered = [place for place in dict.fromkeys((*self._order, *used)) if place in used]
        return tuple(sorted(ordered, key=lambda place: (place != "all", place if self._by_name else "")))

    @property
    def series(self) -> tuple[Series, ...]:
        """In the order in which they came."""
        at = {place: float(number) for number, place in enumerate(self.places)}
        return tuple(
            Series(name, tuple(msgspec.structs.replace(made, x=at[place]) for place, made in points))
            for name, points in self._points.items()
        )

    def plot(self, title: str, x: str, y: str, level: float | None = None) -> Plot | None:
        """All of them in one frame; None where there is nothing to draw."""
        return Plot(title, x, y, self.series, level, self.places) if self._points else None


def _told(cell: Cell) -> str:
    if cell is None or cell == "":
        return "-"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
