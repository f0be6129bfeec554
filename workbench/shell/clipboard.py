"""Copying: by the system's clipboard where this machine has one, else by the terminal (OSC 52), also over SSH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from textual.screen import Screen
from textual.widgets import Input, OptionList, Static, TextArea

from workbench.widgets.answers import AnswerCard
from workbench.widgets.table import RowTable

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 2.0  # seconds that a program may take
BY_TERMINAL = "the terminal (OSC 52)"

# What takes a text on its standard input, and where it works.
_PROGRAMS = (
    (("wl-copy",), lambda: "WAYLAND_DISPLAY" in os.environ),
    (("xclip", "-selection", "clipboard"), lambda: "DISPLAY" in os.environ),
    (("xsel", "--clipboard", "--input"), lambda: "DISPLAY" in os.environ),
    (("pbcopy",), lambda: sys.platform == "darwin"),
    (("clip.exe",), lambda: "WSL_DISTRO_NAME" in os.environ),
)


def by_system(text: str) -> str:
    """Copy a text to this machine's clipboard; returns the program that did it, or nothing where none can.

    Over SSH none is asked: the clipboard that is meant is that of the machine with the keyboard.
    """
    if {"SSH_CONNECTION", "SSH_TTY"} & os.environ.keys():
        return ""
    for command, works in _PROGRAMS:
        if works() and shutil.which(command[0]):
            # UTF-16 is what clip.exe takes for certain.
            data = text.encode("utf-16" if command[0] == "clip.exe" else "utf-8")
            try:
                subprocess.run(command, input=data, timeout=PATIENCE, check=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
            except (OSError, subprocess.SubprocessError):
                continue
            return command[0]
    return ""


def copied_from(screen: Screen[Any]) -> tuple[str, str]:
    """What a copy takes from a screen, in words, and its text: what is selected, else what is in focus, else what a
    dialog has to read; nothing where there is none of it. Answers and what is written are taken as they are stored."""
    selected = screen.get_selected_text()
    if selected:
        return "the selection", selected
    match screen.focused:
        case TextArea() as area:
            return ("the selection", area.selected_text) if area.selected_text else ("the text", area.text)
        case Input() as field if not screen.is_modal or field.value:
            return "the field", field.value
        case AnswerCard(facts=facts) if facts is not None:
            return "the answer", facts.text
        case RowTable() as table if table.row_count:
            return "the row", "\t".join(str(cell) for cell in table.get_row_at(table.cursor_row))
        case OptionList(highlighted=int(place)) as listed:
            return "the line", str(listed.get_option_at_index(place).prompt)
    page = "\n".join(_lines(screen))
    return ("the page", page) if page else ("", "")


def _lines(screen: Screen[Any]) -> Iterator[str]:
    for page in screen.query("#page, #dialog VerticalScroll"):
        for static in page.query(Static):
            yield str(static.visual)
