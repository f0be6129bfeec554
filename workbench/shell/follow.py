"""Which version answers: the one that is published, or, pinned, the one that was loaded by hand."""

from __future__ import annotations

from textual.content import Content

from storage.records import Version
from workbench.engine import protocol
from workbench.engine.status import EngineStatus
from workbench.engine.supervisor import Supervisor
from workbench.text import one_line
from workbench.training.outcome import swap_figures


class Follower:
    """Has the engine answer with the served version, as soon as it is known and the engine is ready."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None
        self.served: Version | None = None

    def follow(self, engine: EngineStatus) -> None:
        """Answer with what is served, unless the engine is pinned or not ready, or it is a version of another model."""
        served = self.served
        if served is None or self.supervisor is None or not engine.is_ready or engine.pinned:
            return
        if not engine.base or served.base_digest == engine.base:
            self.supervisor.follow(served.name)

    def stay(self, engine: EngineStatus, name: str) -> None:
        """Answer with the version that was pinned when the app closed."""
        if engine.pinned and name not in ("", engine.version) and self.supervisor is not None:
            self.supervisor.follow(name)

    def load(self, name: str) -> None:
        """Answer with a version; one whose swap failed is tried again."""
        if self.supervisor is not None:
            self.supervisor.swap(name)


def swap_banner(swapped: protocol.Swapped, found: Version | None) -> Content:
    """`▲ v4 → v5  reward +0.41  KL 3.1  proof: exact`."""
    parts = [Content.assemble((f"▲ {swapped.previous} → {swapped.version}", "bold"))]
    parts += [Content(f"{label} {value}") for label, value in swap_figures(found.metrics if found else {})]
    if swapped.proof:
        parts.append(Content(f"proof: {one_line(swapped.proof)}"))
    return Content.assemble(" ", Content("  ").join(parts))
