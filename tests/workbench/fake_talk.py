"""The fake engine as the tests use it: its command line, its mood, what it heard, and who of it lives."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil

PROGRAM = Path(__file__).with_name("fake_engine.py")


class FakeEngine:
    """A folder in which one fake engine at a time lives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.command = [sys.executable, "-S", "-E", str(PROGRAM), str(folder)]

    def mood(self, **changes: Any) -> None:
        """How it behaves from the next request on (see `fake_engine`); without changes, well."""
        new = self.folder / "mood.json.new"
        new.write_text(json.dumps(changes))
        new.replace(self.folder / "mood.json")

    def heard(self, what: str = "") -> list[dict[str, Any]]:
        """The starts and requests, or those of one kind, oldest first."""
        file = self.folder / "heard.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [said for said in map(json.loads, lines) if what in ("", said["what"])]

    def living(self) -> list[int]:
        """The processes of it that live, of this test's children."""
        return [child.pid for child in psutil.Process().children(recursive=True) if self._is_of_it(child)]

    def _is_of_it(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and str(self.folder) in process.cmdline()
        except psutil.Error:
            return False
