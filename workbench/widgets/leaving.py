"""Leaving while something is not on disk: it is said, waited for, tried again, or given up."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from workbench.shell.saving import Saver
from workbench.text import one_line
from workbench.widgets.dialogs import Dialog

LOOK_SECONDS = 0.1
MOST_LINES = 6


class LeaveDialog(Dialog[bool]):
    """Closes with yes by itself as soon as everything is stored; each write waits for a bounded time only."""

    BINDINGS: ClassVar = [("enter", "accept", "try again"), ("y", "leave", "leave"), ("n", "cancel", "stay")]

    def __init__(self, saver: Saver) -> None:
        super().__init__("Not everything is saved yet")
        self.saver = saver

    def fields(self) -> ComposeResult:
        yield Static(id="pending", markup=False)
        keys = [("esc", "stay"), ("y", "leave without it"), ("enter", "try again")]
        told = [Content.assemble((key, "bold $accent"), f" {word}") for key, word in keys]
        yield Static(Content("   ").join(told), id="answer")

    def on_mount(self) -> None:
        self.look()
        self.set_interval(LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Say what is missing and why; when nothing is, leave."""
        if not self.saver.pending:
            self.dismiss(True)
            return
        state = "saving…" if self.saver.under_way else "✕ not saved"
        lines = [Content.styled(state, "bold $text-warning")]
        lines += [Content(f"· {one_line(words)}") for words in self.saver.pending[:MOST_LINES]]
        why = {f"{one.error.message}: {one.error.hint}" for one in self.saver.unsaved.values()}
        lines += [Content.styled(one_line(reason), "$text-error") for reason in sorted(why)]
        self.query_one("#pending", Static).update(Content("\n").join(lines))

    def action_accept(self) -> None:
        self.saver.try_again(asked=True)

    def action_leave(self) -> None:
        self.dismiss(True)
