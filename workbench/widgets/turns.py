"""The turns of a conversation before the user's last message, a line each: Prompt and Review show them above it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from storage.wording import counted
from workbench.shell.screen import present, put
from workbench.text import one_line

if TYPE_CHECKING:
    from storage.records import Prompt

MOST_LINES = 4


class TurnsBefore(Static):
    """Hidden where nothing was said before."""

    def __init__(self) -> None:
        super().__init__(id="before", markup=False)

    def show(self, prompt: Prompt | None) -> None:
        """Show the turns before the last message of a prompt; of many the last ones."""
        turns = prompt.messages[:-1] if prompt is not None else ()
        most = 1 if self.screen.has_class("-short") else MOST_LINES
        lines = [Content.assemble((f"{turn.role} ▸ ", "$text-muted"), one_line(turn.content)) for turn in turns[-most:]]
        if len(turns) > most > 1:
            lines[0] = Content.styled(f"… {counted(len(turns) - most + 1, 'turn')} before", "$text-muted")
        present(self, bool(lines))
        put(self, Content("\n").join(lines))
