"""A figure in words: how to read it, what to do where it shows nothing yet, and its table to read in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.insight.figure import Figure, Found
from storage.workspace import Workspace
from workbench.screens.insight.tables import fill
from workbench.shell.actions import spoken
from workbench.text import content, from_home, one_line
from workbench.widgets.dialogs import SheetDialog
from workbench.widgets.table import RowTable

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

FILLED_ON = {
    "frontier": ("train",),
    "proxy": ("train", "review"),
    "languages": ("train",),
    "win-rates": ("review",),
    "balance": ("review", "library"),
    "agreement": ("review",),
    "length": ("review",),
}
"""The screens on which there comes to be something to show, by the figure's name; the others need a command."""
WIDEST = 60  # cells of a column of the sheet
NOTED = 2  # notes below a figure; all of them stand in its sheet


class FigureSheet(SheetDialog):
    """The whole table, below how to read it and what to know of it."""

    CSS_PATH = "style.tcss"

    def __init__(self, figure: Figure, found: Found) -> None:
        super().__init__(figure.title)
        self.figure = figure
        self.found = found

    def page(self) -> ComposeResult:
        yield Static(Content("\n").join([content(self.figure.what), *_notes(self.found.notes), Content()]))
        table = RowTable(cursor_type="none")
        table.can_focus = False  # the page scrolls, with all that stands on it
        yield table

    def on_mount(self) -> None:
        fill(self.query_one(RowTable), self.found.table, WIDEST)


def how_to_read(figure: Figure, found: Found | None) -> Content:
    """A sentence on how to read it, and the first of what to know of it."""
    notes = found.notes[:NOTED] if found is not None else ()
    return Content("\n").join([content(figure.what), *_notes(notes)])


def nothing_yet(figure: Figure, known: Found | WorkbenchError | None, app: WorkbenchApp) -> Content:
    """Why nothing is drawn: it is being read, it cannot be read, or something is missing, and where to do that."""
    if known is None:
        return Content.styled("Reading it…", "$text-muted")
    if isinstance(known, WorkbenchError):
        what, hint = one_line(known.message, 400), one_line(known.hint or "", 400)
        return Content.assemble(("✕ ", "$text-error"), (f"{what}\n", "bold"), (hint, "$text-muted"))
    missing = one_line(known.missing, 400)
    lines = [
        Content.styled(f"{figure.title}: nothing to show yet.", "bold"),
        Content.styled(f"{missing[:1].upper()}{missing[1:]}.", "$text-muted"),
    ]
    if "`" in missing and app.workspace != Workspace.default():
        where = one_line(from_home(app.workspace.root), 60)
        lines.append(Content.styled(f"In a shell, with --workspace {where}", "$text-muted"))
    keys = [
        Content.assemble((spoken(app.keys[f"app.show-{name}"][0]), "bold $accent"), f" {name.title()}")
        for name in FILLED_ON.get(figure.name, ())
    ]
    return Content("\n").join([*lines, Content("   ").join(keys)])


def _notes(notes: tuple[str, ...]) -> list[Content]:
    return [Content.styled(f"· {one_line(note, 400)}", "$text-muted") for note in notes]
