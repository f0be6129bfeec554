"""What `trainer explain` says of an answer or a version, on a sheet: the app reads no model itself."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process

from textual import work
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from workbench.text import content, one_line
from workbench.training.launcher import environment, lower_priority
from workbench.widgets.dialogs import SheetDialog

BESIDE = 8  # cells of the frame and the scroll bar


class ExplainSheet(SheetDialog):
    """The command's text as soon as it is there, what it narrates until then; closing the sheet ends the command.

    Args:
        subject: the key of an answer, or the name of a version.
    """

    def __init__(self, title: str, subject: str) -> None:
        super().__init__(title)
        self.subject = subject
        self.process: Process | None = None

    def page(self) -> ComposeResult:
        yield Static(Content.styled("starting the trainer…", "$text-muted"), id="told", markup=False)

    def on_mount(self) -> None:
        self._explain()

    @work
    async def _explain(self) -> None:
        app = self.workbench
        command = [sys.executable, "-m", "trainer", "explain", self.subject, "--workspace", str(app.workspace.root)]
        around = environment(os.environ) | {"COLUMNS": str(max(40, self.size.width - BESIDE)), "NO_COLOR": "1"}
        try:
            self.process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, env=around, start_new_session=True
            )
        except OSError as error:
            self._show(Content.styled(f"the trainer could not be started: {error}", "$text-error"))
            return
        try:
            lower_priority(self.process.pid)
        except ProcessLookupError:
            pass  # it has ended already
        assert self.process.stdout is not None, "it is a pipe"
        text, narrated = await asyncio.gather(self.process.stdout.read(), self._narrated(self.process))
        said = text.decode(errors="replace").rstrip()
        failed = await self.process.wait() != 0
        self._show(Content.styled("\n".join(narrated[-2:]), "$text-error") if failed else content(said))

    async def _narrated(self, process: Process) -> list[str]:
        """The lines of standard error, the newest of which are shown as they come: a fault stands above its hint."""
        assert process.stderr is not None, "it is a pipe"
        lines: list[str] = []
        while line := await process.stderr.readline():
            lines.append(one_line(line.decode(errors="replace")))
            self._show(Content.styled("\n".join(lines[-2:]) + "…", "$text-muted"))
        return lines

    def _show(self, told: Content) -> None:
        if self.is_mounted:
            self.query_one("#told", Static).update(told)

    def on_unmount(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
