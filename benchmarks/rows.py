"""What long benchmarks share: rows that are kept as they come, steps that are done once, and our commands as processes.

An interrupted benchmark is started again with the same command: it goes on where it was and redoes nothing that ended.
A training job that was under way is resumed from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measuring

CONTROLS = ("shuffled", "constant")
KINDS = ("real", *CONTROLS)


class CommandFailed(Exception):
    """One of our commands ended with an error; what it said is on standard error."""


def write_json(path: Path, document: Any) -> None:
    """Write a document, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


class Kept:
    """The finished rows of a benchmark by name, in a JSON file of its work folder.

    Raises SystemExit where the file holds rows of other settings: rows that differ in them must not share a table.
    """

    def __init__(self, folder: Path, setting: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "results.json"
        self.setting = json.loads(json.dumps(setting))
        self.rows: dict[str, Any] = {}
        if self.path.exists():
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["setting"] != self.setting:
                raise SystemExit(f"{folder} holds rows of other settings: name another folder with --work")
            self.rows = document["rows"]

    def row(self, name: str, work: Callable[[], Any]) -> Any:
        """The row of this name, made now unless it is there already."""
        if name not in self.rows:
            self.rows[name] = work()
            write_json(self.path, {"setting": self.setting, "rows": self.rows})
        return self.rows[name]


@dataclass(frozen=True)
class Steps:
    """The steps of one row, each done once; what each found is a JSON file in the row's folder."""

    folder: Path

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """What the step found, with `seconds` of work where that is an object."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            found = work()
            write_json(path, {"seconds": time.monotonic() - began, "found": found})
        return json.loads(path.read_text(encoding="utf-8"))["found"]

    def seconds(self) -> float:
        """Seconds of all steps together; of a step that was interrupted only its last piece."""
        files = self.folder.glob("*.json")
        return sum(json.loads(file.read_text(encoding="utf-8")).get("seconds", 0.0) for file in files)


def command(room: str, *arguments: object) -> Any:
    """Run `workbench` or `trainer` as anybody would, with --json; its document. Its narration goes to standard error.

    Raises:
        CommandFailed: it ended with an exit code other than 0.
    """
    line = [sys.executable, "-m", room, *map(str, arguments), "--json"]
    finished = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise CommandFailed(f"{' '.join(line[2:])}: exit code {finished.returncode}")
    return json.loads(finished.stdout)


def train(workspace: Path, arguments: Sequence[object], control: str = "real", earlier: int = 0) -> dict[str, Any]:
    """`trainer ARGUMENTS`, or what is left of it: the job of an interrupted run is resumed. Returns its summary.

    Args:
        earlier: how many jobs were done in this workspace before.

    The trainer writes its summary to a file itself, so that none is lost where only this process was stopped.
    """
    there = ["--workspace", str(workspace)]
    output = workspace.with_name(f"{workspace.name}-trainer{f'-{earlier}' if earlier else ''}.json")
    jobs = command("trainer", "jobs", *there)
    known = jobs[: len(jobs) - earlier]  # the newest come first
    if known and known[0]["state"] == "done":
        return json.loads(output.read_text(encoding="utf-8"))
    line = ["resume", known[0]["job"]] if known else [*map(str, arguments), *with_control(control)]
    with output.open("w", encoding="utf-8") as target:
        finished = subprocess.run(
            [sys.executable, "-m", "trainer", *line, *there, "--json"], stdout=target, check=False
        )
    if finished.returncode:
        raise CommandFailed(f"trainer {' '.join(line)}: exit code {finished.returncode}")
    return json.loads(output.read_text(encoding="utf-8"))


def with_control(kind: str) -> list[str]:
    """The options of a control; none for a real run."""
    return [] if kind == "real" else ["--control", kind]


def failed_gates(result: dict[str, Any]) -> list[str]:
    """The names of the gates that a candidate did not pass; that a run is a control is not what was measured."""
    return [gate["gate"] for gate in result["gates"] if not gate["passed"] and gate["gate"] != "control"]


def fresh_workspace(folder: Path, models: Path) -> Path:
    """A new workspace that shares the converted models of another."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "models").exists():
        (folder / "models").symlink_to(models)
    return folder


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), encoding="utf-8")
    return path


def add_options(options: argparse.ArgumentParser, name: str, seeds: str) -> None:
    """`--seeds`, `--only` and `--work`, which every resumable benchmark has."""
    options.add_argument("--seeds", type=numbers, default=numbers(seeds), help=f"after commas (default {seeds})")
    options.add_argument("--only", default="", help="rows whose name has one of these parts, after commas")
    options.add_argument("--work", type=Path, default=measuring.cache_folder() / name, help="keeps rows and workspaces")


def numbers(text: str) -> list[int]:
    """`0,1,2` or `0-19` as whole numbers."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def wanted(name: str, only: str) -> bool:
    """Whether a row such as `plain/0/real` is asked for: each choice names some of its parts, in any order."""
    choices = [set(choice.split("/")) for choice in only.split(",") if choice]
    return not choices or any(choice <= set(name.split("/")) for choice in choices)


def interruptible(main: Callable[[], None]) -> None:
    """Run a benchmark; an interruption is told in a sentence, with exit code 130."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        sys.exit(130)
