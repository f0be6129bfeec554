"""Whoever wants to hear of events. One that raises is reported once, and takes nothing away from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def to_the_loop(error: Exception) -> None:
    """Hand an error to the event loop's exception handler, which by default logs it."""
    asyncio.get_running_loop().call_exception_handler(
        {"message": "a listener of the engine failed", "exception": error}
    )


class Listeners(Generic[T]):
    """Functions that are called with every event, in the order they were added.

    `report` gets what they raise: the same words of the same listener once, since an event may come 25 times a second.
    """

    def __init__(self, report: Callable[[Exception], None] = to_the_loop) -> None:
        self._report = report
        self._listeners: list[Callable[[T], None]] = []
        self._reported: set[tuple[Callable[[T], None], str]] = set()

    def add(self, listener: Callable[[T], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; the function returned ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, event: T) -> None:
        """Never raises."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception as error:
                if (listener, repr(error)) not in self._reported:
                    self._reported.add((listener, repr(error)))
                    self._tell_of(error)

    def _tell_of(self, error: Exception) -> None:
        try:
            self._report(error)
        except Exception as worse:  # say, a screen that is being taken down
            to_the_loop(worse)
