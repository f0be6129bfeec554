"""One engine process from its start to its end: it is fed requests, heard line by line, and ended in bounded time."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from storage.errors import WorkbenchError
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.engine.protocol import Event, Failed, Generate, Request, Shutdown

PATIENCE = 3.0  # seconds that an engine has to end when it is asked to, and again when it is killed
LAST_WORDS = 1.0  # seconds that what an ended engine said last has to arrive
TAIL_BYTES = 4000
LOG_LIMIT = 8 * 1024 * 1024
SERVER = "workbench.engine.server"
PACKAGES = Path(__file__).resolve().parents[2]
SHOWN = 100  # bytes of a line that is too long, for the message about it


class EngineDied(msgspec.Struct, frozen=True):
    """The engine ended on its own. `log` is the end of what it last wrote to its standard error (raw text).

    `unfinished` are the generations without an end, oldest first: send them again after a restart. `was_ready` is False
    when it died before a model was loaded: a restart would most likely end the same way. `again` says that it is being
    started again.
    """

    exit_code: int
    log: str
    log_path: str
    unfinished: tuple[Generate, ...] = ()
    was_ready: bool = False
    again: bool = False

    @property
    def error(self) -> str:
        how = f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"the engine stopped unexpectedly ({how})"

    @property
    def hint(self) -> str:
        last = self.log.strip().rpartition("\n")[2]
        memory = "it may have run out of memory; " if self.exit_code == -9 else ""
        return f"{memory}its log is {self.log_path}" + (f", and ends: {last}" if last else "")


def log_of(workspace: Workspace) -> Path:
    """Where the engine's standard error goes."""
    return workspace.logs / "engine.log"


def server_command(workspace: Workspace, threads: int | None = None) -> list[str]:
    """The command line of the engine."""
    # `-P`: a folder named `storage` where the user stands must not be taken for ours.
    command = [sys.executable, "-P", "-m", SERVER, "--workspace", str(workspace.root)]
    return command + (["--threads", str(threads)] if threads else [])


class EngineProcess(asyncio.SubprocessProtocol):
    """A process that has been started (`EngineProcess.start`). It speaks on the event loop, and has no task.

    `hear` gets every event, in order, and at the end, once, `EngineDied`: whether it was asked to end or not.
    """

    def __init__(self, workspace: Workspace, hear: Callable[[Event | EngineDied], None]) -> None:
        self._workspace = workspace
        self._hear = hear
        self._line = bytearray()
        self._too_long = False  # the line that is arriving; the rest of it is not kept
        self._output_ended = False
        self._log_start = 0
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # asyncio tells of a process that ended from a thread that knows no app; whoever listens must find theirs.
        self._context = contextvars.copy_context()

    @classmethod
    async def start(
        cls, workspace: Workspace, hear: Callable[[Event | EngineDied], None], command: Sequence[str]
    ) -> EngineProcess:
        """Start the process; nothing is loaded yet.

        Raises:
            OSError: it cannot be started.
            WorkbenchError: the workspace cannot be written.
        """
        workspace.prepare()
        made = cls(workspace, hear)
        # An explicit path, for the same reason as `-P`.
        path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH")]))
        with made._open_log() as log:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: made,
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C in the terminal is ours to handle; the engine ends with its input
            )
        return made

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    @property
    def alive(self) -> bool:
        return self._transport.get_returncode() is None

    def send(self, request: Request) -> None:
        """Send one request; never waits. One that is ending does not hear it, which `EngineDied` tells.

        Raises:
            WorkbenchError: the request is too long.
        """
        try:
            line = protocol.encode(request)
        except ValueError as error:
            raise WorkbenchError(f"this cannot be sent to the engine: {error}", "shorten the prompt") from error
        if self.alive and not self._input.is_closing():
            self._input.write(line)

    def kill(self) -> None:
        """End it by force, with whatever it started."""
        if self.alive:
            self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def end(self, patience: float | None = None) -> bool:
        """End it: asked first, then by force; returns within twice `patience` (`PATIENCE`), whatever it is doing.

        Returns:
            Whether it is gone. Only a process that the system itself cannot end is not.
        """
        patience = PATIENCE if patience is None else patience
        if not self._gone.done():
            self.send(Shutdown())
            self._input.close()
            if not await self._is_gone_in(patience):
                self.kill()
                await self._is_gone_in(patience)
        return self._gone.done()

    async def _is_gone_in(self, seconds: float) -> bool:
        await asyncio.wait([self._gone], timeout=seconds)
        return self._gone.done()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._input = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._grow(piece)
            self._said(bytes(self._line))
            self._line.clear()
            self._too_long = False
        self._grow(rest)

    def _grow(self, piece: bytes) -> None:
        self._line += piece
        if self._too_long or len(self._line) >= protocol.MAX_LINE:
            self._too_long = True
            del self._line[SHOWN:]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A last line without its end is dropped: whoever was writing it died."""
        if fd == 1:
            self._output_ended = True
            if self.alive:  # nothing can be heard of it any more: it is over, even where it does not know
                asyncio.get_running_loop().call_later(PATIENCE, self.kill)
            else:
                self._finish()

    def process_exited(self) -> None:
        if self._output_ended:
            self._finish()
        else:  # what it said last is still in the pipe, which a process that it started may hold open
            asyncio.get_running_loop().call_later(LAST_WORDS, self._finish)

    def _finish(self) -> None:
        if self._gone.done():
            return
        self._gone.set_result(None)
        if not self._output_ended:
            self._kill_group()  # whoever still holds its pipe
        exit_code = self._transport.get_returncode()
        self._transport.close()
        code = -1 if exit_code is None else exit_code
        self._tell(EngineDied(code, self._log_tail(), str(log_of(self._workspace))))

    def _said(self, line: bytes) -> None:
        if self._gone.done():
            return
        try:
            event: Event = protocol.decode_event(line)
        except protocol.UNREADABLE as error:
            where = f"see {log_of(self._workspace)}"
            event = Failed("protocol", f"the engine said something unreadable: {error}", where)
        self._tell(event)

    def _tell(self, event: Event | EngineDied) -> None:
        self._context.copy().run(self._hear, event)

    # Its log

    def _open_log(self) -> BinaryIO:
        """The log, opened to append; a long one is set aside first, so that two files bound its size."""
        path = log_of(self._workspace)
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._log_start = os.fstat(descriptor).st_size
        return os.fdopen(descriptor, "ab")

    def _log_tail(self) -> str:
        """The end of what this run of the engine wrote."""
        try:
            with log_of(self._workspace).open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - TAIL_BYTES))
                return log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
