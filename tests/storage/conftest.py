"""Starting the processes of `children.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from imports import Write
from processes import Child

from storage import conversations, samples
from storage.database import Database
from storage.records import Sample, Split
from storage.workspace import Workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(workspace: Workspace) -> Iterator[Callable[..., Child]]:
    """Start a function of `children.py` in a process of its own; what still runs at the end is killed."""
    started: list[Child] = []

    def start(name: str, *arguments: object) -> Child:
        command = [sys.executable, str(Path(__file__).with_name("children.py")), name, str(workspace.root)]
        child = subprocess.Popen(
            [*command, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture
def answer(database: Database) -> Sample:
    """One answer to one training prompt."""
    prompt = conversations.add(database, "Mto ni nini?", language="sw", split=Split.TRAIN)
    made = samples.new(prompt.id, "Maji yanayotiririka.")
    samples.add(database, [made])
    return made


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write records as JSON lines, or any text, to a file; returns its name."""

    def write(content: str | list[dict[str, Any]], name: str = "feedback.jsonl") -> str:
        if not isinstance(content, str):
            content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in content)
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        return str(tmp_path / name)

    return write
