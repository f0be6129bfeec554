"""Choosing a theme by looking at it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from workbench.widgets.dialogs import Dialog


class ThemeDialog(Dialog[str]):
    """A list of themes; the one in focus is on while one moves through it, and Escape brings back the one before."""

    AUTO_FOCUS = "OptionList"
    previews_themes = True
    BINDINGS: ClassVar = [("j", "move(1)", "down"), ("k", "move(-1)", "up")]

    def __init__(self, names: list[str], current: str) -> None:
        super().__init__("Theme")
        self.names = names
        self.current = current

    def fields(self) -> ComposeResult:
        yield OptionList(*(Option(Content(name)) for name in self.names), markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = self.names.index(self.current)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self.workbench.theme = self.names[event.option_index]

    def on_option_list_option_selected(self) -> None:
        self.action_accept()

    def action_move(self, step: int) -> None:
        listed = self.query_one(OptionList)
        listed.action_cursor_down() if step > 0 else listed.action_cursor_up()

    def action_accept(self) -> None:
        self.dismiss(self.workbench.theme)

    def action_cancel(self) -> None:
        self.workbench.theme = self.current
        self.dismiss(None)
