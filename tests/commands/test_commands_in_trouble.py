"""Every command under every trouble: a line, an exit code, no traceback, and nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from commands.troubled import DISKS, PRINTS, Told

from benchmarks.chaos_faults import Faults

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")  # a disk that syncs in no time
WORDS = {
    "full disk": "the disk is full", "failing disk": "the disk does not answer as it should",
    "failing disk, after 4 writes": "the disk does not answer as it should", "locked": "locked by another program",
    "damaged header": "is damaged", "damaged schema": "is damaged", "damaged rows": "is damaged",
    "damaged end": "is damaged", "closed pipe": "cannot write standard output: nobody reads it any more",
    "full output": ": the disk is full",
}  # fmt: skip
LEFT_BY_SQLITE = ("workbench.db-shm", "workbench.db-wal")  # empty, where it could not go on with them
# What they write is a file of the user's.
ELSEWHERE = {"workbench export", "workbench export model", "workbench report", "workbench backup"}


def without_rights(*line: str) -> list[str]:
    """A command line whose process obeys the modes of files even as root."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return list(line)
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *line]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Told]]:
    """What came of every command under every trouble."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path_factory.mktemp("troubles")) as folder:
        work = Path(folder).resolve()
        (work / "shim").mkdir()
        faults = Faults(work / "shim", work)
        own = {name: str(work / "home") for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
        done = subprocess.run(
            without_rights(sys.executable, str(ROOT / "tests" / "commands" / "troubled.py"), str(work)),
            env={**os.environ, "PYTHONPATH": str(ROOT), **own, **faults.environment("command")},
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        yield msgspec.convert(json.loads(done.stdout), list[Told])


@pytest.fixture(scope="module")
def usual(told: list[Told]) -> dict[str, Told]:
    """What comes of each command without a trouble."""
    return {one.command: one for one in told if one.trouble == "none"}


@pytest.fixture(scope="module")
def only_reads(usual: dict[str, Told]) -> set[str]:
    """The commands that do what they are asked to and leave everything as it was."""
    return {name for name, one in usual.items() if one.code == 0 and not one.changed}


def errors(one: Told) -> list[str]:
    """What was said from the first error on."""
    lines = one.err.splitlines()
    first = next((place for place, line in enumerate(lines) if line.lower().startswith("error: ")), len(lines))
    return lines[first:]


def test_all_was_tried(told: list[Told], usual: dict[str, Told], only_reads: set[str]) -> None:
    from trainer.cli import cli as trainer
    from workbench.cli import COMMANDS

    assert set(usual) == {f"workbench {name}" for name in COMMANDS} | {f"trainer {name}" for name in trainer.commands}
    assert only_reads >= {"workbench stats", "workbench export", "workbench doctor", "trainer jobs", "trainer compare"}
    assert not {"workbench import", "workbench outcome", "workbench rollback", "trainer cancel"} & only_reads
    assert {one.trouble for one in told} >= {"none", "locked", "latin-1", "no workspace", *PRINTS, *WORDS} - {*DISKS}


def test_no_command_ends_in_a_traceback(told: list[Told]) -> None:
    bad = [one for one in told if "Traceback" in one.err or "the program failed" in one.err or "ignored in" in one.err]
    assert not bad


def test_what_fails_says_so_in_a_line_and_with_what_to_do(told: list[Told], usual: dict[str, Told]) -> None:
    for one in told:
        assert one.code in (0, 1, 2), one
        if one.trouble in WORDS:
            assert one.code in (1, usual[one.command].code), one
        if one.code and one.command != "workbench doctor":  # its findings are its output
            first, *rest = errors(one)
            assert [line[:6] for line in rest if not line.startswith("  ")] in (["hint: "], []), one
            assert len(first) < 400, one


@pytest.mark.parametrize("trouble", WORDS)
def test_each_trouble_has_its_own_words(told: list[Told], usual: dict[str, Told], trouble: str) -> None:
    tried = [one for one in told if one.trouble == trouble]
    if not tried:
        pytest.skip("neither a disk nor a mode can be made to refuse here: no compiler, or root without setpriv")
    failed = [one for one in tried if one.code == 1 and usual[one.command].code != 1]
    for one in failed:
        if one.command != "workbench doctor" or trouble in PRINTS:
            assert WORDS[trouble] in one.err, one
            assert ("backups" in one.err) == trouble.startswith("damaged"), one
    assert len(failed) > 10


def test_nothing_is_lost(told: list[Told]) -> None:
    assert not [one for one in told if one.lost]


def test_what_only_reads_makes_nothing_and_works_where_nothing_can_be_written(
    told: list[Told], usual: dict[str, Told], only_reads: set[str]
) -> None:
    for one in told:
        if one.command not in only_reads or one.command in ELSEWHERE or one.trouble not in ("read-only", *DISKS):
            continue
        assert one.code == 0, one
        assert {name.strip("'") for name in one.changed} <= ({*LEFT_BY_SQLITE} if one.trouble in DISKS else set()), one
        if one.command != "workbench doctor":  # which says that it cannot be written
            assert one.out == usual[one.command].out, one


def test_a_workspace_that_can_only_be_read_says_so_to_what_writes(told: list[Told], only_reads: set[str]) -> None:
    for one in told:
        if one.trouble == "read-only" and one.command not in only_reads | ELSEWHERE and "v9" not in one.err:
            assert (one.code, one.changed) == (1, []), one
            assert "can only be read" in one.err, one


def test_a_name_that_is_mistyped_is_an_error_and_makes_nothing(told: list[Told], only_reads: set[str]) -> None:
    mistyped = [one for one in told if one.trouble == "no workspace"]
    assert {one.command for one in mistyped if one.code == 0} == {
        "workbench import", "workbench packs add", "trainer methods",
    }  # fmt: skip
    for one in mistyped:
        made = one.command in ("workbench import", "workbench packs add", "workbench generate", "workbench chat")
        assert bool(one.changed) == made == ("made a new workspace" in one.err), one
    assert all("there is no workspace" in one.err for one in mistyped if one.code == 2 and not one.changed)


def test_output_is_utf_8_whatever_the_locale(told: list[Told], usual: dict[str, Told]) -> None:
    latin = {one.command: one for one in told if one.trouble == "latin-1"}
    assert {name: one.code for name, one in latin.items()} == {name: usual[name].code for name in latin}
    for name in ("workbench export", "workbench queue"):
        assert "Wie heißt 冰 auf Kiswahili?" in latin[name].out


def test_what_prints_says_that_nobody_reads_it(told: list[Told]) -> None:
    prints = {one.command for one in told if one.trouble == "latin-1" and one.out}
    assert len(prints) > 12
    for one in told:
        if one.trouble in ("closed pipe", "full output") and one.command in prints:
            assert WORDS[one.trouble] in one.err or one.code == 2, one
            assert one.code != 0


def test_a_folder_may_have_any_name(told: list[Told], usual: dict[str, Told]) -> None:
    for one in told:
        if one.trouble == "name that is not UTF-8":
            assert (one.code, one.lost) == (usual[one.command].code, []), one
