"""The one path of everything the app writes: it is on its way, it is stored, or it waits to be tried again.

Nothing here blocks and nothing raises: a write that takes longer than a blink is said to be under way, and one that
failed is kept, with the way to try it again, until it is stored or given up by the person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from storage.errors import UsageError, WorkbenchError

BLINK = 0.15  # seconds; what takes no longer needs no word, and keys pressed meanwhile wait for it

T = TypeVar("T")


@dataclass
class Writing:
    """A write on its way to the disk."""

    words: str
    task: asyncio.Task[None]
    is_slow: bool = False


@dataclass(frozen=True)
class Unsaved:
    """A write that failed: what it was, why, and how to try it again."""

    words: str
    error: WorkbenchError
    again: Callable[[], object]
    by_itself: bool  # nobody needs to ask for it


class Saver:
    """All writes under way and all that failed, each under a key that says whose it is.

    `changed` is called whenever a bar should say something else, `fault` with a fault in what follows a write.
    """

    def __init__(self, changed: Callable[[], None], fault: Callable[[Exception], None]) -> None:
        self._changed = changed
        self._fault = fault
        self.under_way: dict[str, Writing] = {}
        self.unsaved: dict[str, Unsaved] = {}

    @property
    def words(self) -> str:
        """What the header says: nothing, that something is being saved, or that something is not."""
        if any(one.is_slow for one in self.under_way.values()):
            return "saving…"
        return f"✕ {len(self.unsaved)} unsaved" if self.unsaved else ""

    @property
    def pending(self) -> list[str]:
        """What is not on disk yet, in words."""
        failed = [one.words for key, one in self.unsaved.items() if key not in self.under_way]
        return [*(one.words for one in self.under_way.values()), *failed]

    def begin(
        self,
        key: str,
        words: str,
        write: Callable[[], Awaitable[T]],
        stored: Callable[[T], None],
        failed: Callable[[WorkbenchError], None],
        *,
        by_itself: bool = False,
    ) -> asyncio.Task[None] | None:
        """Start a write; None, and nothing happens, while another of this key is under way.

        `stored` or `failed` is called once, on the event loop. A write that is stored settles one of its key that
        failed before. `by_itself` has it tried again without being asked, and no bar say anything where all goes well.
        """
        if key in self.under_way:
            return None

        def again() -> None:
            self.begin(key, words, write, stored, failed, by_itself=by_itself)

        async def work() -> None:
            before = self.words
            try:
                result = await write()
            except WorkbenchError as error:
                if not isinstance(error, UsageError):  # that one would be refused again
                    self.unsaved[key] = Unsaved(words, error, again, by_itself)
                then = partial(failed, error)
            else:
                self.unsaved.pop(key, None)
                then = partial(stored, result)
            del self.under_way[key]
            try:
                then()
            except Exception as error:  # it must not end the app
                self._fault(error)
            if not by_itself or before or writing.is_slow or self.words:
                self._changed()

        task = asyncio.create_task(work(), name=f"save {key}")
        self.under_way[key] = writing = Writing(words, task)
        asyncio.get_running_loop().call_later(BLINK, self._blinked, writing)
        return task

    async def settled(self, seconds: float) -> bool:
        """Wait until nothing is under way, for at most some seconds; returns whether everything is on disk."""
        if self.under_way:
            await asyncio.wait({one.task for one in self.under_way.values()}, timeout=seconds)
        return not self.pending

    def try_again(self, *, asked: bool) -> None:
        """Begin again what failed: all of it where the person has `asked`, else what needs nobody to ask."""
        for one in list(self.unsaved.values()):
            if asked or one.by_itself:
                one.again()

    def give_up(self, key: str) -> None:
        """The person has decided otherwise: a failed write is not wanted any more."""
        if self.unsaved.pop(key, None) is not None:
            self._changed()

    def _blinked(self, writing: Writing) -> None:
        if not writing.task.done():
            writing.is_slow = True
            self._changed()


class Latest(Generic[T]):
    """A value of which the latest alone is kept, written one at a time: what is chosen, a draft.

    `write` gets the value, and the one that was written before.
    """

    def __init__(
        self,
        saver: Saver,
        words: str,
        value: Callable[[], T],
        write: Callable[[T, T], Awaitable[None]],
        failed: Callable[[WorkbenchError], None],
    ) -> None:
        self._saver = saver
        self._words = words
        self._value = value
        self._write = write
        self._failed = failed
        self._written = value()

    def save(self) -> None:
        """Write the value down if it has changed; what changes meanwhile is written when that is done."""
        if self._value() == self._written:
            return
        writing = self._written

        async def write() -> None:
            nonlocal writing
            writing = self._value()
            await self._write(writing, self._written)

        def stored(_: None) -> None:
            self._written = writing
            self.save()

        self._saver.begin(self._words, self._words, write, stored, self._failed, by_itself=True)
