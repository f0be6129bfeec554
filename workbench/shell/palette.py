"""The command palette: the actions of the screen in front and those of everywhere, then Textual's own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from textual.app import SystemCommand
from textual.screen import Screen

from workbench.shell.actions import SCREENS, of_screen

if TYPE_CHECKING:
    from textual.app import App

OF_TEXTUAL = ("Theme", "Screenshot", "Maximize", "Minimize")


def commands(app: App[None], base: Screen[Any], of_textual: Iterable[SystemCommand]) -> Iterable[SystemCommand]:
    """All that can be done now, as the palette lists it; `base` is the numbered screen in front."""
    for action in (*of_screen(getattr(base, "KEY", "")), *of_screen("app")):
        owner = "" if action.screen == "app" else f"{SCREENS[action.screen]}: "
        if action.method != "command_palette" and not action.method.startswith("app."):
            call = partial(app.run_action, action.method, app if action.screen == "app" else base)
            yield SystemCommand(f"{owner}{action.help}", action.id, call)
    for command in of_textual:
        if command.title in OF_TEXTUAL:
            yield command
