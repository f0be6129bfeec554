"""What the tests of the app, the engine and the commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commanding import Outcome
from engine_talk import Talk
from fake_talk import FakeEngine

from storage import versions
from storage.database import Database
from storage.workspace import Workspace
from workbench.cli import cli, run_command

OF_A_PERSON = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")


@pytest.fixture(autouse=True)
def nobody_in_particular(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for each test: the keys and settings of whoever runs the tests are not read."""
    home = tmp_path_factory.mktemp("home")
    for name in OF_A_PERSON:
        monkeypatch.setenv(name, str(home))
    for name in ("WORKBENCH_WORKSPACE", "NO_COLOR", "TEXTUAL_THEME", "EDITOR", "VISUAL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys wait for the write before them however busy the machine is, as they do where it takes no longer than a
    blink. The tests of writes that take longer have a fixture of this name that leaves the blink as it is."""
    monkeypatch.setattr("workbench.widgets.judging.BLINK", 10.0)


@pytest.fixture
def talk(workspace: Workspace, endless_model: Path) -> Iterator[Talk]:
    """An engine that has loaded the endless model."""
    talk = Talk(workspace)
    talk.load(endless_model)
    yield talk
    talk.engine.finish()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeEngine]:
    """A fake engine's folder; at the end none of it may live."""
    fake = FakeEngine(tmp_path / "fake-engine")
    yield fake
    assert fake.living() == []
    assert fake.heard("two alive") == []


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command on the workspace."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run_command(cli, ["--workspace", str(workspace.root), *arguments])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def feedback(tmp_path: Path) -> Path:
    """A file with three records."""
    records: list[dict[str, Any]] = [
        {"prompt": "Qu'est-ce qu'un glacier ?", "response": "De la glace.", "score": 4, "language": "fr"},
        {"prompt": "什么是冰川？", "chosen": "冰。", "rejected": "水。", "language": "zh"},
        {"prompt": "Mto ni nini?", "language": "sw"},
    ]
    path = tmp_path / "feedback.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def two_versions(workspace: Workspace, database: Database) -> list[str]:
    """The base version and one trained from it, with its file on disk."""
    base = versions.ensure_base(database, "smollm2", "d" * 64)
    file = workspace.versions / "v1.safetensors"
    file.write_bytes(b"weights")
    made = versions.add_candidate(
        database, base=base, parent="v0", file="versions/v1.safetensors", sha256=versions.sha256_of(file), step=80,
        metrics={"kl": 3.1},
    )  # fmt: skip
    return [base.name, made.name]
