"""`workbench import` of feedback that others wrote: which layout, which names, what it would become."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.exchange import layouts
from storage.workspace import Workspace
from workbench.cli import cli, run_command

Run = Callable[..., tuple[int, str, str]]
BATTLE = {
    "model_a": "m-1", "model_b": "m-2", "winner": "tie", "judge": "ines", "language": "German", "turn": 1,
    "conversation_a": [{"role": "user", "content": "Ist Tau nass?"}, {"role": "assistant", "content": "Ja."}],
    "conversation_b": [{"role": "user", "content": "Ist Tau nass?"}, {"role": "assistant", "content": "Sehr. " * 40}],
}  # fmt: skip


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on the workspace: `(exit code, standard output, standard error)`."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(cli, ["--workspace", str(workspace.root), *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(*records: dict[str, Any]) -> str:
        (tmp_path / "foreign.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(tmp_path / "foreign.jsonl")

    return write


def test_a_tie_of_the_arena_is_kept_as_one(run: Run, write: Callable[..., str]) -> None:
    code, _, told = run("import", write(BATTLE))
    assert code == 0
    assert "read as arena: 1" in told
    _, out, _ = run("export", "events", "-")
    event = json.loads(out)
    assert (event["event"], event["choice"], event["rater"], event["language"]) == ("pair", "tie", "ines", "de")


def test_a_dry_run_prints_what_records_become(run: Run, write: Callable[..., str]) -> None:
    file = write(BATTLE, {"prompt": "\x1b[2J", "response": "b", "score": 3, "annotator": "ines"})
    code, out, told = run("import", file, "--dry-run")
    assert code == 0
    first, battle, second, score = out.splitlines()
    assert (first, second) == ("record at line 1, read as arena:", "record at line 2, read as workbench:")
    assert '"choice": "tie"' in battle
    assert '..."' in battle, "long texts are cut"
    assert "\x1b" not in score
    assert "annotator could be the rater: --map rater=annotator" in told
    document = json.loads(run("import", file, "--dry-run", "--json")[1])
    assert document["examples"][0]["becomes"][0]["other_response"] == "Sehr. " * 40
    assert document["layouts"] == {"arena": 1}
    assert document["could_be"] == {"annotator": "rater"}


def test_names_of_others_are_read_where_they_are_given(run: Run, write: Callable[..., str]) -> None:
    file = write({"ask": "a", "said": "b", "overall": 2, "who": "ines"})
    names = ("prompt=ask", "response=said", "score=overall", "rater=who")
    assert run("import", file, *(part for name in names for part in ("--map", name)))[0] == 0
    record = json.loads(run("export", "scores", "-")[1])
    assert (record["prompt"], record["response"], record["score"], record["rater"]) == ("a", "b", 2, "ines")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--as", "nobody"), "'nobody' is not one of"),
        (("--map", "mood=overall"), "mood is no field of ours"),
        (("--map", "score"), "must be OURS=THEIRS"),
        (("--as", "shp"), "history: is missing; the record has the fields answer, question"),
        ((), "prompt: is missing; the record has the fields answer, question: question could be the prompt"),
    ],
)
def test_what_is_not_understood_is_refused_in_words(
    run: Run, write: Callable[..., str], options: tuple[str, ...], told: str
) -> None:
    code, out, error = run("import", write({"question": "a", "answer": "b"}), *options)
    assert (code, out) == (2, "")
    assert told in error


def test_bad_records_are_left_out_when_asked(run: Run, write: Callable[..., str]) -> None:
    file = write(BATTLE, {**BATTLE, "winner": "nobody"})
    assert run("import", file)[0] == 2
    code, out, told = run("import", file, "--skip-bad", "--json")
    assert (code, json.loads(out)["skipped"], json.loads(out)["records"]) == (0, 1, 1)
    assert "left out:" in told
    assert "winner: must be one of" in told


def test_help_names_every_layout(run: Run) -> None:
    told = " ".join(run("import", "--help")[1].split())
    assert all(name in told for name in layouts.every())
