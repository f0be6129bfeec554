"""The app's hold on the engine process: start it, speak to it, start it again. Failures are reported, never raised."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from storage.errors import WorkbenchError
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.engine.client import EngineClient, Report


class EngineLink:
    """One engine for the app. `spawn` runs a coroutine in the background; `hear` gets every event."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        hear: Callable[[Report], None],
        report: Callable[[BaseException], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.client = EngineClient(workspace)
        self.client.listen(hear)
        self._report = report
        self._spawn = spawn

    def start(self, model: str) -> None:
        """Start the process and load a model."""

        async def begin() -> None:
            await self.client.start()
            await self.client.send(protocol.Load(model))

        self._try(begin())

    def restart(self) -> None:
        """Start the process again, whether it is running or not, with the model it had."""

        async def again() -> None:
            await self.client.close()
            await self.client.restart()

        self._try(again())

    def send(self, request: protocol.Request) -> None:
        self._try(self.client.send(request))

    def _try(self, work: Coroutine[Any, Any, None]) -> None:
        async def tried() -> None:
            try:
                await work
            except (WorkbenchError, OSError) as error:
                self._report(error)

        self._spawn(tried())
