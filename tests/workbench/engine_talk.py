"""A conversation with an engine inside the test's own process, and trained versions to swap to."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tiny_model import make_adapter

from storage import versions
from storage.database import open_database
from storage.records import Sampling, Version
from storage.workspace import Workspace
from workbench.engine.protocol import (
    Answer,
    Done,
    Event,
    Failed,
    Generate,
    Load,
    Ready,
    Request,
)
from workbench.engine.server import Engine

if TYPE_CHECKING:
    import torch

SHORT = Sampling(max_new_tokens=12)
LONG = Sampling(max_new_tokens=3000)


class Talk:
    """One engine and what it said so far."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.engine = Engine(workspace, self.events.put)

    def say(self, *requests: Request) -> None:
        for request in requests:
            self.engine.handle(request)

    def until(self, *kinds: type, request: str | None = None) -> list[Event]:
        """The events up to the first of these kinds (and of that request), which is the last of the list."""
        seen: list[Event] = []
        while True:
            seen.append(self.events.get(timeout=60))
            if isinstance(seen[-1], kinds) and request in (None, getattr(seen[-1], "request", None)):
                return seen

    def load(self, model: Path, **options: str) -> list[Event]:
        self.say(Load(str(model), device="cpu", dtype="fp32", **options))
        return self.until(Ready, Failed) if options.get("version") else self.until(Ready)

    def answers(self, request: Generate) -> list[Answer]:
        self.say(request)
        return [event for event in self.until(Done, request=request.request) if isinstance(event, Answer)]


def add_version(workspace: Workspace, model: Path, seed: int = 1, *, strength: float = 1.0) -> Version:
    """A trained version of the model loaded last: random LoRA weights, hashed and recorded."""
    folder = workspace.versions / f"lora-{seed}"
    return record_version(workspace, make_adapter(folder, model, seed, strength=strength), "lora")


def add_full_version(workspace: Workspace, model: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Version:
    """A version with weights of its own: those of the model, changed in place."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    change(tensors)
    file = workspace.versions / f"full-{change.__name__}" / "model.safetensors"
    file.parent.mkdir()
    save_file(tensors, file)
    return record_version(workspace, file, "full")


def record_version(workspace: Workspace, file: Path, kind: str) -> Version:
    with open_database(workspace) as database:
        served = versions.served(database)
        assert served is not None
        base = versions.base_of(database, served)
        relative, digest = str(file.relative_to(workspace.root)), versions.sha256_of(file)
        return versions.add_candidate(database, base=base, parent=base.name, file=relative, sha256=digest, kind=kind)


def serve(workspace: Workspace, version: Version) -> None:
    with open_database(workspace) as database:
        versions.publish(database, workspace, version.name)
