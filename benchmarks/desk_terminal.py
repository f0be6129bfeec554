"""Keys into the app on Review, and the moment at which the next item is painted."""

from __future__ import annotations

import fcntl
import math
import os
import pty
import re
import select
import signal
import struct
import termios
import time

PLACE = re.compile(rb"(\d+) of \d+\+?\x1b")  # in a style of its own, other than "4 of 5"
ANSWER = re.compile(rb"\[(\d+)\]")  # answers of `desk_data` begin with their number
SIZE = (40, 120)


class KeyTimer:
    """A command under a pseudo-terminal that shows the Review screen."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
            os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color"})
        self.place, self.is_pair = 0, False

    def until_painted(self, seconds: float) -> None:
        """Wait for the first item."""
        if not self._read_item(None, seconds):
            raise TimeoutError(f"no item within {seconds:g} s")
        self._drain(1.0)

    def next_item(self, patience: float, pause: float) -> float:
        """Judge the item on screen; the seconds until the next one is painted, which is after the rating is on disk, or
        infinity where that takes longer than `patience`."""
        began = time.perf_counter()
        os.write(self.terminal, b"a" if self.is_pair else b"4")
        if not self._read_item(self.place + 1, patience):
            return math.inf
        took = time.perf_counter() - began
        self._drain(pause)
        return took

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)

    def _read_item(self, place: int | None, seconds: float) -> bool:
        """Read until an item with this number (None: any, as a session goes on where it was) and its answer are
        painted. False where they do not come in time."""
        deadline = time.monotonic() + seconds
        seen = b""
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.terminal], [], [], left)[0]:
                break
            seen += os.read(self.terminal, 65536)
            found = next((one for one in PLACE.finditer(seen) if place in (None, int(one[1]))), None)
            answer = ANSWER.search(seen, found.start()) if found else None
            if found and answer:
                self.place, self.is_pair = int(found[1]), b"blind" in seen[found.start() : answer.start()]
                return True
        return False

    def _drain(self, seconds: float) -> None:
        """Take in what else is painted."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and select.select([self.terminal], [], [], left)[0]:
            os.read(self.terminal, 65536)
