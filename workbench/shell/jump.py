"""Jump mode: a letter over everything that can take the focus, and a key press goes there."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

LETTERS = "asdfghjklqwertyuiopzxcvbnm"  # the home row first


class JumpScreen(ModalScreen[Widget | None]):
    """Letters over a screen. Any other key closes it and changes nothing."""

    BINDINGS: ClassVar = [("escape", "dismiss(None)", "stay")]

    def __init__(self, targets: list[Widget]) -> None:
        super().__init__()
        self.targets = dict(zip(LETTERS, targets, strict=False))

    def compose(self) -> ComposeResult:
        for letter, widget in self.targets.items():
            label = Static(f" {letter} ", classes="jump", markup=False)
            label.styles.offset = (widget.region.x + 1, widget.region.y)
            yield label

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss(self.targets.get(event.character or ""))

    def on_click(self) -> None:
        self.dismiss(None)


def targets(screen: Widget) -> list[Widget]:
    """What on a screen can take the focus and is in sight, from the top left to the bottom right."""
    chain = [one for one in screen.screen.focus_chain if one.region.area and screen.region.overlaps(one.region)]
    return sorted(chain, key=lambda one: (one.region.y, one.region.x))
