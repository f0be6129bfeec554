"""The bytes that reach a terminal: none of the hostile corpus does, on any screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import pyte

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FORBIDDEN = {
    "an SGR of the corpus": b"\x1b[666",
    "the clipboard": b"\x1b]52",
    "a link": b"\x1b]8;",
    "a title": b"\x9d",
    "C1 CSI": b"\xc2\x9b",
    "C1 OSC": b"\xc2\x9d",
    "C1 ST": b"\xc2\x9c",
    "a bell": b"\x07",
    "a backspace": b"\x08",
    "DEL": b"\x7f",
    "form feed": b"\x0c",
    "shift out": b"\x0e",
    "RLO": "\u202e".encode(),
    "PDF": "\u202c".encode(),
    "LRI": "\u2066".encode(),
    "PDI": "\u2069".encode(),
}
POINTER_SHAPE = re.compile(rb"\x1b\]22;[a-z]*\x07")  # Textual's own


class Terminal:
    """A program under a pseudo-terminal: everything it wrote, and what a terminal would show of it."""

    def __init__(self, command: list[str], columns: int, rows: int) -> None:
        self.written = b""
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            for name in ("COLUMNS", "LINES"):
                os.environ.pop(name, None)
            os.environ.update(TERM="xterm-256color", PYTHONPATH=str(ROOT), COLORTERM="truecolor")
            os.execv(command[0], command)

    def read(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.handle], [], [], left)[0]:
                try:
                    data = os.read(self.handle, 65536)
                except OSError:
                    return
                self.written += data
                # pyte knows no kitty or synchronised-output sequences with a private prefix.
                self.stream.feed(re.sub(rb"\x1b\[[<>=?][0-9;]*[uc$]p?", b"", data))

    def until(self, text: str, *, gone: bool = False, seconds: float = 90.0) -> None:
        """Wait until a text is on screen, or is not any more."""
        deadline = time.monotonic() + seconds
        while (text in self.text) == gone:
            assert time.monotonic() < deadline, f"{text!r} did not {'go' if gone else 'appear'}:\n{self.text}"
            self.read(0.1)

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def press(self, keys: bytes, sign: str) -> None:
        """Press keys and wait for what they bring."""
        os.write(self.handle, keys)
        self.until(sign)

    def dismiss(self, sign: str) -> None:
        """Press Escape and wait until what was open is not."""
        os.write(self.handle, ESCAPE)
        self.until(sign, gone=True)

    def close(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.handle)


F1, F2, F3, F4, F5, F6 = b"\x1bOP", b"\x1bOQ", b"\x1bOR", b"\x1bOS", b"\x1b[15~", b"\x1b[17~"
CTRL = {letter: bytes([ord(letter) - 96]) for letter in "fglop"}
ESCAPE = b"\x1b"


def test_no_hostile_byte_reaches_the_terminal_on_any_screen(tmp_path: Path):
    terminal = Terminal([sys.executable, str(HERE / "hostile_app.py"), str(tmp_path / "workspace")], 120, 40)
    try:
        terminal.until("Write a prompt")
        terminal.until("CANARY")  # the toast of the failed swap
        terminal.press(b"ask\r", "␛[666;1mred")
        terminal.press(b"\x1b[200~paste \x1b[666;1m \xc2\x9b1m \x08 end\x1b[201~", "end")
        terminal.until("v0 ·")  # the answers are whole
        terminal.press(ESCAPE, "i write")  # the answers have the focus
        terminal.press(b"4", "4/5")
        terminal.press(b"a", "4/5 preferred")
        terminal.press(b"=", "saved ✓  tie")
        terminal.press(b"g", "saved ✓  good")
        terminal.press(b"x", "saved ✓  bad")
        terminal.press(b"e", "A better answer")
        terminal.dismiss("A better answer")
        for opening, sign in ((CTRL["f"], "Earlier prompts"), (CTRL["l"], "Language"), (CTRL["g"], "Parameters")):
            terminal.press(opening, sign)
            terminal.dismiss(sign)
        for key, sign in ((F2, "why:"), (F3, "said lately"), (F5, "prompts"), (F6, "candidate")):
            terminal.press(key, sign)
            terminal.until("CANARY" if key != F3 else "error CANARY")
            terminal.press(b"?", "Keys ·")
            terminal.dismiss("Keys ·")
        terminal.press(b"o", "held-out answers before and after")
        terminal.press(b"\x1b[F", "after v1")
        terminal.dismiss("held-out answers before and after")
        terminal.press(F3, "said lately")
        terminal.press(b"v", "Compare runs")
        terminal.press(b" j \r", "2 runs compared")
        terminal.until("settings that differ")
        terminal.dismiss("2 runs compared")
        terminal.press(F4, "Reward against KL")
        terminal.press(b"jj", "What v1 gained over v0")
        terminal.until("CANARY")
        terminal.press(b"\r", "─ Languages")
        terminal.dismiss("─ Languages")
        terminal.press(F5, "prompts")
        terminal.press(b"\r", "answer 1 of")
        terminal.until("counts")
        terminal.press(F6, "candidate")
        terminal.press(b"p", "did not pass")
        terminal.dismiss("did not pass")
        terminal.press(F1, "ask")
        terminal.press(CTRL["p"], "Search for commands")
        terminal.dismiss("Search for commands")
        log = tmp_path / "workspace" / "logs" / "hostile.log"
        log.write_bytes(b"\x1b[666;1mCANARY \x1b]52;c;aGk=\x07 \x9b1m \xff\n")
        terminal.press(b"\x1bi", "─ About")
        terminal.press(b"\x1b[F", "␛[666;1mCANARY ␛]52;c;aGk=␇")
        terminal.dismiss("─ About")
        terminal.press(b"\x1bk", "another key")
        terminal.dismiss("another key")
        assert b"\x1b[8l" in terminal.written  # the app turns texts, and the terminal is told to leave them
        written = POINTER_SHAPE.sub(b"", terminal.written)
        assert [name for name, data in FORBIDDEN.items() if data in written] == []
        assert terminal.written.count(b"CANARY") > 10
        assert "Traceback" not in terminal.written.decode(errors="replace")
    finally:
        terminal.close()
