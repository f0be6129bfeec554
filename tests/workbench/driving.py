"""What the tests of the app share: waiting for a state, what is visible, and an engine's words without an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fake_talk import FakeEngine
from textual.pilot import Pilot

from storage import versions
from storage.database import Database
from workbench.engine import protocol
from workbench.engine.supervisor import Supervisor
from workbench.shell.app import WorkbenchApp

SIZES = [(80, 24), (120, 40), (40, 12)]


async def until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a state; a failure names what is on screen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("this did not come about; on screen:\n" + visible(pilot.app))
        await pilot.pause(0.02)
        await asyncio.sleep(0)


def visible(app: object) -> str:
    """All characters on the screen, line by line."""
    assert isinstance(app, WorkbenchApp)
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def opened(pilot: Pilot[None]) -> WorkbenchApp:
    """The app with its workspace open and the first-run screen closed."""
    app = pilot.app
    assert isinstance(app, WorkbenchApp)
    await until(pilot, lambda: app.desk is not None and app.rated is not None)
    if app.first_run:
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 1)
    return app


def served_base(database: Database) -> None:
    """The version v0, so that samples may name it."""
    versions.ensure_base(database, "smollm2", "0" * 64)


def ready(app: WorkbenchApp, version: str = "v0") -> None:
    """Tell the app that an engine has loaded a model."""
    app.hear(protocol.Ready("smollm2", version, "cpu", "bfloat16", 134_515_008, 2048, 1.0))


async def with_engine(pilot: Pilot[None], fake: FakeEngine) -> WorkbenchApp:
    """The open app with the fake engine, a process, ready behind it."""
    app = await opened(pilot)
    app.supervise(Supervisor(app.workspace, report=app.report, command=fake.command, patience=1.0))
    await until(pilot, lambda: app.engine.state == "ready", 30)
    return app


def answer(app: WorkbenchApp, *texts: str, version: str = "v0") -> None:
    """Tell the app that the engine has answered the request under way."""
    exchange = app.conversation.current
    assert exchange is not None
    request = exchange.ask.generate.request
    for n, text in enumerate(texts):
        app.hear(protocol.Text(request, n, text, len(text)))
    for n, text in enumerate(texts):
        app.hear(protocol.Answer(request, n, text, [1, 2, 3], "eos", version, 7 + n))
    app.hear(protocol.Done(request, 6, 0.5, 12.0))


async def type_text(pilot: Pilot[None], text: str) -> None:
    """Write into the prompt field, key by key."""
    for character in text:
        await pilot.press("space" if character == " " else character)
