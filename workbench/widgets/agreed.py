"""How far raters agree, as a sheet over the screen."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.widgets import Static

from workbench.commands.agreed import Table
from workbench.text import content, one_line
from workbench.widgets.dialogs import SheetDialog


class AgreementSheet(SheetDialog):
    """All tables, one below the other."""

    def __init__(self, found: Sequence[Table]) -> None:
        super().__init__("Agreement of raters")
        self.found = found

    def page(self) -> ComposeResult:
        for head, rows in self.found:
            lines = [head, *rows]
            widths = [max(len(one_line(line[column], 60)) for line in lines) for column in range(len(head))]
            text = "\n".join(
                "  ".join(one_line(cell, 60).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                for line in lines
            )
            yield Static(content(f"{text}\n"), classes="table")
