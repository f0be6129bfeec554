"""The keys of the screen in front, and those of everywhere."""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from workbench.shell.actions import SCREENS, of_screen, spoken
from workbench.shell.screen import HEIGHTS, WIDTHS


class HelpScreen(ModalScreen[None]):
    """A page of keys, from the registry."""

    CSS_PATH = "style.tcss"
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
                yield Static(help_page(self.about, self.keys, self.app.theme_variables, self.app.size.width))
            yield Static(Content.assemble(("esc", "bold $accent"), (" close", "$text-muted")), id="answer")

    def on_mount(self) -> None:
        self.query_one("#dialog").border_title = Content(f"Keys · {SCREENS[self.about]}")


def help_page(screen: str, keys: dict[str, tuple[str, ...]], colors: dict[str, str], width: int) -> Table:
    """The actions of a screen, then those of everywhere: keys, what they do, and when."""
    muted = colors["text-muted"]
    page = Table.grid(padding=(0, 2))
    page.add_column(
        no_wrap=True, max_width=18 if width >= 60 else 8, overflow="ellipsis", style=f"bold {colors['accent']}"
    )
    page.add_column()
    for name in (screen,) if screen == "dialog" else (screen, "app"):  # under a dialog those of everywhere do not work
        page.add_row(Text(SCREENS[name], style="bold not italic default"), "")
        for _, group in groupby(of_screen(name), key=lambda action: (action.help, action.when)):
            actions = list(group)
            written = " ".join(spoken(key) for action in actions for key in keys[action.id])
            when = f"  when: {actions[0].when}" if actions[0].when else ""
            page.add_row(Text(written), Text.assemble(actions[0].help, (when, muted)))
        page.add_row("", "")
    return page
