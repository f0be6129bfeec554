"""The app's hold on the engine: it does what the state machine of `workbench.engine.machine` says.

Everything that happens (a key, an event of the engine, its death) is one step of the machine, taken at once and whole;
what happens meanwhile waits for it. Starting and ending the process take time: each is a task, and one lock lets one of
them at a time near the process. A process is started only when the one before is gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from storage.errors import WorkbenchError
from storage.troubles import of_file
from storage.workspace import Workspace
from workbench.engine import machine, protocol
from workbench.engine.listeners import Listeners, to_the_loop
from workbench.engine.machine import Phase, Report, State
from workbench.engine.process import PATIENCE, EngineProcess, server_command


class Supervisor:
    """One engine for the app, on its event loop. Nothing here raises: what goes wrong is told as an event.

    Args:
        report: gets what a listener raises.
        command: of the process; by default the engine's own.
        patience: seconds that an engine has to end when it is asked to, and again when it is killed.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        report: Callable[[Exception], None] = to_the_loop,
        command: Sequence[str] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.state = State()
        self._workspace = workspace
        self._command = command or server_command(workspace)
        self._patience = patience
        self._listeners: Listeners[Report] = Listeners(report)
        self._process: EngineProcess | None = None
        self._lock = asyncio.Lock()
        self._happenings: deque[machine.Happening] = deque()
        self._stepping = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The process, if one lives."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def listen(self, listener: Callable[[Report], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; the function returned ends that."""
        return self._listeners.add(listener)

    def load(self, model: str) -> None:
        """Load a model, starting the process where there is none."""
        self._happens(protocol.Load(model))

    def restart(self) -> None:
        """Start the engine anew, whatever it is doing, with the model it had."""
        self._happens(machine.Restart())

    def swap(self, version: str) -> None:
        """Answer with a version from now on, also after a restart; one whose swap failed is tried again."""
        self._happens(machine.Choose(version, by_name=True))

    def follow(self, version: str) -> None:
        """Answer with the served version, unless taking it up has failed before."""
        self._happens(machine.Choose(version, by_name=False))

    def send(self, request: protocol.Generate | protocol.Cancel) -> None:
        """Hand the engine a request; where it cannot be, `Failed` is told."""
        self._happens(request)

    async def close(self) -> None:
        """End the engine. Returns within a few seconds, whatever it is doing; nothing is left running."""
        self._happens(machine.Close())
        while self._tasks:
            await asyncio.wait(self._tasks)

    # One step after the other

    def _happens(self, happening: machine.Happening) -> None:
        self._happenings.append(happening)
        if self._stepping:  # a listener asked for something: it has its turn when this step is done
            return
        self._stepping = True
        try:
            while self._happenings:
                self.state, effects = machine.step(self.state, self._happenings.popleft(), time.monotonic())
                for effect in effects:
                    self._do(effect)
        finally:
            self._stepping = False

    def _do(self, effect: machine.Effect) -> None:
        match effect:
            case machine.Tell(report=report):
                self._listeners.tell(report)
            case machine.Send(request=request):
                self._send(request)
            case machine.Launch():
                self._begin(self._launch())
            case machine.End():
                self._begin(self._end())

    def _send(self, request: protocol.Request) -> None:
        assert self._process is not None
        try:
            self._process.send(request)
        except WorkbenchError as error:
            during = "generate" if isinstance(request, protocol.Generate) else "protocol"
            self._happens(protocol.Failed(during, error.message, error.hint, getattr(request, "request", None)))

    # What takes time

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _launch(self) -> None:
        async with self._lock:
            if self.state.phase is not Phase.STARTING:  # closed meanwhile
                return
            try:
                if self._process is not None and not await self._process.end(self._patience):
                    raise WorkbenchError("the engine before cannot be ended", "wait for the system, then start again")
                self._process = await EngineProcess.start(self._workspace, self._happens, self._command)
            except WorkbenchError as error:
                self._happens(machine.NotStarted(error.message, error.hint))
                return
            except OSError as error:
                told = of_file("the engine cannot be started", error, hint=f"logs are in {self._workspace.logs}")
                self._happens(machine.NotStarted(told.message, told.hint))
                return
            if self._process.alive:  # otherwise its death is told, or was
                self._happens(machine.Started())

    async def _end(self) -> None:
        async with self._lock:
            gone = self._process is None or await self._process.end(self._patience)
            self._happens(machine.Ended(gone))
