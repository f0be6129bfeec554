"""The SQLite that Python itself was built with, where `pysqlite3` is not installed: other systems, a bare machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

WITHOUT = "import sys; sys.modules['pysqlite3'] = None; from workbench.cli import main; sys.exit(main())"
RECORDS = [
    {"prompt": "Why is the sea salt?", "response": "Rivers carry it.", "score": 4, "language": "en"},
    {"prompt": "Why is the sea salt?", "response": "Ask a fish.", "score": 2, "language": "en"},
    {"prompt": "Was ist Wind?", "chosen": "Luft, die wandert.", "rejected": "Weiß nicht.", "language": "de"},
]


def run(*arguments: str) -> str:
    """A command in a process of its own, without `pysqlite3`."""
    line = [sys.executable, "-c", WITHOUT, *arguments]
    finished = subprocess.run(line, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_workspace_is_made_filled_and_copied(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in RECORDS), encoding="utf-8")
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    assert json.loads(run("import", str(file), "--workspace", first, "--json"))["stored"] == 3
    assert json.loads(run("import", str(file), "--workspace", first, "--json"))["already"] == 3
    events = str(tmp_path / "events.jsonl")
    run("export", "events", events, "--workspace", first)
    assert json.loads(run("import", events, "--workspace", second, "--json"))["stored"] == 3
    assert json.loads(run("stats", "--workspace", second, "--json"))["ratings"] == 3
