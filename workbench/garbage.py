"""When Python looks for garbage: not while a program starts, and through everything only while nobody presses a key.

Python looks through all objects again and again, and nothing else happens meanwhile: 60 ms in the app after every dozen
judgements, a tenth of a second in the engine, several times while either is imported. Most of what they hold by then is
code, style sheets and weights, which stay.
"""

from __future__ import annotations

import gc
import time

QUIET_SECONDS = 0.5  # without a key: a person reads
START_SECONDS = 10.0  # by then the start is over, quiet or not
DUE = 10  # looks through what is young, after which Python would look through everything
SELDOM = 100  # the same where nobody ever pauses


def not_yet() -> None:
    """A program starts: do not look for garbage until :func:`from_now_on`."""
    gc.disable()


def from_now_on() -> None:
    """The start is over, if one was under way; what is there now is taken to stay."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


class Tidying:
    """Of an app: `key` is called for each key, `look` a few times a second."""

    def __init__(self) -> None:
        self._began = self._pressed = time.monotonic()

    def key(self) -> None:
        """Somebody is at work."""
        self._pressed = time.monotonic()

    def look(self) -> None:
        """Look for garbage, where it is time to and nobody would wait for it."""
        now = time.monotonic()
        quiet = now - self._pressed > QUIET_SECONDS
        if not gc.isenabled() and (quiet or now - self._began > START_SECONDS):
            gc.collect() if quiet else None
            from_now_on()
            young, middle, _ = gc.get_threshold()
            gc.set_threshold(young, middle, SELDOM)
        elif quiet and gc.get_count()[2] >= DUE:
            gc.collect()
