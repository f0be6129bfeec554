"""The streams of a command as a shell gives them: other locales, closed ones, pipes that end early."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from storage import conversations
from storage.database import open_database
from storage.workspace import Workspace

ROOT = Path(__file__).parents[2]
ASKED = "Wie heißt 冰 auf Kiswahili?"


@pytest.fixture
def asked(workspace: Workspace) -> Workspace:
    """A workspace with 2,000 prompts: more than fits into a pipe."""
    with open_database(workspace) as database, database.transaction():
        for number in range(2000):
            conversations.add(database, f"{ASKED} {number}", language="de")
    return workspace


def shell(line: str, workspace: Workspace, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell makes of a line in which `workbench` stands for the command on a workspace."""
    command = f"{sys.executable} -m workbench --workspace {workspace.root}"
    return subprocess.run(
        ["/bin/bash", "-c", line.replace("workbench", command)], cwd=ROOT, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a locale in Latin-1, made here if that is possible."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef") is not None:
        line = ["localedef", "-c", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
        subprocess.run(line, capture_output=True, check=False)
    if not any(folder.iterdir()):
        pytest.skip("no locale in Latin-1 can be made here")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


def test_data_is_utf_8_in_a_latin_1_locale(asked: Workspace, locales: dict[str, str]) -> None:
    encoding = [sys.executable, "-c", "import sys; print(sys.stdout.encoding)"]
    said = subprocess.run(encoding, env={**os.environ, **locales}, capture_output=True, check=True).stdout
    assert said == b"iso8859-1\n", "the locale is what it should be"
    done = shell("workbench export prompts - && workbench queue --json", asked, **locales)
    assert (done.returncode, done.stderr) == (0, b"wrote 2000 records to standard output\n")
    assert done.stdout.decode("utf-8").count(ASKED) == 2000


def test_data_is_utf_8_where_the_locale_knows_ascii_alone(asked: Workspace) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("workbench export prompts - && workbench settings language €", asked, **plain)
    assert done.stdout.decode("utf-8").count(ASKED) == 2000
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_told_of_once(asked: Workspace) -> None:
    done = shell("workbench export prompts - | head -1; echo ${PIPESTATUS[0]}", asked)
    assert done.stdout.splitlines()[1:] == [b"1"]
    assert done.stderr.splitlines()[0] == b"error: cannot write standard output: nobody reads it any more"
    assert len(done.stderr.splitlines()) == 2


def test_streams_that_are_closed_do_no_harm(asked: Workspace) -> None:
    done = shell(
        "workbench stats >&-; echo $?; workbench stats --json 2>&- | wc -l; workbench keys <&- >&- 2>&-", asked
    )
    code, lines = done.stdout.split()
    assert (code, int(lines) > 10) == (b"1", True)
    assert done.stderr.splitlines()[0].startswith(b"error: cannot write standard output")
    with open_database(asked) as database:
        assert database.scalar("PRAGMA integrity_check") == "ok"


def test_a_user_whose_name_is_not_utf_8_can_rate(asked: Workspace) -> None:
    done = shell("USER=$'zo\\xeb' LOGNAME=$'zo\\xeb' workbench queue --json", asked)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"[]\n", b"")
