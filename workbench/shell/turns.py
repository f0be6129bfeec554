"""Keys and pastes, one after the other: each comes when the one before has done all that it does.

Textual hands a key to the widget in focus and takes the next at once. Of keys that come together (over a slow line, or
while the app is busy) some that act at once would then overtake what was typed before them: ^j would store half a text,
and what follows a tab would stand in the field before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual.events import Key, Paste
from textual.message import Message

if TYPE_CHECKING:
    from textual.app import App

LONGEST = 1.0  # seconds; what its widget has not taken by then (it may be gone) holds up no other key


class Taken(Message, bubble=True):
    """It goes the way of a key, behind it: where it arrives, all is done."""


class Turns:
    """The keys of an app that wait for their turn; `handle` is what Textual does with one."""

    def __init__(self, app: App[None], handle: Callable[[Key | Paste], Awaitable[None]]) -> None:
        self._app = app
        self._handle = handle
        self._waiting: deque[Key | Paste] = deque()
        self._under_way: Taken | None = None

    async def come(self, key: Key | Paste) -> None:
        """A key came from the terminal."""
        self._waiting.append(key)
        await self._go_on()

    async def taken(self, mark: Taken) -> None:
        """A key has done what it does."""
        if mark is self._under_way:
            self._under_way = None
            await self._go_on()

    async def _go_on(self) -> None:
        while self._waiting and self._under_way is None:
            key = self._waiting.popleft()
            target = self._app.focused or self._app.screen
            await self._handle(key)
            mark = Taken()
            # A key that acts at once is handed to nobody, and done by now.
            if key.is_forwarded and target.post_message(mark):
                self._under_way = mark
                self._app.set_timer(LONGEST, lambda mark=mark: self.taken(mark))
