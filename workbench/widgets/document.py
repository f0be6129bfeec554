"""The text of an editor, to the character, and how it is drawn.

Textual's own document takes ten characters for line breaks and joins all lines by one of them: a text that is loaded
and read again has changed. Here a line ends at a line feed alone; every other character is one of its line.
"""

from __future__ import annotations

from typing import overload

from textual.document._document import Document, EditResult, Location

from workbench.text import drawn


class RawDocument(Document):
    """A text of lines; joined again they are the text."""

    def __init__(self, text: str) -> None:
        self._newline = "\n"
        self._lines = text.split("\n")

    def replace_range(self, start: Location, end: Location, text: str) -> EditResult:
        """Put a text in place of what stands between two places; returns where it ends, and what it replaced."""
        top, bottom = sorted((start, end))
        replaced = self.get_text_range(top, bottom)
        before = "".join(self._lines[top[0] : top[0] + 1])[: top[1]]  # of no line, past the last one
        after = "".join(self._lines[bottom[0] : bottom[0] + 1])[bottom[1] :]
        put = f"{before}{text}".split("\n")
        ends_at = (top[0] + len(put) - 1, len(put[-1]))
        put[-1] += after
        self._lines[top[0] : bottom[0] + 1] = put
        return EditResult(ends_at, replaced)


class DrawnDocument(Document):
    """The lines of a document as they are drawn: each character stands where it stands in the text."""

    def __init__(self, document: RawDocument) -> None:
        self._document = document
        self._newline = "\n"

    @property
    def _lines(self) -> list[str]:  # type: ignore[override]  # what Textual's document keeps is made anew here
        return [drawn(line) for line in self._document.lines]

    @property
    def line_count(self) -> int:
        return self._document.line_count

    @overload
    def __getitem__(self, line_index: int) -> str: ...

    @overload
    def __getitem__(self, line_index: slice) -> list[str]: ...

    def __getitem__(self, line_index: int | slice) -> str | list[str]:
        if isinstance(line_index, slice):
            return [drawn(line) for line in self._document[line_index]]
        return drawn(self._document[line_index])
