"""Text fields that take only safe text, whatever is pasted into them."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from textual import events
from textual.message import Message
from textual.widgets import Input, TextArea

from storage.errors import WorkbenchError
from workbench.text import safe_text
from workbench.widgets.passing import PassesOn

if TYPE_CHECKING:
    from textual.app import App


class SafeInput(PassesOn, Input):
    """A one-line field; control characters in a paste become visible signs."""

    def _on_paste(self, event: events.Paste) -> None:
        event.text = " ".join(safe_text(event.text).split("\n"))
        super()._on_paste(event)


class SafeTextArea(PassesOn, TextArea):
    """A field of several lines; control characters in a paste become visible signs."""

    def __init__(self, text: str = "", **options: object) -> None:
        super().__init__(safe_text(text), soft_wrap=True, highlight_cursor_line=False, **options)  # type: ignore[arg-type]

    async def _on_paste(self, event: events.Paste) -> None:
        event.text = safe_text(event.text)
        await super()._on_paste(event)


class PromptInput(SafeTextArea):
    """Where prompts are written. Enter is left to the screen while there is one line; up and down recall history."""

    class Recall(Message):
        """The researcher wants the earlier (`step` 1) or later (-1) prompt."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    async def _on_key(self, event: events.Key) -> None:
        row = self.cursor_location[0]
        if event.key == "enter" and "\n" not in self.text:
            event.prevent_default()
        elif (event.key == "up" and row == 0) or (event.key == "down" and row == self.document.line_count - 1):
            event.prevent_default().stop()
            self.post_message(self.Recall(1 if event.key == "up" else -1))

    def write(self, text: str) -> None:
        """Replace the text and go to its end."""
        self.load_text(safe_text(text))
        self.move_cursor(self.document.end)


def edit_outside(app: App[object], text: str) -> str:
    """Let the researcher edit a text in $VISUAL or $EDITOR, which know input methods and right-to-left text.

    Raises:
        WorkbenchError: no editor is set, it cannot be started, or it ended with a failure.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command:
        raise WorkbenchError("no editor is set", "set EDITOR, for example `export EDITOR=nano`, and start again")
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        path = Path(folder) / "text.md"
        path.write_text(safe_text(text), encoding="utf-8")
        try:
            with app.suspend():
                subprocess.run([*shlex.split(command), str(path)], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise WorkbenchError(f"the editor failed: {error}", f"EDITOR is {command!r}; your text is kept") from error
        return path.read_text(encoding="utf-8", errors="replace").removesuffix("\n")
