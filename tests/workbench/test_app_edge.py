"""The app as a shell starts it: on a workspace that can only be read, with its errors in a file, with a fault."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from terminal import CTRL_Q, F2, Ended, Terminal

from storage import conversations, samples
from storage.database import Database
from storage.workspace import Workspace

FAULTY = """
from workbench.shell.app import WorkbenchApp
WorkbenchApp.action_show = lambda app, name: 1 / 0
from workbench.cli import main
main()
"""


@pytest.fixture
def answered(workspace: Workspace, database: Database) -> Workspace:
    """A workspace with an answer to review."""
    prompt = conversations.add(database, "Qu'est-ce qu'un glacier ?", language="fr")
    samples.add(database, [samples.new(prompt.id, "De la glace.", version=None)])
    database.close()
    return workspace


def left(terminal: Terminal) -> int | None:
    """The exit code, once the app has gone."""
    with pytest.raises(Ended):
        terminal.until(lambda text: False, 30)
    terminal.close()
    return terminal.child.exitstatus


def test_a_workspace_that_can_only_be_read_is_shown_and_says_what_to_do_to_rate(answered: Workspace) -> None:
    before: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write everything")
        before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    places = [answered.root, *answered.root.rglob("*")]
    for place in places:
        place.chmod(place.stat().st_mode & ~0o222)
    terminal = Terminal("workbench", "--workspace", str(answered.root), before=before)
    try:
        terminal.until("can only be read")
        terminal.until("engine cannot be|✕ en")
        terminal.press(F2)
        terminal.until("De la glace")
        terminal.press("4")
        terminal.until("not saved +4 of 5")
        assert "writable" in terminal.text
    finally:
        terminal.close()
        for place in places:
            place.chmod(place.stat().st_mode | 0o200)


def test_errors_go_into_a_file_and_the_app_is_drawn_on_the_terminal(answered: Workspace, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    errors = tmp_path / "errors.txt"
    terminal = Terminal(
        "faulty", "--workspace", str(answered.root), errors=errors, environment={"PYTHONPATH": f"{tmp_path}:."}
    )
    try:
        terminal.until("Ask something, in any language")
        terminal.child.setwinsize(30, 100)
        terminal.press(CTRL_Q)
        assert left(terminal) == 0
        assert errors.read_text() == ""
        terminal = Terminal(
            "faulty", "--workspace", str(answered.root), errors=errors, environment={"PYTHONPATH": f"{tmp_path}:."}
        )
        terminal.until("Ask something, in any language")
        terminal.press(F2)
        assert left(terminal) == 1
    finally:
        terminal.close()
    log_file = answered.logs / "errors.log"
    told = errors.read_text(encoding="utf-8").splitlines()
    assert told[0] == "error: the program failed: ZeroDivisionError: division by zero"
    assert told[1:] == [f"hint: this is a fault of the program; please report it with {log_file}"]
    assert "Traceback" in log_file.read_text(encoding="utf-8")
    assert b"Traceback" not in terminal.written
