"""Rows that are kept, steps that are done once, and training that goes on."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks import rows


def test_a_row_is_made_once_and_kept(tmp_path):
    made = []
    kept = rows.Kept(tmp_path / "work", {"steps": 2, "languages": ("en", "de")})
    assert kept.row("a/0", lambda: made.append("a") or {"gain": 1.0}) == {"gain": 1.0}
    with pytest.raises(KeyboardInterrupt):
        kept.row("b/0", interrupt)
    again = rows.Kept(tmp_path / "work", {"steps": 2, "languages": ("en", "de")})
    assert again.row("a/0", lambda: made.append("a again")) == {"gain": 1.0}
    assert again.row("b/0", lambda: made.append("b") or {"gain": 2.0}) == {"gain": 2.0}
    assert made == ["a", "b"]


def test_rows_of_other_settings_never_share_a_table(tmp_path):
    rows.Kept(tmp_path, {"steps": 2}).row("a/0", dict)
    with pytest.raises(SystemExit, match="--work"):
        rows.Kept(tmp_path, {"steps": 3})


def test_a_step_is_done_once_and_an_interrupted_one_again(tmp_path):
    steps = rows.Steps(tmp_path / "steps")
    with pytest.raises(KeyboardInterrupt):
        steps.once("answers", interrupt)
    assert steps.once("answers", lambda: [1, 2]) == [1, 2]
    assert rows.Steps(tmp_path / "steps").once("answers", lambda: [3]) == [1, 2]
    assert 0 <= steps.seconds() < 5


@pytest.mark.parametrize(
    ("only", "is_wanted"),
    [
        ("", True),
        ("plain", True),
        ("linked", False),
        ("linked,plain/0", True),
        ("real/plain", True),
        ("plain/1", False),
    ],
)
def test_rows_are_chosen_by_parts_of_their_names(only, is_wanted):
    assert rows.wanted("plain/0/real", only) is is_wanted


def test_seeds_are_told_one_by_one_or_from_to():
    assert rows.numbers("0-3,7") == [0, 1, 2, 3, 7]


def test_an_interruption_is_told_in_a_sentence(capsys):
    with pytest.raises(SystemExit) as ending:
        rows.interruptible(interrupt)
    assert ending.value.code == 130
    assert "goes on" in capsys.readouterr().err


@pytest.fixture
def trainer(monkeypatch):
    """A trainer that knows these jobs, and notes how it was called."""
    calls: list[list[str]] = []
    jobs: list[dict] = []

    def run(line, *, stdout, check, **more):
        assert line[:3] == [sys.executable, "-m", "trainer"]
        document = jobs
        if line[3] != "jobs":
            calls.append(line[3:])
            document = {"version": "v1"}
        if more.get("text"):
            return SimpleNamespace(returncode=0, stdout=json.dumps(document))
        json.dump(document, stdout)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(rows.subprocess, "run", run)
    return SimpleNamespace(calls=calls, jobs=jobs)


def test_training_begins_with_its_control(trainer, tmp_path):
    assert rows.train(tmp_path / "w", ["run", "--seed", 3], "shuffled") == {"version": "v1"}
    assert trainer.calls == [
        ["run", "--seed", "3", "--control", "shuffled", "--workspace", str(tmp_path / "w"), "--json"]
    ]


def test_interrupted_training_is_resumed(trainer, tmp_path):
    trainer.jobs.append({"job": "j1", "state": "running"})
    rows.train(tmp_path / "w", ["run", "--seed", 3])
    assert trainer.calls == [["resume", "j1", "--workspace", str(tmp_path / "w"), "--json"]]


def test_training_that_ended_unseen_is_not_done_again(trainer, tmp_path):
    trainer.jobs.append({"job": "j1", "state": "done"})
    (tmp_path / "w-trainer.json").write_text('{"version": "v7"}', encoding="utf-8")
    assert rows.train(tmp_path / "w", ["run"]) == {"version": "v7"}
    assert trainer.calls == []


def test_an_error_of_a_command_is_told_with_the_command(tmp_path):
    with pytest.raises(rows.CommandFailed, match=r"trainer resume nothing.*exit code 2"):
        rows.command("trainer", "resume", "nothing", "--workspace", tmp_path / "w")


def test_the_mark_of_a_control_is_no_failed_gate():
    gates = [
        {"gate": "reward gain", "passed": False},
        {"gate": "control", "passed": False},
        {"gate": "x", "passed": True},
    ]
    assert rows.failed_gates({"gates": gates}) == ["reward gain"]


def interrupt():
    raise KeyboardInterrupt
