"""What the documentation names is there: every command with every option, every key of a screen, every test."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from trainer.cli import cli as trainer
from workbench.cli import cli as workbench
from workbench.cli import run_command
from workbench.shell.actions import SCREENS, of_screen, spoken

ROOT = Path(__file__).parents[1]
PROGRAMS: dict[str, click.Group] = {"workbench": workbench, "trainer": trainer}
PAGE = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if re.match(r"\| [MN]\d", line)
]
COMMANDS = sorted({code for row in ROWS for code in re.findall(r"`((?:workbench|trainer) [^`]+)`", row[2])})
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TITLES = {title: screen for screen, title in SCREENS.items() if screen not in ("app", "dialog")}


def lacking(command: str) -> str:
    """The first word of a command that names no command, option or choice that there is; empty where all do. Values of
    options and arguments may be anything but an option."""
    program, *words = shlex.split(command)
    found: click.Command = PROGRAMS[program]
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        context = click.Context(found)
        try:
            _, inner, words = found.resolve_command(context, words)
        except click.UsageError:
            return words[0]
        assert inner is not None
        found = inner
    known = {option for one in found.params for option in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if word.startswith("-") and not re.match(r"-?\d|-$", word) and word.split("=")[0] not in known:
            return word
    takes = any(one.param_type_name == "argument" or not getattr(one, "is_flag", False) for one in found.params)
    return "" if takes or all(word.startswith("-") for word in words) else words[0]


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
def test_every_command_has_a_help_and_the_options_that_are_named(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *words = command.split()
    assert lacking(command) == "", command
    asked = [word for word in words if not word.startswith("-")]
    assert run_command(PROGRAMS[program], [*asked, "--help"]) == 0
    assert f" {' '.join(asked)}" in capsys.readouterr().out.splitlines()[0], "of this command, and not of its group"


def test_every_key_that_is_named_with_its_screen_is_one_of_it() -> None:
    named = 0
    for row in ROWS:
        for title, keys in re.findall(rf"({'|'.join(TITLES)})((?:[ -]`[^`]+`)+)", row[2]):
            of = {spoken(key) for action in of_screen(TITLES[title]) for key in action.keys}
            told = re.findall(r"`([^`]+)`", keys)
            assert set(told) <= of, row
            named += len(told)
    assert named > 5


def commands_of(page: Path) -> list[str]:
    """Every command of a page: in a line of a block of code up to its comment, or between backticks."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    told = [re.split(" #|   ", re.sub(r"^\$ ", "", one))[0].strip() for one in (*lines, *spans)]
    return [one for one in told if re.match(r"(workbench|trainer) [a-z-]", one)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_names_commands_and_options_that_there_are(page: Path) -> None:
    wrong = {}
    for command in commands_of(page):
        simple = re.split(r"[|<>;&()]|\.\.\.", command)[0].strip()
        if word := lacking(simple):
            wrong[command] = word
    assert wrong == {}


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("workbench queue --nonsense", "--nonsense"),
        ("workbench queue --lang", "--lang"),  # the beginning of an option is none
        ("trainer ppo --reward", "--reward"),
        ("workbench export nonsense --help", ""),  # a kind of export, by its place
        ("workbench nonsense", "nonsense"),
        ("trainer nonsense --steps 4", "nonsense"),
        ("workbench versions --prune", "--prune"),
        ("trainer run --steps 40 --control shuffled", ""),
    ],
)
def test_what_is_not_there_is_found(command: str, word: str) -> None:
    assert lacking(command) == word
