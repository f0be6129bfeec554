"""The fake engine as the tests use it, and the app's end of it without an app."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from storage.records import Prompt, Sampling
from storage.workspace import Workspace
from workbench.engine import machine
from workbench.engine.machine import Phase, Restarting
from workbench.engine.process import EngineDied
from workbench.engine.protocol import Generate
from workbench.engine.supervisor import Supervisor
from workbench.screens.prompt.conversation import Ask, Conversation, Exchange

PATIENCE = 0.5  # seconds that the fake engine has to end
PROGRAM = Path(__file__).with_name("fake_engine.py")


class FakeEngine:
    """A folder in which one fake engine at a time lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.command = [sys.executable, "-S", "-E", str(PROGRAM), str(folder)]

    def mood(self, **changes: Any) -> None:
        """How it behaves from the next request on (see `fake_engine`); without changes, well."""
        new = self.folder / "mood.json.new"
        new.write_text(json.dumps(changes))
        new.replace(self.folder / "mood.json")

    def heard(self, what: str = "") -> list[dict[str, Any]]:
        """The starts and requests, or those of one kind, oldest first."""
        file = self.folder / "heard.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [said for said in map(json.loads, lines) if what in ("", said["what"])]

    def living(self) -> list[int]:
        """The processes of it that live, whoever started them."""
        return [process.pid for process in psutil.process_iter() if self._lives(process)]

    def _lives(self, process: psutil.Process) -> bool:
        try:
            return str(self.folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come about"
        await asyncio.sleep(0.005)


class Desk:
    """A supervisor and the queue of prompts before it, tied together as the app ties them."""

    def __init__(self, workspace: Workspace, command: list[str] | None, patience: float = PATIENCE) -> None:
        self.told: list[machine.Report] = []
        self.errors: list[Exception] = []
        self.conversation = Conversation()
        self.exchanges: list[Exchange] = []
        self.supervisor = Supervisor(workspace, report=self.errors.append, command=command, patience=patience)
        self.supervisor.listen(self.hear)

    def hear(self, event: machine.Report) -> None:
        self.told.append(event)
        self.conversation.hear(event)
        if isinstance(event, EngineDied | Restarting):
            self.conversation.engine_ended()
        self.send_waiting()

    def send_waiting(self) -> None:
        if self.phase is Phase.READY and (request := self.conversation.next_request()) is not None:
            self.supervisor.send(request)

    def ask(self, text: str, name: str = "", tokens: int = 64) -> None:
        name = name or text
        prompt = Prompt(name, text, "en", "2026-01-01T00:00:00.000000Z")
        self.conversation.ask(Ask(prompt, Generate(name, text, count=2, sampling=Sampling(max_new_tokens=tokens))))
        self.exchanges.append(self.conversation.waiting[-1])
        self.send_waiting()

    @property
    def phase(self) -> Phase:
        return self.supervisor.state.phase

    def told_of(self, kind: type) -> list:  # type: ignore[type-arg]
        return [event for event in self.told if isinstance(event, kind)]

    async def ready(self, seconds: float = 30.0) -> None:
        await until(lambda: self.phase is Phase.READY, seconds)

    async def opened(self) -> None:
        self.supervisor.load("smollm2")
        await self.ready()
