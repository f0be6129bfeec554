"""A figure in words: how to read it, what to do where it shows nothing yet, and its table to read in full."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.insight.figure import Figure, Found
from workbench.shell.actions import spoken
from workbench.text import columns, content, one_line
from workbench.widgets.dialogs import SheetDialog

FILLED_ON = {"frontier": ("train",), "win-rates": ("review",)}
"""The screens on which there comes to be something to show, by the figure's name."""
NOTED = 2  # notes below a figure; all of them stand in its sheet


class FigureSheet(SheetDialog):
    """The whole table, below how to read it and what to know of it."""

    def __init__(self, figure: Figure, found: Found) -> None:
        super().__init__(figure.title)
        self.figure = figure
        self.found = found

    def page(self) -> ComposeResult:
        yield Static(Content("\n").join([content(self.figure.what), *_notes(self.found.notes), Content()]))
        header, *rows = columns(self.found.table.header, self.found.table.told)
        table = Content("\n").join([Content.styled(header, "$text-muted"), *(content(row) for row in rows)])
        yield Static(table, classes="table")


def how_to_read(figure: Figure, found: Found | None) -> Content:
    """A sentence on how to read it, and the first of what to know of it."""
    notes = found.notes[:NOTED] if found is not None else ()
    return Content("\n").join([content(figure.what), *_notes(notes)])


def nothing_yet(figure: Figure, known: Found | WorkbenchError | None, keys: dict[str, tuple[str, ...]]) -> Content:
    """Why nothing is drawn: it is being read, it cannot be read, or something is missing, and where to do that."""
    if known is None:
        return Content.styled("Reading it…", "$text-muted")
    if isinstance(known, WorkbenchError):
        return Content("\n").join(
            [Content.assemble(("✕ ", "$text-error"), (one_line(known.message, 400), "bold")),
             Content.styled(one_line(known.hint or "", 400), "$text-muted")]
        )  # fmt: skip
    missing = one_line(known.missing, 400)
    lines = [Content.styled(f"{figure.title}: nothing to show yet.", "bold"),
             Content.styled(f"{missing[:1].upper()}{missing[1:]}.", "$text-muted")]  # fmt: skip
    where = FILLED_ON.get(figure.name, ())
    if where:
        parts = [
            Content.assemble((spoken(keys[f"app.show-{name}"][0]), "bold $accent"), f" {name.title()}")
            for name in where
        ]
        lines.append(Content("   ").join(parts))
    return Content("\n").join(lines)


def _notes(notes: tuple[str, ...]) -> list[Content]:
    return [Content.styled(f"· {one_line(note, 400)}", "$text-muted") for note in notes]
