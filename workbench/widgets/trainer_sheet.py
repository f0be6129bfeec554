"""What a command of the trainer tells, on a sheet: the app reads no model itself."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from workbench.text import content, one_line
from workbench.training.launcher import environment
from workbench.widgets.dialogs import SheetDialog

BESIDE = 8  # cells of the frame and the scroll bar


class TrainerSheet(SheetDialog):
    """The command's text as soon as it is there, what it narrates until then; closing the sheet ends the command.

    It has the usual priority: somebody waits for it, and rates nothing meanwhile.

    Args:
        command: its name and what else is given, such as `["explain", "v3"]`.
        config: settings, in their sections, that go with it.
    """

    def __init__(self, title: str, command: Sequence[str], config: Mapping[str, Any] | None = None) -> None:
        super().__init__(title)
        self.command = command
        self.config = config or {}
        self.process: Process | None = None

    def page(self) -> ComposeResult:
        yield Static(Content.styled("starting the trainer…", "$text-muted"), id="told", markup=False)

    def on_mount(self) -> None:
        self._start()

    @work
    async def _start(self) -> None:
        app = self.workbench
        with TemporaryDirectory(prefix="workbench-") as folder:
            command = [sys.executable, "-m", "trainer", *self.command, "--workspace", str(app.workspace.root)]
            if self.config:
                file = Path(folder) / "recipe.toml"
                file.write_text(toml(self.config), encoding="utf-8")
                command += ["--config", str(file)]
            await self._told_by(command)

    async def _told_by(self, command: list[str]) -> None:
        around = environment(os.environ) | {"COLUMNS": str(max(40, self.size.width - BESIDE)), "NO_COLOR": "1"}
        try:
            self.process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=PIPE, env=around, start_new_session=True
            )
        except OSError as error:
            self._show(Content.styled(f"the trainer could not be started: {error}", "$text-error"))
            return
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


def toml(config: Mapping[str, Any], section: str = "") -> str:
    """Settings in their sections as TOML, a line each: `ppo.steps = 40`. A string of JSON is one of TOML."""
    lines = [
        toml(value, f"{section}{name}.")
        if isinstance(value, Mapping)
        else f"{section}{name} = {json.dumps(value, ensure_ascii=False)}\n"
        for name, value in config.items()
    ]
    return "".join(lines)
