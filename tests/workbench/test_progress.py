"""The bar of commands that take long."""

from __future__ import annotations

import io
import sys
import time

import pyte
import pytest

from storage import backups, conversations
from storage.database import Database, read_database
from storage.workspace import Workspace
from workbench.commands import progress as module
from workbench.commands.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def seen(written: str) -> str:
    screen = pyte.Screen(100, 4)
    pyte.Stream(screen).feed(written.replace("\n", "\r\n"))
    return "\n".join(line.rstrip() for line in screen.display).strip()


def until_written(stream: Terminal, words: str) -> None:
    deadline = time.monotonic() + 10
    while words not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.01)


def test_what_takes_long_is_told_with_how_much_is_done_and_taken_away_at_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SHOWN_AFTER", 0.0)
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress("records") as bar:
        bar("waiting \x1b[2J")
        until_written(stream, "waiting ␛[2J")
        bar("storing", 40, 80)
        until_written(stream, "40 of 80 records")
        assert "storing" in seen(stream.getvalue())
        assert "50%" in seen(stream.getvalue())
        bar("checking", 12)
        until_written(stream, "12 records")
    assert seen(stream.getvalue()) == ""


def test_what_is_quick_is_not_told(monkeypatch: pytest.MonkeyPatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress() as bar:
        bar("quick", 1, 2)
    assert seen(stream.getvalue()) == ""


def test_without_a_terminal_nothing_is_drawn_and_steps_may_be_said(capsys: pytest.CaptureFixture[str]):
    with progress(says=True) as bar:
        for done in range(3):
            bar("converting", done, 3)
    with progress() as bar:
        bar("nothing", 1, 3)
    assert capsys.readouterr().err == "converting\n"


def test_a_backup_tells_how_far_it_is_while_others_write(database: Database, workspace: Workspace, tmp_path):
    with database.transaction():
        for number in range(400):
            conversations.add(database, f"{number} " + "x" * 20_000, language="en")
    told: list[tuple[str, int, int]] = []

    def hear(doing: str, done: int, of: int) -> None:
        told.append((doing, done, of))
        conversations.add(database, f"meanwhile {len(told)}", language="en")  # a copy of no snapshot would begin anew

    with read_database(workspace) as reading:
        backups.backup(reading, tmp_path / "copy.db", progress=hear)
    done = [one[1] for one in told if one[0] == "copying"]
    assert len(done) >= 2
    assert done == sorted(set(done))
    assert told[-1][0] == "checking the copy"
