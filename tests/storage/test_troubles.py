"""Troubles of the database and its disk, in words."""

from __future__ import annotations

import shutil

import pytest

from storage.database import DatabaseError, open_database
from storage.errors import UsageError, WorkbenchError
from storage.troubles import SAFE, is_locked, kindly
from trainer import cli as trainer_cli
from workbench import cli as workbench_cli

SAID = {
    "attempt to write a readonly database": "the workspace can only be read",
    "unable to open database file": "the files of the workspace's database cannot be opened",
    "database disk image is malformed": "the workspace's database is damaged",
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

    monkeypatch.setattr(workbench_cli.cli, "invoke", fail)
    assert workbench_cli.run_command(workbench_cli.cli, []) == 1
    assert SAID[said] in capsys.readouterr().err
    monkeypatch.setattr(trainer_cli.cli, "invoke", fail)
    monkeypatch.setattr(trainer_cli.native, "configure", lambda: None)
    with pytest.raises(SystemExit) as ended:
        trainer_cli.main()
    assert ended.value.code == 1
    assert SAID[said] in capsys.readouterr().err


@pytest.mark.parametrize("writable", [True, False])
def test_a_fault_of_the_program_is_a_line_that_names_the_log(writable, workspace, monkeypatch, capsys, tmp_path):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a fault,\nin two lines")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    open_database(workspace).close()
    monkeypatch.setattr("storage.feedback.census.summary", fail)
    if not writable:  # then it is written beside the user's other logs
        shutil.rmtree(workspace.logs)
    assert workbench_cli.run_command(workbench_cli.cli, ["--workspace", str(workspace.root), "stats"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "error: the program failed: AssertionError: a fault, in two lines"
    (log,) = [path for path in tmp_path.rglob("errors.log") if workspace.logs == path.parent or not writable]
    assert told[1:] == [f"hint: this is a fault of the program; please report it with {log}"]
    assert "in fail\n" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o777 == 0o600
