"""How far raters agree, as a sheet over the screen."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.widgets import Static

from workbench.commands.agreed import Table
from workbench.text import columns, content
from workbench.widgets.dialogs import SheetDialog


class AgreementSheet(SheetDialog):
    """All tables, one below the other."""

    def __init__(self, found: Sequence[Table]) -> None:
        super().__init__("Agreement of raters")
        self.found = found

    def page(self) -> ComposeResult:
        for head, rows in self.found:
            yield Static(content("\n".join([*columns(head, rows), ""])), classes="table")
