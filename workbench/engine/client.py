"""The engine as the commands see it: a child process that is fed requests and reports events.

Nothing heavy is imported here: the weights live in the other process. A dying engine is an event, not an exception;
it carries the generations that were left unfinished, and `restart` brings the engine back as it was. The app, which
restarts it by itself, uses `workbench.engine.supervisor`; beneath both is `workbench.engine.process`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from storage.errors import WorkbenchError
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.engine.listeners import Listeners
from workbench.engine.process import EngineDied, EngineProcess, log_of, server_command
from workbench.engine.protocol import Done, Event, Failed, Generate, Load, Progress, Ready, Request, Swap

Report = Event | EngineDied


class EngineClient:
    """One engine process at a time, for one event loop.

    Events reach every listener, in order, on the event loop. `listen` is for whoever wants them all (the app);
    `load`, `swap` and `generate` are for whoever asks one thing and waits for its end (the commands).
    """

    def __init__(self, workspace: Workspace, *, threads: int | None = None) -> None:
        self.workspace = workspace
        self.threads = threads
        self.ready: Ready | None = None  # what is loaded, once something is
        self.unfinished: dict[str, Generate] = {}
        self._listeners: Listeners[Report | None] = Listeners()
        self._process: EngineProcess | None = None
        self._last_load: Load | None = None
        self._closing = False
        self._lock = asyncio.Lock()  # starting and closing: one process at a time

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def log_path(self) -> Path:
        return log_of(self.workspace)

    async def start(self) -> None:
        """Start the process (nothing is loaded yet). Does nothing when it runs already."""
        async with self._lock:
            if self.running:
                return
            if self._process is not None:
                await self._process.end()  # its last words come before the next one's first
            self._closing, self.ready = False, None
            self.unfinished.clear()
            self._process = await EngineProcess.start(
                self.workspace, self._hear, server_command(self.workspace, self.threads)
            )

    async def restart(self) -> None:
        """Start again after the engine died, and load what was loaded last. The unfinished generations are the
        caller's to send again: `EngineDied.unfinished` holds them."""
        await self.start()
        if self._last_load is not None:
            await self.send(self._last_load)

    async def send(self, request: Request) -> None:
        """Send one request.

        Raises:
            WorkbenchError: the engine is not running, or the request is too long.
        """
        process = self._process
        if process is None or not process.alive or self._closing:
            raise WorkbenchError("the engine is not running", f"start it again; its log is {self.log_path}")
        process.send(request)
        if isinstance(request, Generate):
            self.unfinished[request.request] = request
        elif isinstance(request, Load):
            self._last_load = request

    def listen(self, listener: Callable[[Report], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; the function returned ends that."""
        return self._listeners.add(lambda report: None if report is None else listener(report))

    async def load(self, request: Load) -> AsyncIterator[Report]:
        """Load a model: yields its progress, warnings, and at the end Ready, Failed(during='load') or EngineDied."""
        kinds = (Progress, Ready)
        async for event in self._ask(
            request,
            belongs=lambda event: isinstance(event, kinds) or _failed(event, "load", "swap"),
            ends=lambda event: isinstance(event, Ready) or _failed(event, "load"),
        ):
            yield event

    async def swap(self, version: str) -> Report:
        """Serve another version: returns Swapped, Failed(during='swap') or EngineDied."""
        last: Report = Failed("swap", "the engine was closed")
        async for event in self._ask(Swap(version), belongs=_ends_swap, ends=_ends_swap):
            last = event
        return last

    async def generate(self, request: Generate) -> AsyncIterator[Report]:
        """Sample answers: yields Text and Answer events, and at the end Done, Failed or EngineDied.

        Leaving the loop early cancels the generation.
        """
        try:
            async for event in self._ask(
                request,
                belongs=lambda event: getattr(event, "request", None) == request.request,
                ends=lambda event: isinstance(event, Done | Failed),
            ):
                yield event
        finally:
            if request.request in self.unfinished and self.running and not self._closing:
                await self.send(protocol.Cancel(request.request))

    async def close(self) -> None:
        """End the engine: asked first, then made to. Returns within a few seconds, whatever it is doing."""
        self._closing = True
        async with self._lock:
            if self._process is not None and not await self._process.end():
                self._listeners.tell(None)  # it cannot be ended, but whoever waits for it need not go on

    async def __aenter__(self) -> EngineClient:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(
        self, request: Request, *, belongs: Callable[[Report], bool], ends: Callable[[Report], bool]
    ) -> AsyncIterator[Report]:
        events: asyncio.Queue[Report | None] = asyncio.Queue()
        stop_listening = self._listeners.add(events.put_nowait)
        try:
            await self.send(request)
            while (event := await events.get()) is not None:
                died = isinstance(event, EngineDied)
                if died or belongs(event):
                    yield event
                if died or (belongs(event) and ends(event)):
                    return
        finally:
            stop_listening()

    def _hear(self, event: Report) -> None:
        match event:
            case Ready():
                self.ready = event
            case protocol.Swapped() if self.ready is not None:
                self.ready = msgspec.structs.replace(self.ready, version=event.version)
            case Done(request=str(request)) | Failed(request=str(request)):
                self.unfinished.pop(request, None)
            case EngineDied():
                if self._closing:
                    self._listeners.tell(None)  # closed: nothing more will come
                    return
                event = msgspec.structs.replace(
                    event, unfinished=tuple(self.unfinished.values()), was_ready=self.ready is not None
                )
                self.ready = None
                self.unfinished.clear()
        self._listeners.tell(event)


def _failed(event: Report, *during: str) -> bool:
    return isinstance(event, Failed) and event.during in during


def _ends_swap(event: Report) -> bool:
    return isinstance(event, protocol.Swapped) or _failed(event, "swap")
