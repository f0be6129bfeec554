"""The page of capabilities tells what there is: every command has a help, every test exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainer.cli import cli as trainer
from workbench.cli import cli as workbench
from workbench.cli import run_command

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| [MN]\d", line)
]
COMMANDS = sorted({code for row in ROWS for code in re.findall(r"`((?:workbench|trainer) [^`]+)`", row[2])})


def test_every_row_is_told_once_with_what_shows_it() -> None:
    names = [row[0] for row in ROWS]
    assert names[:27] == [f"M{number}" for number in range(1, 28)]
    assert len(set(names)) == len(names)
    for row in ROWS:
        tests = [name.strip() for name in row[3].split(",")]
        assert tests, row
        for name in tests:
            text = (ROOT / name).read_text(encoding="utf-8")
            assert "def test_" in text, name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_that_names_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = command.split()
    asked = [word for word in words if not word.startswith("-")]
    assert run_command({"workbench": workbench, "trainer": trainer}[program], [*asked, "--help"]) == 0
    said = capsys.readouterr().out
    for option in (word for word in words if word.startswith("-")):
        assert option in said, f"{command}: no {option}"
