"""How the app reads and writes a page of a browser: as Textual does, with our way of taking pastes and of ending."""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

from textual import events
from textual.drivers._byte_stream import ByteStream
from textual.drivers.web_driver import WebDriver, _ExitInput

from workbench.shell.terminal import PasteParser

if TYPE_CHECKING:
    from workbench.shell.frame import Frame

DRIVER = "workbench.serving.browser:Browser"
"""As Textual is told of it, in $TEXTUAL_DRIVER."""


class Browser(WebDriver):
    """Packets on standard input and output, which the server passes to and from the page."""

    if TYPE_CHECKING:
        _app: Frame

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        write, self._is_gone = self._write, False

        def write_while_it_is_there(packet: bytes) -> int:
            if not self._is_gone:
                try:
                    return write(packet)
                except OSError:
                    self._is_gone = True  # with the server
            return len(packet)

        self._write = write_while_it_is_there  # type: ignore[assignment]

    def start_application_mode(self) -> None:
        super().start_application_mode()
        # Textual begins as one that has not got the keyboard, and loses what is typed before the page says that it has.
        self._app.call_later(self._app.post_message, events.AppFocus())

    def run_input_thread(self) -> None:
        """Read keys, pastes and the page's own news until the app ends or the server is gone."""
        parser, packets = PasteParser(self._debug), ByteStream()
        decode = getincrementaldecoder("utf-8")("replace").decode
        try:
            for data in self._input_reader:
                for kind, payload in packets.feed(data) if data else ():
                    if kind == "D":
                        text = decode(payload)
                        for message in parser.feed(text) if text else ():  # to feed nothing is to end
                            self.process_message(message)
                    else:
                        self._on_meta(kind, payload)
                for message in parser.tick():
                    self.process_message(message)
            if not self.exit_event.is_set():
                self._loop.call_soon_threadsafe(self._app.terminal_is_gone)
        except _ExitInput:
            pass
        finally:
            self._input_reader.close()
