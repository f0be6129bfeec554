"""The boundary between stored text and the terminal.

Everything a model, a prompt or an imported file says is kept raw, in the store and in every editor. Where it is drawn
it passes `safe_text`, or `drawn` in an editor: escape sequences, other control characters and bidirectional overrides
become visible signs, so that no text can move the cursor, write to the clipboard, or show itself in another order than
it is stored. What these return is for the eye alone: it is never stored, sent or compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.signs import UNSAFE, fitted, one_line, safe_text, width, without_surrogates

if TYPE_CHECKING:
    from rich.text import Text
    from textual.content import Content
    from textual.style import Style

__all__ = [
    "UNSAFE",
    "cell",
    "columns",
    "content",
    "drawn",
    "fitted",
    "from_home",
    "one_line",
    "pasted",
    "safe_text",
    "width",
]

# What an editor draws for a character that has no shape of its own: of one cell each, so that every place in the text
# is a place on screen. Where `safe_text` would need several letters, a shape that no keyboard has.
_DRAWN = str.maketrans(
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) != "\t"}
    | {0x7F: "␡"} | dict.fromkeys(range(0x80, 0xA0), "␦") | {0x85: "␤", 0x2028: "␤", 0x2029: "⁋"}
    | {"\u200e": "⇾", "\u200f": "⇽", "\u061c": "⇠", "\u202a": "⊳", "\u202b": "⊲", "\u202c": "⋄", "\u202d": "⋗",
       "\u202e": "⋖", "\u2066": "⊐", "\u2067": "⊏", "\u2068": "⊓", "\u2069": "⊔"}
    | {"\u00ad": "⁃", "\u200b": "⋅", "\u2060": "⁀", "\ufeff": "⍰"}
    | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
)  # fmt: skip


def from_home(path: Path) -> str:
    """The path as a shell writes it: `~` stands for the person's own folder."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def drawn(text: str) -> str:
    """The text as an editor draws it: as many characters, each with a shape, and none that a terminal obeys.

    Tabs, and the joiners that scripts and emoji need (ZWJ, ZWNJ), stay. What is edited is the text, never this.
    """
    return text.translate(_DRAWN)


def pasted(text: str) -> str:
    """What a terminal hands over as a paste, as the text that was copied: terminals send a line break as CR, and half
    of a surrogate pair is no text."""
    return without_surrogates(text.replace("\r\n", "\n").replace("\r", "\n"))


def content(text: str, style: Style | str = "") -> Content:
    """Safe text for a Textual widget; square brackets in it are never read as markup."""
    from textual.content import Content

    return Content.styled(safe_text(text), style) if style else Content(safe_text(text))


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A table as lines of aligned columns; every cell is cleaned and kept on one line, None is a dash."""
    table = [[one_line("-" if one is None else str(one), 60) for one in row] for row in (header, *rows)]
    widths = [max(width(row[column]) for row in table) for column in range(len(header))]
    return [
        "  ".join(one + " " * (room - width(one)) for one, room in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def cell(text: str, style: str = "") -> Text:
    """Safe text on one line for a DataTable, which wants Rich's type."""
    from rich.text import Text

    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")
