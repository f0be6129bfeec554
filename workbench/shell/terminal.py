"""Where the app is drawn: on the terminal, whichever of standard error and standard output that is."""

from __future__ import annotations

import os
import sys
from typing import Any

from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver


class TerminalDriver(LinuxDriver):
    """Textual's driver draws on standard error whatever that is. With `workbench 2>file` the terminal is standard
    output, and the file gets what is said beside the app."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._file = next((one for one in (sys.__stderr__, sys.__stdout__) if one and one.isatty()), sys.__stderr__)

    def _get_terminal_size(self) -> tuple[int, int]:
        """The size of what is drawn on; $COLUMNS and $LINES go before it, as everywhere."""
        if self._file is not None and not {"COLUMNS", "LINES"} & os.environ.keys():
            try:
                columns, lines = os.get_terminal_size(self._file.fileno())
                return columns, lines
            except OSError:
                pass
        return super()._get_terminal_size()


def driver(usual: type[Driver]) -> type[Driver]:
    """The driver to use in place of the usual one of this system."""
    return TerminalDriver if usual is LinuxDriver else usual
