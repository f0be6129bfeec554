"""What runs here: versions of programs, paths, engine and model; and the end of each log."""

from __future__ import annotations

import asyncio
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from textual import work
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage.sqlite import sqlite3
from workbench.engine.status import engine_words
from workbench.shell import keymap
from workbench.text import content, from_home
from workbench.widgets.dialogs import SheetDialog

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

PACKAGES = ("alignment-workbench", "textual", "torch", "transformers", "peft", "accelerate", "safetensors", "msgspec")
LOG_BYTES = 16_384  # of the end of each log
LOG_LINES = 60


class AboutSheet(SheetDialog):
    """Facts first, then the logs, the one written last first. What is in a log is shown as any text of others is."""

    def __init__(self) -> None:
        super().__init__("About")

    def page(self) -> ComposeResult:
        yield Static(facts(self.workbench), id="facts", markup=False)
        yield Static("\nreading the logs…", id="logs", markup=False)

    def on_mount(self) -> None:
        self._read()

    @work
    async def _read(self) -> None:
        tails = await asyncio.to_thread(logs, self.workbench.workspace.logs)
        parts = []
        for path, text in tails:
            parts += [Content.styled(f"\n{from_home(path)}", "bold $accent"), content(text)]
        self.query_one("#logs", Static).update(
            Content("\n").join(parts) if parts else Content.styled("\nnothing is logged yet", "$text-muted")
        )


def facts(app: WorkbenchApp) -> Content:
    """One line a fact, names in a column."""
    engine = app.engine
    rows = [
        ("workspace", from_home(app.workspace.root)),
        ("database", f"{from_home(app.workspace.database)} · SQLite {sqlite3.sqlite_version}"),
        ("logs", from_home(app.workspace.logs)),
        ("keys", f"{from_home(app.workspace.root / keymap.FILE_NAME)}, {from_home(keymap.config_file())}"),
        ("model", app.session.model),
        ("engine", engine_words(engine)[0]),
        ("rater", app.session.rater),
        ("system", f"Python {platform.python_version()} · {platform.system()} {platform.machine()}"),
        *((name, _version(name)) for name in PACKAGES),
    ]
    width = max(len(name) for name, _ in rows)
    return Content("\n").join(
        Content.assemble((f"{name:<{width}}  ", "$text-muted"), content(told)) for name, told in rows
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def logs(folder: Path) -> list[tuple[Path, str]]:
    """The end of each log below a folder, newest log first; bytes that are no UTF-8 become U+FFFD."""
    found = []
    for path in folder.rglob("*.log"):
        try:
            with path.open("rb") as log:
                size = log.seek(0, 2)
                log.seek(max(0, size - LOG_BYTES))
                text = log.read().decode(errors="replace")
            found.append((path.stat().st_mtime, path, size, text))
        except OSError as error:
            found.append((0.0, path, 0, str(error)))
    tails = []
    for _, path, size, text in sorted(found, reverse=True):
        lines = text.rstrip().splitlines()
        cut = len(lines) > LOG_LINES or size > LOG_BYTES
        tails.append((path, "\n".join([*(["…"] if cut else []), *lines[-LOG_LINES:]])))
    return tails
