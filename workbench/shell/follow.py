"""Which version answers: the one that is published, or, pinned, the one that was loaded by hand."""

from __future__ import annotations

from collections.abc import Callable

from textual.content import Content

from storage.records import Version
from workbench.engine import protocol
from workbench.engine.status import EngineStatus
from workbench.text import one_line
from workbench.training.outcome import swap_figures


class Follower:
    """Asks the engine for another version where it should answer with another. `send` hands it a request."""

    def __init__(self, send: Callable[[protocol.Request], None]) -> None:
        self._send = send
        self.served: Version | None = None
        self.swapping_to = ""

    def follow(self, engine: EngineStatus) -> None:
        """Load the served version, unless the engine is pinned, is not ready, or has it (or is about to)."""
        served = self.served
        if served is None or engine.pinned or not engine.is_ready:
            return
        if served.name not in (engine.version, self.swapping_to):
            self.load(served.name)

    def load(self, name: str) -> None:
        self.swapping_to = name
        self._send(protocol.Swap(name))


def swap_banner(swapped: protocol.Swapped, found: Version | None) -> Content:
    """`▲ v4 → v5  reward +0.41  KL 3.1  proof: exact`."""
    parts = [Content.assemble((f"▲ {swapped.previous} → {swapped.version}", "bold"))]
    parts += [Content(f"{label} {value}") for label, value in swap_figures(found.metrics if found else {})]
    if swapped.proof:
        parts.append(Content(f"proof: {one_line(swapped.proof)}"))
    return Content.assemble(" ", Content("  ").join(parts))
