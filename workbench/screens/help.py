"""The keys of the screen in front, and those of everywhere."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from workbench.actions import SCREENS, Action, of_screen, spoken
from workbench.screens.base import HEIGHTS, WIDTHS


class HelpScreen(ModalScreen[None]):
    """A page of keys, from the registry."""

    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS
    BINDINGS: ClassVar = [("escape,question_mark,f12,q,enter", "dismiss", "close")]

    def __init__(self, screen: str, keys: dict[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.about = screen if screen in SCREENS else "prompt"
        self.keys = keys

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog", classes="help"):
            with VerticalScroll():
                yield Static(help_page(self.about, self.keys))
            yield Static(Content.assemble(("esc", "bold $accent"), (" close", "$text-muted")), id="answer")

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = Content(f"Keys · {SCREENS[self.about]}")


def help_page(screen: str, keys: dict[str, tuple[str, ...]]) -> Content:
    """The actions of a screen, then those of everywhere: keys, what they do, and when."""
    lines = []
    for name in (screen, "app"):
        lines.append(Content.styled(SCREENS[name], "bold"))
        lines += [_line(action, keys[action.id]) for action in of_screen(name)]
        lines.append(Content(""))
    return Content("\n").join(lines[:-1])


def _line(action: Action, keys: tuple[str, ...]) -> Content:
    written = " ".join(spoken(key) for key in keys)
    when = f"  ({action.when})" if action.when else ""
    return Content.assemble((f"{written:<22} ", "bold $accent"), action.help, (when, "$text-muted"))
