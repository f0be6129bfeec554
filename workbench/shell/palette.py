"""The command palette: what can be done at this moment, by groups, each with its key; then some of Textual's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual.actions import parse
from textual.app import App
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode
from textual.types import IgnoreReturnCallbackType

from workbench.shell.action import Action
from workbench.shell.actions import SCREENS, of_screen, spoken

if TYPE_CHECKING:
    from workbench.shell.frame import Frame

OF_TEXTUAL = {
    "Screenshot": "write a picture of the screen, as SVG",
    "Maximize": "give the widget in focus the whole screen",
    "Minimize": "give the widget its own place again",
}
NARROW = 60  # columns; below, groups are told by their order alone


@dataclass(frozen=True)
class Command:
    """One line of the palette."""

    group: str
    key: str
    words: str
    call: IgnoreReturnCallbackType


class WorkbenchCommands(Provider):
    """The actions of the registry that work on the screen where the palette was called."""

    async def discover(self) -> Hits:
        """All of them, in their groups."""
        for _, group in groupby(self._commands(), key=lambda command: command.group):
            for n, command in enumerate(group):
                shown = self._line(command, first=n == 0)
                yield DiscoveryHit(shown, command.call, text=command.words)

    async def search(self, query: str) -> Hits:
        """Those that fit what is typed, the best first."""
        matcher = self.matcher(query)
        for command in self._commands():
            score = matcher.match(f"{command.words} {command.key} {command.group}")
            if score > 0:
                yield Hit(score, self._line(command, first=True), command.call, text=command.words)

    def _commands(self) -> Iterator[Command]:
        app, screen = cast("Frame", self.app), self.screen
        for action in of_screen(getattr(screen, "KEY", "")):
            if applies(action, screen):
                call = partial(app.run_action, action.method, screen)
                yield Command(SCREENS[action.screen], spoken(app.keys[action.id][0]), action.help, call)
        for action in sorted(of_screen("app"), key=lambda action: not action.method.startswith("show(")):
            if applies(action, app) and action.id != "app.palette":
                group = "Go to" if action.method.startswith("show(") else "App"
                call = partial(app.run_action, action.method, app)
                yield Command(group, spoken(app.keys[action.id][0]), action.help, call)
        for command in App.get_system_commands(app, screen):
            if command.title in OF_TEXTUAL:
                yield Command("Look", "", f"{command.title}: {OF_TEXTUAL[command.title]}", command.callback)

    def _line(self, command: Command, *, first: bool) -> Text:
        """Group (once, where all are listed), key and words, in columns."""
        colors = self.app.theme_variables
        group = Text(f"{command.group if first else '':<8}", style=colors["text-muted"])
        key = Text(f"{command.key:>9}  ", style=f"bold {colors['accent']}")
        line = Text.assemble(*([] if self.app.size.width < NARROW else [group]), key, command.words)
        line.no_wrap, line.overflow = True, "ellipsis"
        return line


def applies(action: Action, owner: DOMNode) -> bool:
    """Whether an action of a screen or of the app does something now."""
    _, name, parameters = parse(action.method)
    return owner.check_action(name, parameters) is True
