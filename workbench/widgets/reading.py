"""Reading a prompt that has no room above its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from workbench.text import content, one_line
from workbench.widgets.dialogs import SheetDialog

if TYPE_CHECKING:
    from storage.records import Prompt


class PromptSheet(SheetDialog):
    """All that was said, the last message at the end."""

    def __init__(self, prompt: Prompt) -> None:
        super().__init__(f"The prompt · {one_line(prompt.language, 12)}")
        self.prompt = prompt

    def page(self) -> ComposeResult:
        *before, last = self.prompt.messages
        for turn in before:
            yield Static(Content.assemble((f"{one_line(turn.role)} ▸ ", "$text-muted"), content(turn.content)))
        yield Static(content(last.content))


def is_cut(text: Static) -> bool:
    """Whether a text is longer than the room that it has."""
    shown = text.content_size
    return shown.height < text.get_content_height(text.size, text.size, shown.width)
