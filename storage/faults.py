"""Faults of the program itself: the traceback goes to a log, and a person is told in a line where it is."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import platformdirs

from storage import clock
from storage.errors import WorkbenchError
from storage.signs import one_line
from storage.workspace import Workspace

NAME = "errors.log"
LIMIT = 4 * 1024 * 1024  # bytes; a longer log is set aside first


def in_words(error: BaseException, workspace: Workspace | None) -> WorkbenchError:
    """A fault as one line, its traceback written down.

    The log is the workspace's where it has one that can be written, else one in the user's folder for logs.
    """
    said = one_line(str(error))
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    told = WorkbenchError(f"the program failed: {what}", _where(error, workspace))
    told.__cause__ = error
    return told


def _where(error: BaseException, workspace: Workspace | None) -> str:
    own = Path(platformdirs.user_log_dir("alignment-workbench", appauthor=False))
    text = f"{clock.now()} {' '.join(map(ascii, sys.argv))}\n{''.join(traceback.format_exception(error))}\n"
    for folder in ([workspace.logs] if workspace is not None and workspace.logs.is_dir() else []) + [own]:
        try:
            return f"this is a fault of the program; please report it with {_written(folder, text)}"
        except OSError:
            continue
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{frame[0].filename}, line {frame[0].lineno}" if frame else "an unknown place"
    return f"this is a fault of the program, in {place}; please report it (no log could be written)"


def _written(folder: Path, text: str) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / NAME
    if path.exists() and path.stat().st_size > LIMIT:
        path.replace(path.with_name(f"{NAME}.1"))
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as log:
        log.write(text)
    return path
