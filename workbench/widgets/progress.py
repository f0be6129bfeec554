"""Long work on a thread, watched from a dialog: how far it is, and the way to stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from textual.app import ComposeResult
from textual.widgets import ProgressBar, Static

from storage.errors import UsageError
from storage.wording import counted
from workbench.text import content
from workbench.widgets.dialogs import Dialog

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

T = TypeVar("T")
Told = Callable[[str, int, int], None]
PATIENCE = 0.3  # seconds; what takes no longer needs no dialog
LOOK_SECONDS = 0.1


class Watch:
    """What the thread tells and the dialog shows; `told` is called by the thread, and ends the work once it is asked
    to stop."""

    def __init__(self) -> None:
        self.doing, self.done, self.of = "reading", 0, 0
        self.stopped = Event()

    def told(self, doing: str, done: int, of: int) -> None:
        """Raises UsageError: the work was asked to stop."""
        self.doing, self.done, self.of = doing, done, of
        if self.stopped.is_set():
            raise UsageError("it was stopped", "nothing was stored")


class ProgressDialog(Dialog[None]):
    """How far it is. Escape asks the work to stop; the dialog goes when it has."""

    AUTO_FOCUS = ""

    def __init__(self, title: str, watch: Watch) -> None:
        super().__init__(title)
        self.watching = watch

    def fields(self) -> ComposeResult:
        yield Static(id="doing", markup=False)
        yield ProgressBar(show_eta=False)

    def on_mount(self) -> None:
        self.look()
        self.set_interval(LOOK_SECONDS, self.look)

    def look(self) -> None:
        """Draw how far it is by now."""
        now = self.watching
        count = (
            f" {now.done} of {counted(now.of, 'record')}"
            if now.of
            else f" {counted(now.done, 'record')}"
            if now.done
            else " …"
        )
        self.query_one("#doing", Static).update(content("stopping …" if now.stopped.is_set() else now.doing + count))
        self.query_one(ProgressBar).update(total=now.of or None, progress=now.done)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action == "cancel"

    def action_cancel(self) -> None:
        self.watching.stopped.set()
        self.look()


async def watched(app: WorkbenchApp, title: str, watch: Watch, work: Awaitable[T]) -> T:
    """Wait for work that tells `watch` how far it is; where it takes longer than a moment, in a dialog.

    Raises:
        WorkbenchError: as the work does; `watch.stopped` is set where it was stopped.
    """
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=PATIENCE)
    if not task.done():
        dialog = ProgressDialog(title, watch)
        await app.push_screen(dialog)
        await asyncio.wait({task})
        dialog.dismiss(None)
    return task.result()
