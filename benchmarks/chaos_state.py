"""What a run of the chaos benchmark goes on from, and what there is to rate in it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from benchmarks.rows import write_json
from storage import conversations, samples
from storage.database import Database
from storage.records import Split


class State:
    """What an interrupted run goes on from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.rounds: int = held.get("rounds", 0)
        self.kills: Counter[str] = Counter(held.get("kills", {}))
        self.faults: Counter[str] = Counter(held.get("faults", {}))
        self.found: Counter[str] = Counter(held.get("found", {}))
        self.failed_calls: int = held.get("failed_calls", 0)
        self.seconds: float = held.get("seconds", 0.0)
        self.faulted = False

    def save(self) -> None:
        write_json(self.path, {name: value for name, value in vars(self).items() if name != "path"})


def add_items(database: Database, count: int) -> None:
    """Prompts to review, each with two answers; as ethics prompts, so that no job grows by their ratings."""
    first = database.scalar("SELECT count(*) FROM prompts WHERE split = 'ethics'")
    with database.transaction():
        for number in range(first, first + count):
            prompt = conversations.add(database, f"Q{number:06d} Why is the sea salty?", language="en",
                                       split=Split.ETHICS)  # fmt: skip
            answers = [samples.new(prompt.id, f"Rivers bring salt, {n} of {number}.", position=n) for n in range(2)]
            samples.add(database, answers)
