"""Text fields: they hold what is typed, pasted or loaded to the character, and draw nothing that a terminal obeys."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text
from textual import events
from textual._cells import cell_width_to_column_index
from textual.app import SuspendNotSupported
from textual.document._document_navigator import DocumentNavigator
from textual.document._wrapped_document import WrappedDocument
from textual.expand_tabs import expand_tabs_inline
from textual.geometry import Offset
from textual.message import Message
from textual.strip import Strip
from textual.widgets import Input, TextArea

from storage.errors import WorkbenchError
from workbench.shell import bidi
from workbench.text import drawn, pasted
from workbench.widgets.document import DrawnDocument, RawDocument
from workbench.widgets.passing import PassesOn

if TYPE_CHECKING:
    from textual.app import App
    from textual.document._document import Location


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
        if self._turns:
            return min(self._first_seen + bidi.index_at(self._standing, offset), len(self.value))
        return cell_width_to_column_index(self._shown, offset + self.scroll_offset[0], 1)

    # Text that runs from right to left

    @property
    def _turns(self) -> bool:
        return bidi.turning() and bidi.runs_both_ways(self.value)

    @property
    def _first_seen(self) -> int:
        """The index of the first character that is not scrolled out of sight."""
        return cell_width_to_column_index(self._shown, self.scroll_offset[0], 1)

    @property
    def _seen(self) -> str:
        """What is in sight, padded to the whole width."""
        return set_cell_size(self._shown[self._first_seen :], self.scrollable_content_region.width)

    @property
    def _standing(self) -> list[bidi.Piece]:
        return bidi.standing(self._seen, bidi.paragraph(self._shown), self._first_seen)

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        if y or not self._turns:
            return strip
        strip = strip.crop(0, self.scrollable_content_region.width)
        return bidi.turned(strip, bidi.paragraph(self._shown), self._first_seen)

    @property
    def cursor_screen_offset(self) -> Offset:
        x, y, _, _ = self.content_region
        if self._turns:
            return Offset(x + bidi.place_of(self._standing, self.cursor_position - self._first_seen), y)
        return super().cursor_screen_offset

    def action_cursor_left(self, select: bool = False) -> None:
        (super().action_cursor_right if self._from_right else super().action_cursor_left)(select)

    def action_cursor_right(self, select: bool = False) -> None:
        (super().action_cursor_left if self._from_right else super().action_cursor_right)(select)

    def action_cursor_left_word(self, select: bool = False) -> None:
        (super().action_cursor_right_word if self._from_right else super().action_cursor_left_word)(select)

    def action_cursor_right_word(self, select: bool = False) -> None:
        (super().action_cursor_left_word if self._from_right else super().action_cursor_right_word)(select)

    @property
    def _from_right(self) -> bool:
        """Whether left is where the text goes on."""
        return self._turns and bidi.paragraph(self._shown).from_right


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

    # Text that runs from right to left

    def _turned_line(self, line_index: int) -> bidi.Paragraph | None:
        """How a line stands; None where it runs one way, or has tabs, which stand where they are."""
        line = drawn(self.document[line_index])
        return bidi.paragraph(line) if bidi.turning() and bidi.runs_both_ways(line) and "\t" not in line else None

    def _section(self, y: int) -> tuple[int, int, str] | None:
        """What stands in a row of the widget: its line, where it begins in that, and its text, as wide as the row."""
        try:
            line_index, section = self.wrapped_document._offset_to_line_info[y + self.scroll_offset[1]]
        except IndexError:
            return None
        cuts = [0, *self.wrapped_document.get_offsets(line_index), None]
        text = drawn(self.document[line_index])[cuts[section] : cuts[section + 1]]
        return line_index, cuts[section] or 0, set_cell_size(text, self.scrollable_content_region.width)

    def _standing(self, y: int) -> tuple[int, int, list[bidi.Piece]] | None:
        """The line of a row, where in it the row begins, and how it stands; None where nothing is turned."""
        found = self._section(y)
        if found is None or (of := self._turned_line(found[0])) is None:
            return None
        return found[0], found[1], bidi.standing(found[2], of, found[1])

    def _render_line(self, y: int) -> Strip:
        strip = super()._render_line(y)
        found = self._section(y)
        if found is None or (of := self._turned_line(found[0])) is None:
            return strip
        return bidi.turned(strip, of, found[1])

    @property
    def cursor_screen_offset(self) -> Offset:
        usual = super().cursor_screen_offset
        _, top, _, _ = self.content_region
        if (found := self._standing(usual.y - top)) is None:
            return usual
        _, begins, pieces = found
        return Offset(self.content_region.x + bidi.place_of(pieces, self.cursor_location[1] - begins), usual.y)

    def get_target_document_location(self, event: events.MouseEvent) -> Location:
        usual = super().get_target_document_location(event)
        if (found := self._standing(event.y - self.gutter.top)) is None:
            return usual
        line_index, begins, pieces = found
        at = begins + bidi.index_at(pieces, event.x - self.gutter.left)
        return line_index, min(at, len(self.document[line_index]))

    def action_cursor_left(self, select: bool = False) -> None:
        (super().action_cursor_right if self._from_right else super().action_cursor_left)(select)

    def action_cursor_right(self, select: bool = False) -> None:
        (super().action_cursor_left if self._from_right else super().action_cursor_right)(select)

    def action_cursor_word_left(self, select: bool = False) -> None:
        (super().action_cursor_word_right if self._from_right else super().action_cursor_word_left)(select)

    def action_cursor_word_right(self, select: bool = False) -> None:
        (super().action_cursor_word_left if self._from_right else super().action_cursor_word_right)(select)

    @property
    def _from_right(self) -> bool:
        """Whether left is where the cursor's line goes on."""
        of = self._turned_line(self.cursor_location[0])
        return of is not None and of.from_right


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
        WorkbenchError: no editor is set, it cannot be started, it ended with a failure, or the app is in a browser.
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
        except SuspendNotSupported as error:
            raise WorkbenchError("there is no terminal for an editor here", "open the app in one") from error
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise WorkbenchError(f"the editor failed: {error}", f"EDITOR is {command!r}; your text is kept") from error
        try:
            return path.read_bytes().decode().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise WorkbenchError(f"the editor's text cannot be read: {error}", "save it as UTF-8; your text is kept as "
                                 "it was") from error  # fmt: skip
