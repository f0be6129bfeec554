"""Keys that a text field passes on, though they come with a sign: Alt with a letter, and a question mark for help."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual import events
from textual.widgets import Input, TextArea

if TYPE_CHECKING:
    from workbench.shell.frame import Frame


class PassesOn:
    """For text fields, before their class of Textual's.

    A question mark asks for help where nothing is written yet, unless help was given other keys; then it is a sign.
    Terminals send Alt with a letter as Escape and that letter, which Textual would write.
    """

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        field = cast("Input | TextArea", super())
        return field.check_consume_key(key, character) and not self._passes_on(key)

    async def _on_key(self, event: events.Key) -> None:
        if self._passes_on(event.key):
            event.prevent_default()  # and it goes on to the bindings

    def _passes_on(self, key: str) -> bool:
        field = cast("Input | TextArea", self)
        text = field.value if isinstance(field, Input) else field.text
        asks = key == "question_mark" and not text and key in cast("Frame", field.app).keys["app.help"]
        return asks or key.startswith("alt+")
