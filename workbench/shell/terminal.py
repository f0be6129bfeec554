"""How the app reads and writes its terminal, where Textual's own way loses text or ends the app.

It is drawn on the terminal, whichever of standard error and standard output that is. A paste is taken as it comes,
escape characters in it too (Textual takes what follows one for keys); bytes that are no UTF-8 become U+FFFD; a terminal
that is gone is written to no more, so that the app can close in its own time.
"""

from __future__ import annotations

import os
import selectors
import sys
from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

from textual import events
from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from workbench.shell import bidi

if TYPE_CHECKING:
    from workbench.shell.frame import Frame

LOOK_SECONDS = 0.1  # how often the reading thread looks whether it should end
_MOST_READ = 4096  # bytes


class PasteParser(XTermParser):
    """Textual's parser for everything but pastes: what stands in one is its text and nothing else."""

    def __init__(self, debug: bool = False) -> None:
        super().__init__(debug)
        self._paste: list[str] | None = None  # the pieces of the paste under way
        self._held = ""  # the beginning of what may be a mark

    def feed(self, data: str) -> Iterable[Message]:
        data, self._held = self._held + data, ""
        while data:
            mark = BRACKETED_PASTE_START if self._paste is None else BRACKETED_PASTE_END
            text, found, data = data.partition(mark)
            if not found:
                # Outside a paste ESC alone is a key, for which nobody waits.
                text, self._held = _without_beginning_of(mark, text, 2 if self._paste is None else 1)
            if self._paste is not None:
                self._paste.append(text)
                if found:
                    yield events.Paste("".join(self._paste))
                    self._paste = None
            else:
                if text:
                    yield from super().feed(text)
                if found:
                    self._paste = []

    def tick(self) -> Iterable[Message]:
        """Nothing has come for a while: what might have been a mark is a key."""
        if self._held and self._paste is None:
            held, self._held = self._held, ""
            yield from super().feed(held)
        yield from super().tick()


def _without_beginning_of(mark: str, text: str, shortest: int) -> tuple[str, str]:
    """A text, and the beginning of a mark that it ends with: of at least so many characters."""
    for length in range(len(mark) - 1, shortest - 1, -1):
        if text.endswith(mark[:length]):
            return text[:-length], text[-length:]
    return text, ""


class Terminal(LinuxDriver):
    """Textual's driver with that parser. It draws on standard error whatever that is; with `workbench 2>file` the
    terminal is standard output, and the file gets what is said beside the app."""

    if TYPE_CHECKING:
        _app: Frame

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        drawn_on = next((one for one in (sys.__stderr__, sys.__stdout__) if one and one.isatty()), self._file)
        self._keeps_cells = not bidi.terminal_turns()
        self._file: IO[str] = WhileItIsThere(drawn_on)  # type: ignore[assignment]

    def start_application_mode(self) -> None:
        super().start_application_mode()
        self.keep_cells(self._keeps_cells)

    def stop_application_mode(self) -> None:
        self.write(bidi.CELLS_TURN)
        super().stop_application_mode()

    def keep_cells(self, on: bool) -> None:
        """Tell the terminal to leave each cell where it was written, or to turn lines that run from right to left."""
        self._keeps_cells = on
        self.write(bidi.CELLS_STAY if on else bidi.CELLS_TURN)
        self.flush()

    def _get_terminal_size(self) -> tuple[int, int]:
        """The size of what is drawn on; $COLUMNS and $LINES go before it, as everywhere."""
        if not {"COLUMNS", "LINES"} & os.environ.keys():
            try:
                columns, lines = os.get_terminal_size(self._file.fileno())
                return columns, lines
            except OSError:
                pass
        return super()._get_terminal_size()

    def run_input_thread(self) -> None:
        """Read keys and pastes until the app ends or the terminal is gone."""
        parser = PasteParser(self._debug)
        decode = getincrementaldecoder("utf-8")("replace").decode
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(LOOK_SECONDS):
                    try:
                        read = os.read(self.fileno, _MOST_READ)
                    except OSError:
                        read = b""
                    if not read:
                        self._loop.call_soon_threadsafe(self._app.terminal_is_gone)
                        return
                    text = decode(read)
                    for message in parser.feed(text) if text else ():  # to feed nothing is to end
                        self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)


class WhileItIsThere:
    """A stream to a terminal: when that is gone, what is written is lost and nobody is told."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._is_gone = False

    def write(self, text: str) -> int:
        if not self._is_gone:
            try:
                return self._stream.write(text)
            except OSError:
                self._is_gone = True
        return len(text)

    def flush(self) -> None:
        if not self._is_gone:
            try:
                self._stream.flush()
            except OSError:
                self._is_gone = True

    def fileno(self) -> int:
        return self._stream.fileno()


def driver(usual: type[Driver]) -> type[Driver]:
    """The driver to use in place of the usual one of this system."""
    return Terminal if usual is LinuxDriver else usual
