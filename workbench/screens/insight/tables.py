"""The table of a figure in a widget, and what its rows are of."""

from __future__ import annotations

from rich.text import Text

from storage.insight.figure import Cell, Found, Table
from workbench.text import cell, one_line, width
from workbench.widgets.table import RowTable

MOST_ROWS = 500  # on screen; what is written has them all
WIDEST = 44  # cells of a column


def fill(widget: RowTable, table: Table, widest: int = WIDEST) -> None:
    """Put a table into the widget, numbers to the right."""
    widget.clear(columns=True)
    told = table.told[:MOST_ROWS]
    for column, name in enumerate(table.header):
        room = max([width(name), *(width(one_line(row[column], widest)) for row in told)])
        widget.add_column(Text(one_line(name, widest)), key=f"{column}", width=min(widest, room))
    for words, values in zip(told, table.rows, strict=False):
        widget.add_row(*(_cell(*both) for both in zip(words, values, strict=True)))


def row_like(table: Table, before: tuple[Cell, ...], place: int) -> int:
    """Where the row stands now that stood at `place`: by its words, as its numbers move; else as near as can be."""
    words = _words(before)
    last = min(len(table.rows), MOST_ROWS) - 1
    return next((row for row, values in enumerate(table.rows) if _words(values) == words), max(0, min(place, last)))


def row_at(found: Found | None, place: int) -> tuple[Cell, ...]:
    """The row at a place; empty where there is none."""
    rows = found.table.rows if found is not None else ()
    return rows[place] if 0 <= place < len(rows) else ()


def _cell(words: str, value: Cell) -> Text:
    told = cell(words)
    if not isinstance(value, str):
        told.justify = "right"
    return told


def _words(row: tuple[Cell, ...]) -> list[str]:
    return [one for one in row if isinstance(one, str)]
