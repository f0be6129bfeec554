"""What `workbench import` leaves behind in a place where there was no workspace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.cli import cli, run_command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "feedback.jsonl"


def write(file: Path, score: int) -> None:
    file.write_text(json.dumps({"prompt": "a", "response": "b", "score": score}) + "\n", encoding="utf-8")


@pytest.mark.parametrize(("score", "options"), [(9, ()), (3, ("--dry-run",))], ids=["refused", "a dry run"])
def test_what_is_not_imported_leaves_no_workspace(file: Path, score: int, options: tuple[str, ...]) -> None:
    write(file, score)
    place = file.parent / "new" / "workspace"
    code = run_command(cli, ["import", str(file), "--workspace", str(place), *options])
    assert (code == 0) == bool(options)
    assert not place.exists()
    assert [path.name for path in file.parent.rglob("*") if path.is_file()] == [file.name]


def test_a_workspace_appears_whole(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(file, 3)
    place = file.parent / "new" / "workspace"
    assert run_command(cli, ["import", str(file), "--workspace", str(place)]) == 0
    assert f"made a new workspace in {place}" in capsys.readouterr().err
    assert run_command(cli, ["stats", "--workspace", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ratings"] == 1
    assert [path.name for path in place.parent.iterdir()] == [place.name]
