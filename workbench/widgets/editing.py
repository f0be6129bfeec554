"""Writing a better answer over one, with what it changes below it before it is accepted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static, TextArea

from workbench.text import safe_text
from workbench.widgets.dialogs import TextDialog

# What is compared as a whole: a word, the white space between two, or one character of a script without spaces.
_PIECES = re.compile(r"\s+|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+|.")
MOST = 600  # pieces beside what both texts begin and end with; what is longer is compared by lines
UNCHANGED = 40  # characters that are shown of what stays, at either end


class EditDialog(TextDialog):
    """A text to write over `original`; what differs from it stands below, as it will be stored."""

    def __init__(
        self,
        title: str,
        text: str,
        original: str,
        *,
        hint: str = "",
        changed: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(title, text, hint=hint, changed=changed)
        self.original = original

    def fields(self) -> ComposeResult:
        yield from super().fields()
        with VerticalScroll(id="difference", can_focus=False):
            yield Static(difference(self.original, self.text), markup=False)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        self.changed(event.text_area.text)
        self.query_one("#difference Static", Static).update(difference(self.original, event.text_area.text))


def difference(before: str, after: str) -> Content:
    """What was taken out, between `[-` and `-]`, and what was put in, between `{+` and `+}`, in their places."""
    if before == after:
        return Content.styled("nothing is changed yet", "$text-muted")
    old, new = _PIECES.findall(before), _PIECES.findall(after)
    head = _alike(old, new)
    tail = _alike(old[head:][::-1], new[head:][::-1])
    parts = [_same(old[:head])]
    parts += _changes(old[head : len(old) - tail], new[head : len(new) - tail])
    return Content.assemble(*parts, _same(old[len(old) - tail :]))


def _alike(one: list[str], other: list[str]) -> int:
    """How many pieces both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _changes(old: list[str], new: list[str]) -> Iterator[Content]:
    if len(old) + len(new) > MOST:
        old, new = "".join(old).splitlines(keepends=True), "".join(new).splitlines(keepends=True)
    for what, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            yield _same(old[a:b])
            continue
        if b > a:
            yield Content.styled(f"[-{safe_text(''.join(old[a:b]))}-]", "$text-error strike")
        if d > c:
            yield Content.styled(f"{{+{safe_text(''.join(new[c:d]))}+}}", "$text-success bold")


def _same(pieces: list[str]) -> Content:
    return Content.styled(_shortened(safe_text("".join(pieces))), "$text-muted")


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * UNCHANGED + 5 else f"{text[:UNCHANGED]} … {text[-UNCHANGED:]}"
