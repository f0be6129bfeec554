"""A program under a pseudo-terminal: keys go in, and what a person would see comes out."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pexpect
import pyte

ROOT = Path(__file__).resolve().parents[1]
ENTER, ESCAPE, RIGHT, CTRL_Q, CTRL_U = "\r", "\x1b", "\x1b[C", "\x11", "\x15"
F1, F2, F3, F6, F8 = "\x1bOP", "\x1bOQ", "\x1bOR", "\x1b[17~", "\x1b[19~"
# pyte knows no kitty or synchronised-output sequences with a private prefix.
PRIVATE = re.compile(rb"\x1b\[[<>=?][0-9;]*[uc$]p?")
UNFINISHED = re.compile(rb"\x1b(\[[<>=?0-9;$]*)?$")


class Ended(Exception):
    """The program has closed its terminal."""


class Terminal:
    """`python -m ARGUMENTS` in a terminal of 80 by 24; `written` is every byte it wrote.

    Args:
        before: words before it, such as `nice`.
        errors: a file that its standard error goes to.
    """

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        before: Sequence[str] = (),
        errors: Path | None = None,
    ) -> None:
        outer = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.written = b""
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self.screen)
        self._held = b""
        command, *rest = *before, sys.executable, "-m", *arguments
        if errors is not None:
            command, rest = "/bin/sh", ["-c", 'exec "$@" 2>"$0"', str(errors), command, *rest]
        self.child = pexpect.spawn(
            command, rest, dimensions=(24, 80), cwd=str(ROOT), echo=False,
            env={**outer, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(environment or {})},
        )  # fmt: skip
        self.child.delaybeforesend = None

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def text(self) -> str:
        """What is on the screen, line by line."""
        # Not `screen.display`: that one fails where a narrow character has overwritten half of a wide one.
        return "\n".join(
            "".join(self.screen.buffer[row][column].data for column in range(self.screen.columns))
            for row in range(self.screen.lines)
        )

    def read(self, seconds: float = 0.05) -> None:
        """Take in what is written within some time. Raises Ended when the program is gone."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                data = self.child.read_nonblocking(65536, left)
            except pexpect.TIMEOUT:
                return
            except (pexpect.EOF, OSError) as error:
                raise Ended(self.text) from error
            self.written += data
            data = self._held + data
            cut = UNFINISHED.search(data)  # a sequence that comes in two pieces is fed whole
            data, self._held = (data[: cut.start()], data[cut.start() :]) if cut else (data, b"")
            self._stream.feed(PRIVATE.sub(b"", data))

    def press(self, keys: str) -> None:
        """Send keys. Raises Ended when the program is gone."""
        try:
            self.child.send(keys)
        except OSError as error:
            raise Ended(self.text) from error

    def until(self, wanted: str | Callable[[str], object], seconds: float = 120.0) -> str:
        """Wait for a pattern, or for a condition on the text of the screen, and return that text.

        Raises:
            AssertionError: it did not come about, with what is on the screen.
            Ended: the program is gone.
        """
        holds = wanted if callable(wanted) else re.compile(wanted).search
        deadline = time.monotonic() + seconds
        while not holds(self.text):
            assert time.monotonic() < deadline, f"{wanted!r} did not come about; on screen:\n{self.text}"
            self.read()
        return self.text

    def close(self) -> None:
        """Kill the program if it still runs, and collect it."""
        self.child.close(force=True)
