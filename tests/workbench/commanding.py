"""What a command of a test left."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec


class Outcome(msgspec.Struct, frozen=True):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]
