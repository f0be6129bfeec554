"""The commands of the chaos run: import, export and backup, each killed in the middle and run once more."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.chaos_faults import Faults
from benchmarks.rows import write_lines
from storage.database import open_database
from storage.workspace import Workspace

RECORDS = 400
PATIENCE = 300.0  # seconds


class Command:
    """`workbench import`, `export` or `backup`, with a file of its own."""

    def __init__(self, kind: str, number: int, work: Path, workspace: Workspace, faults: Faults) -> None:
        self.kind = kind
        self.workspace = workspace
        self.mark = f"I{number:06d}-"
        suffix = ".db" if kind == "backup" else ".jsonl"
        self.file = work / "files" / f"{kind}-{number}{suffix}"
        self.file.parent.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.said = self.file.with_suffix(".said")
        self._environment = {**os.environ, **faults.environment("command")}
        if kind == "import":
            write_lines(self.file, ({"prompt": f"{self.mark}{n} Why?", "language": "en", "split": "ethics",
                                     "response": "So.", "score": 3} for n in range(RECORDS)))  # fmt: skip

    def start(self) -> None:
        what = [self.kind, "events", str(self.file)] if self.kind == "export" else [self.kind, str(self.file)]
        if self.kind == "backup":
            self.file.unlink(missing_ok=True)
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workbench", *what, "--workspace", str(self.workspace.root)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=self._environment,
            )  # fmt: skip

    def kill(self) -> bool:
        """SIGKILL; False where it had ended already."""
        assert self.process is not None
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        return alive

    def run(self) -> None:
        """From start to end."""
        self.start()
        assert self.process is not None
        self.process.wait(PATIENCE)

    def judge(self, *, faulted: bool) -> Iterator[tuple[str, str]]:
        """What is wrong with how it ended, as `(kind of finding, what)`; where it went well, its files are removed."""
        assert self.process is not None
        said = self.said.read_text(encoding="utf-8", errors="replace")
        if "Traceback" in said:
            yield "traceback", said[-6000:]
        if self.process.returncode and not faulted:
            yield "broken promise", f"exit code {self.process.returncode}:\n{said[-2000:]}"
        for problem in self.look(ended_well=self.process.returncode == 0):
            yield "broken promise", problem
        for file in (self.file, self.said):
            file.unlink(missing_ok=True)

    def look(self, *, ended_well: bool = False) -> Iterator[str]:
        """What is wrong with what it left: all of it must be there, or nothing."""
        if self.kind == "import":
            with open_database(self.workspace) as database:
                found = database.scalar(
                    """SELECT count(*) FROM ratings JOIN samples ON samples.id = sample_id
                       JOIN prompts ON prompts.id = prompt_id WHERE prompts.text GLOB ?""",
                    (f"{self.mark}*",),
                )
                prompts = database.scalar("SELECT count(*) FROM prompts WHERE text GLOB ?", (f"{self.mark}*",))
            if (found, prompts) not in ((0, 0), (RECORDS, RECORDS)) or (ended_well and not found):
                yield f"{found} ratings of {prompts} prompts are there, of {RECORDS} imported"
            return
        if not self.file.exists():
            if ended_well:
                yield "it wrote no file"
            return
        if self.kind == "export":
            text = self.file.read_text(encoding="utf-8")
            try:
                for line in text.splitlines():
                    json.loads(line)
            except ValueError as error:
                yield f"the file is cut off: {error}"
        else:
            copy = sqlite3.connect(self.file)
            verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
            copy.close()
            if verdict != "ok":
                yield f"the copy is not sound: {verdict}"
