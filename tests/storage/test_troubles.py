"""Troubles of the database and its disk, in words."""

from __future__ import annotations

import pytest

from storage.database import DatabaseError
from storage.errors import UsageError, WorkbenchError
from storage.troubles import SAFE, is_locked, kindly
from trainer import cli as trainer_cli
from workbench import cli as workbench_cli

SAID = {
    "database is locked": "another program holds the workspace",
    "database or disk is full": "the disk is full",
    "disk I/O error": "the disk does not answer as it should",
    "no such table: ratings": "the workspace refused this: no such table: ratings",
}


def of_sqlite(said: str) -> Exception:
    return DatabaseError(said)


@pytest.mark.parametrize("said", SAID)
def test_what_sqlite_says_is_told_with_what_is_safe(said):
    told = kindly(of_sqlite(said))
    assert told.message.startswith(SAID[said])
    assert told.hint.startswith(SAFE)
    assert is_locked(told) == ("locked" in said), "the cause is kept"


def test_what_is_told_already_stays_as_it_is():
    error = UsageError("no such file", "name another")
    assert kindly(error) is error
    wrapped = WorkbenchError("cannot open it", "restore a backup")
    wrapped.__cause__ = of_sqlite("disk I/O error")
    assert "disk does not answer" in kindly(wrapped).message, "a failing disk is no reason to restore anything"


@pytest.mark.parametrize("said", SAID)
def test_both_command_lines_end_with_a_line_and_no_traceback(said, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise of_sqlite(said)

    monkeypatch.setattr(workbench_cli.cli, "main", fail)
    assert workbench_cli.run_command(workbench_cli.cli, []) == 1
    assert SAID[said] in capsys.readouterr().err
    monkeypatch.setattr(trainer_cli.cli, "main", fail)
    monkeypatch.setattr(trainer_cli.native, "configure", lambda: None)
    with pytest.raises(SystemExit) as ended:
        trainer_cli.main()
    assert ended.value.code == 1
    assert SAID[said] in capsys.readouterr().err


def test_an_error_of_our_own_making_is_not_swallowed(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a fault")

    monkeypatch.setattr(workbench_cli.cli, "main", fail)
    with pytest.raises(AssertionError):
        workbench_cli.run_command(workbench_cli.cli, [])
