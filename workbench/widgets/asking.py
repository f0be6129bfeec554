"""A question mark in a field where nothing is written yet asks for help; a sign like any other once there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual import events
from textual.widgets import Input, TextArea

if TYPE_CHECKING:
    from workbench.shell.frame import Frame

_KEY = "question_mark"


class HelpWhenEmpty:
    """For text fields, before their class of Textual's. Where help was given other keys, it is a sign always."""

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        field = cast("Input | TextArea", super())
        return field.check_consume_key(key, character) and not self._asks(key)

    async def _on_key(self, event: events.Key) -> None:
        if self._asks(event.key):
            event.prevent_default()  # and let it go on to the binding

    def _asks(self, key: str) -> bool:
        field = cast("Input | TextArea", self)
        text = field.value if isinstance(field, Input) else field.text
        return key == _KEY and not text and key in cast("Frame", field.app).keys["app.help"]
