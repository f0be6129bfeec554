"""The boundary between stored text and the terminal.

Everything a model, a prompt or an imported file says is kept raw in the store. Before it reaches a widget it passes
`safe_text` (storage/signs.py): escape sequences, other control characters and bidirectional overrides become visible
signs, so that no text can move the cursor, write to the clipboard, or show itself in another order than it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.signs import UNSAFE, one_line, safe_text

if TYPE_CHECKING:
    from rich.text import Text
    from textual.content import Content
    from textual.style import Style

__all__ = ["UNSAFE", "cell", "content", "one_line", "safe_text"]


def content(text: str, style: Style | str = "") -> Content:
    """Safe text for a Textual widget; square brackets in it are never read as markup."""
    from textual.content import Content

    return Content.styled(safe_text(text), style) if style else Content(safe_text(text))


def cell(text: str, style: str = "") -> Text:
    """Safe text on one line for a DataTable, which wants Rich's type."""
    from rich.text import Text

    return Text(one_line(text), style=style, no_wrap=True, overflow="ellipsis")
