"""The bar of a command that takes longer than a second, on standard error where that is a terminal; gone at the end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from storage.command_line import say
from workbench.text import safe_text

SHOWN_AFTER = 1.0  # seconds
LOOK_SECONDS = 0.2
_COUNTED = "{desc} {bar} {percentage:3.0f}% · {n_fmt} of {total_fmt} {unit} · {elapsed}, {remaining} left"
_OPEN = "{desc} {n_fmt} {unit} · {elapsed}"
_WAITING = "{desc} · {elapsed}"


class Bar:
    """What is done, how much of it, and of how much. A thread draws it, as what is done may take long at a time."""

    def __init__(self, unit: str, says: bool) -> None:
        self._bar = tqdm(
            total=1, unit=unit, bar_format=_WAITING, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False,
            dynamic_ncols=True, delay=SHOWN_AFTER,
        )  # fmt: skip
        self._says = says
        self._said = ""
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._draw, daemon=True)
        if not self._bar.disable:
            self._thread.start()

    def __call__(self, doing: str, done: int = 0, of: int = 0) -> None:
        """Say what is done, and how much of it is; 0 where that is not known."""
        bar = self._bar
        if bar.disable and self._says and doing != self._said:
            self._said = doing
            say(doing)
        bar.desc, bar.n, bar.total = safe_text(doing), done, of or 1
        bar.bar_format = _COUNTED if of else _OPEN if done else _WAITING

    def _draw(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            if time.monotonic() > self._began + SHOWN_AFTER:
                self._bar.refresh()
                self._bar.last_print_t = time.time()  # or tqdm would not take away what stands there

    def close(self) -> None:
        """Take it away."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._bar.close()


@contextmanager
def progress(unit: str = "", *, says: bool = False) -> Iterator[Bar]:
    """A bar that counts in `unit`; where there is no terminal for it, it `says` each new step in a line, or nothing."""
    bar = Bar(unit, says)
    try:
        yield bar
    finally:
        bar.close()
