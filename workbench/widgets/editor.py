"""Text fields: they hold what is typed, pasted or loaded to the character, and draw nothing that a terminal obeys."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events
from textual._cells import cell_width_to_column_index
from textual.document._document_navigator import DocumentNavigator
from textual.document._wrapped_document import WrappedDocument
from textual.expand_tabs import expand_tabs_inline
from textual.message import Message
from textual.widgets import Input, TextArea

from storage.errors import WorkbenchError
from workbench.text import drawn, pasted
from workbench.widgets.document import DrawnDocument, RawDocument
from workbench.widgets.passing import PassesOn

if TYPE_CHECKING:
    from textual.app import App


# So that a sign stands out from the same shape that somebody typed.
_SIGN = Style(underline=True)


def _signed(text: str, shown: str) -> Text:
    """A line as it is drawn, its signs underlined."""
    line = Text(shown, end="", no_wrap=True)
    if text != shown:
        for place, (stored, sign) in enumerate(zip(text, shown, strict=True)):
            if stored != sign:
                line.stylize(_SIGN, place, place + 1)
    return line


def _typed(event: events.Key) -> str | None:
    """The character of a key that Textual takes for no letter, though keyboards and input methods have it: ZWNJ, RLM, a
    no-break space, an ideographic space."""
    sign = event.character
    return sign if sign is not None and len(sign) == 1 and sign >= "\xa0" and not event.is_printable else None


class SafeInput(PassesOn, Input):
    """A one-line field that holds any text as it is, with its line breaks, and draws signs for what has no shape."""

    async def _on_key(self, event: events.Key) -> None:
        if (sign := _typed(event)) is not None:
            event.prevent_default().stop()
            self.replace(sign, *self.selection)

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default().stop()  # Textual would call its own handler as well: it takes the first line alone
        self.replace(pasted(event.text), *self.selection)

    @property
    def _shown(self) -> str:
        return drawn(self.value).replace("\t", "␉")

    @property
    def _value(self) -> Text:
        line = _signed(self.value, self._shown)
        line.overflow = "ignore"
        return line

    def _position_to_cell(self, position: int) -> int:
        return cell_len(self._shown[:position])

    def _cell_offset_to_index(self, offset: int) -> int:
        return cell_width_to_column_index(self._shown, offset + self.scroll_offset[0], 1)


class SafeTextArea(PassesOn, TextArea):
    """A field of several lines that holds any text to the character, and draws signs for what has no shape."""

    def __init__(self, text: str = "", **options: object) -> None:
        super().__init__(text, soft_wrap=True, highlight_cursor_line=False, **options)  # type: ignore[arg-type]

    async def _on_key(self, event: events.Key) -> None:
        if (sign := _typed(event)) is not None and not self.read_only:
            event.prevent_default().stop()
            self._replace_via_keyboard(sign, *self.selection)

    async def _on_paste(self, event: events.Paste) -> None:
        event.text = pasted(event.text)  # and Textual calls its own handler after this one

    def _set_document(self, text: str, language: str | None) -> None:
        document = RawDocument(text)
        self.document = document
        self.wrapped_document = WrappedDocument(DrawnDocument(document), tab_width=self.indent_width)
        self.navigator = DocumentNavigator(self.wrapped_document)
        self._build_highlight_map()
        self.move_cursor((0, 0))
        self._rewrap_and_refresh_virtual_size()

    def get_line(self, line_index: int) -> Text:
        line = self.document.get_line(line_index)
        return _signed(line, drawn(line))

    def get_column_width(self, row: int, column: int) -> int:
        return cell_len(expand_tabs_inline(drawn(self.document[row][:column]), self.indent_width))

    def cell_width_to_column_index(self, cell_width: int, row_index: int) -> int:
        return cell_width_to_column_index(drawn(self.document[row_index]), cell_width, self.indent_width)


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
        self.load_text(text)
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
        path.write_bytes(f"{text}\n".encode())  # editors end a file with a line break, and it is taken off again
        try:
            with app.suspend():
                subprocess.run([*shlex.split(command), str(path)], check=True)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise WorkbenchError(f"the editor failed: {error}", f"EDITOR is {command!r}; your text is kept") from error
        try:
            return path.read_bytes().decode().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkbenchError(f"the editor's text cannot be read: {error}", "save it as UTF-8; your text is kept as "
                                 "it was") from error  # fmt: skip
