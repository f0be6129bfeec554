"""The engine as the app and the commands see it: a child process that is fed requests and reports events.

Nothing heavy is imported here: the weights live in the other process. A dying engine is an event, not an exception;
it carries the generations that were left unfinished, and `restart` brings the engine back as it was.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from storage.errors import WorkbenchError
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.engine.protocol import Done, Event, Failed, Generate, Load, Progress, Ready, Request, Shutdown, Swap

PATIENCE = 3.0  # seconds that a closing engine has before it is made to stop
TAIL_BYTES = 4000
LOG_LIMIT = 8 * 1024 * 1024
SERVER = "workbench.engine.server"
PACKAGES = Path(__file__).resolve().parents[2]


class EngineDied(msgspec.Struct, frozen=True):
    """The engine ended on its own. `log` is the end of what it last wrote to its standard error (raw text).

    `unfinished` are the generations without an end, oldest first: send them again after a restart. `was_ready` is False
    when it died before a model was loaded: a restart would most likely end the same way.
    """

    exit_code: int
    log: str
    log_path: str
    unfinished: tuple[Generate, ...]
    was_ready: bool

    @property
    def error(self) -> str:
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"the engine stopped unexpectedly ({how})"

    @property
    def hint(self) -> str:
        last = self.log.strip().rpartition("\n")[2]
        memory = "it may have run out of memory; " if self.exit_code == -9 else ""
        return f"{memory}its log is {self.log_path}" + (f", and ends: {last}" if last else "")


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
        self._listeners: list[Callable[[Report | None], None]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._last_load: Load | None = None
        self._closing = False
        self._log_start = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def log_path(self) -> Path:
        return self.workspace.logs / "engine.log"

    async def start(self) -> None:
        """Start the process (nothing is loaded yet). Does nothing when it runs already."""
        if self.running:
            return
        self.workspace.prepare()
        self._closing, self.ready = False, None
        self.unfinished.clear()
        command = ["-P", "-m", SERVER, "--workspace", str(self.workspace.root)]
        if self.threads:
            command += ["--threads", str(self.threads)]
        # `-P` and an explicit path: a folder named `storage` where the user stands must not be taken for ours.
        path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                limit=protocol.MAX_LINE,
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle; the engine ends with its input
            )
        self._reading = asyncio.create_task(self._read(self._process))

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
        if process is None or process.stdin is None or not self.running or self._closing:
            raise WorkbenchError("the engine is not running", f"start it again; its log is {self.log_path}")
        try:
            line = protocol.encode(request)
        except ValueError as error:
            raise WorkbenchError(f"this cannot be sent to the engine: {error}", "shorten the prompt") from error
        if isinstance(request, Generate):
            self.unfinished[request.request] = request
        elif isinstance(request, Load):
            self._last_load = request
        try:
            process.stdin.write(line)
            await process.stdin.drain()
        except ConnectionError:
            pass  # it is dying: the reader is about to report that, with the log

    def listen(self, listener: Callable[[Report], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; the function returned ends that."""
        return self._add_listener(lambda report: None if report is None else listener(report))

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
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(PATIENCE):
                if self.running and not self._closing:
                    await self.send(Shutdown())
                self._closing = True
                if process.stdin is not None:
                    process.stdin.close()
                await process.wait()
        except TimeoutError:
            self._closing = True
            await _stop(process)
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=PATIENCE)

    async def __aenter__(self) -> EngineClient:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(
        self, request: Request, *, belongs: Callable[[Report], bool], ends: Callable[[Report], bool]
    ) -> AsyncIterator[Report]:
        events: asyncio.Queue[Report | None] = asyncio.Queue()
        stop_listening = self._add_listener(events.put_nowait)
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

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while (line := await _read_line(process.stdout)) is not None:
            try:
                event: Event = protocol.decode_event(line)
            except protocol.UNREADABLE as error:
                event = Failed("protocol", f"the engine said something unreadable: {error}", f"see {self.log_path}")
            self._note(event)
            self._tell(event)
        exit_code = await process.wait()
        if self._closing:
            self._tell(None)
        else:
            died = EngineDied(
                exit_code, self._log_tail(), str(self.log_path), tuple(self.unfinished.values()), self.ready is not None
            )
            self.ready = None
            self.unfinished.clear()
            self._tell(died)

    def _note(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.ready = event
        elif isinstance(event, protocol.Swapped) and self.ready is not None:
            self.ready = msgspec.structs.replace(self.ready, version=event.version)
        elif isinstance(event, Done | Failed) and event.request is not None:
            self.unfinished.pop(event.request, None)

    def _add_listener(self, listener: Callable[[Report | None], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, event: Report | None) -> None:
        """Hand an event to every listener; None says that the engine was closed and nothing more will come."""
        for listener in tuple(self._listeners):
            listener(event)

    def _open_log(self) -> BinaryIO:
        """The log, opened to append; a long one is set aside first, so that two files bound its size."""
        path = self.log_path
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._log_start = os.fstat(descriptor).st_size
        return os.fdopen(descriptor, "ab")

    def _log_tail(self) -> str:
        """The end of what this run of the engine wrote."""
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - TAIL_BYTES))
                return log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""


def _failed(event: Report, *during: str) -> bool:
    return isinstance(event, Failed) and event.during in during


def _ends_swap(event: Report) -> bool:
    return isinstance(event, protocol.Swapped) or _failed(event, "swap")


async def _read_line(stream: asyncio.StreamReader) -> bytes | None:
    """The next line; its beginning alone when it is longer than the limit; None at the end of the stream.

    A last line without its end is dropped: whoever was writing it died.
    """
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        start = await stream.readexactly(error.consumed)
        while True:
            try:
                await stream.readuntil(b"\n")
                return start[:100]
            except asyncio.LimitOverrunError as more:
                await stream.readexactly(more.consumed)
            except asyncio.IncompleteReadError:
                return None


async def _stop(process: asyncio.subprocess.Process) -> None:
    for stop in (process.terminate, process.kill):
        try:
            stop()
            async with asyncio.timeout(PATIENCE):
                await process.wait()
                return
        except ProcessLookupError:
            return
        except TimeoutError:
            continue
