"""Export: what counts, in files that import again without loss."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from storage import conversations, samples
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.exchange import formats
from storage.exchange.exporting import KINDS, export_file, records
from storage.exchange.importing import import_file
from storage.feedback import log
from storage.records import Choice, Sample, Source, Split
from storage.schema.migrations import CURRENT
from storage.workspace import Workspace

QUESTIONS = {
    "en": "What is a river?", "es": "¿Qué es un faro?", "fr": "Qu'est-ce qu'un glacier ?", "ar": "ما هو النهر؟",
    "zh": "什么是冰川？", "hi": "हिमनद क्या है?", "ja": "氷河とは何ですか。", "sw": "Mto ni nini?",
}  # fmt: skip
FLAT = ["preference", "unpaired", "sft", "scores", "prompts"]
HOSTILE = 'comma, "quote",\r\nnew line, \x1b[2J, tab\t, \u2028, =1+1'


@pytest.fixture
def filled(database: Database) -> Database:
    """A workspace with every kind of rating in eight languages, some undone, some replaced."""
    with database.transaction():
        for turn, (language, text) in enumerate(QUESTIONS.items()):
            split = Split.HELD_OUT if turn % 4 == 3 else Split.TRAIN
            task, system = "dialogue" if turn % 2 else "", "Be brief." if turn == 2 else ""
            prompt = conversations.add(database, text, language=language, split=split, task=task, system=system)
            a, b = (samples.new(prompt.id, f"{text} {letter} {HOSTILE}", finish_reason="eos") for letter in "ab")
            empty = samples.new(prompt.id, "")
            shown = samples.new(prompt.id, f"{text}!", origin="demonstration")
            samples.add(database, [a, b, empty, shown])
            rate(database, a, b, empty, turn)
    return database


def rate(database: Database, a: Sample, b: Sample, empty: Sample, turn: int) -> None:
    choice = list(Choice)[turn % 4]
    for rating in (
        log.score(a.id, 1, "ana"),
        log.score(a.id, 1 + turn % 5, "ana"),
        log.score(a.id, 0.1 * turn, "amina", (0, 1), attribute="fluency"),
        log.score(empty.id, 1, "ana"),
        log.label(b.id, turn % 2 == 0, "ana", source=Source.SIMULATED),
        log.label(empty.id, False, "amina"),
        log.pair(a.id, b.id, choice, "ana", shown_order="ba", blind=True, duration_ms=1200),
        log.tags(b.id, {"harm": "none", "severity": 0}, "ana"),
        log.edit(b.id, f"better {turn}", "ana"),
        log.skip(b.id, "amina", cannot_judge=True),
        log.note(a.id, HOSTILE, "ana"),
        log.label(a.id, True, "ana"),
    ):
        log.append(database, rating)
    if turn % 2:
        log.undo(database, "ana")


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """The empty workspace of another researcher."""
    with open_database(Workspace(tmp_path / "other")) as opened:
        yield opened


def without(records: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in names} for record in records]


@pytest.mark.parametrize("ending", [*(ending[1:] for ending in formats.endings()), "jsonl.gz", "csv.gz"])
@pytest.mark.parametrize("kind", FLAT)
def test_what_is_exported_imports_again_without_loss(
    filled: Database, other: Database, tmp_path: Path, kind: str, ending: str
) -> None:
    file = str(tmp_path / f"{kind}.{ending}")
    count = export_file(filled, kind, file).records
    assert count == len(list(records(filled, kind))) > 0
    assert import_file(other, file).records == count
    # Only who entered it differs: it came from a file there.
    exported, again = (without(list(records(place, kind)), "source") for place in (filled, other))
    assert again == exported
    if kind not in ("sft", "prompts"):
        assert {rating.source for rating in log.effective(other)} == {Source.IMPORTED}


def test_the_log_of_events_imports_again_whole(filled: Database, other: Database, tmp_path: Path) -> None:
    file = str(tmp_path / "events.jsonl")
    assert export_file(filled, "events", file).records == filled.scalar("SELECT count(*) FROM ratings")
    import_file(other, file)
    everything = "SELECT * FROM ratings ORDER BY id"
    assert other.rows(everything) == filled.rows(everything)
    assert log.effective(other) == log.effective(filled)
    assert log.effects_differ(other) == 0
    again = import_file(other, file)
    assert (again.ratings, again.samples, again.prompts) == (0, 0, 0)


@pytest.mark.parametrize("kind", [*FLAT, "events"])
def test_importing_an_export_into_its_own_workspace_adds_nothing(filled: Database, tmp_path: Path, kind: str) -> None:
    file = str(tmp_path / "export.jsonl")
    before = {name: list(records(filled, name)) for name in KINDS}
    export_file(filled, kind, file)
    import_file(filled, file)
    after = {name: list(records(filled, name)) for name in KINDS}
    if kind == "sft":  # an edited answer comes back as a demonstration of the same words
        assert sorted(after.pop("sft"), key=str) == sorted(before.pop("sft"), key=str)
    assert after == before


def test_an_event_that_supersedes_an_unknown_one_is_refused(filled: Database, other: Database, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    export_file(filled, "events", str(file))
    lines = file.read_text(encoding="utf-8").split("\n")
    file.write_text("\n".join(lines[1:]), encoding="utf-8")
    with pytest.raises(UsageError, match="supersedes: names an event that stands neither earlier"):
        import_file(other, str(file))
    assert other.scalar("SELECT count(*) FROM ratings") == 0


def test_undone_and_replaced_ratings_are_in_the_events_only(database: Database, answer: Sample) -> None:
    log.append(database, log.score(answer.id, 2, "ana"))
    log.append(database, log.score(answer.id, 5, "ana"))
    log.append(database, log.label(answer.id, True, "ana"))
    log.undo(database, "ana")
    assert [record["score"] for record in list(records(database, "scores"))] == [5]
    assert list(records(database, "unpaired")) == []
    assert [record["event"] for record in list(records(database, "events"))] == ["score", "score", "label", "undo"]


def test_a_preference_names_the_better_answer_chosen(filled: Database) -> None:
    for record in list(records(filled, "preference")):
        assert {record["chosen"][len(record["prompt"]) + 1], record["rejected"][len(record["prompt"]) + 1]} == {
            "a",
            "b",
        }
    choices = [rating.choice for rating in log.effective(filled) if rating.choice in (Choice.A, Choice.B)]
    letters = [record["chosen"][len(record["prompt"]) + 1] for record in list(records(filled, "preference"))]
    assert letters == [str(choice) for choice in choices]


def test_the_fields_are_those_that_training_tools_read(database: Database, answer: Sample) -> None:
    log.append(database, log.score(answer.id, 4, "ana"))
    (record,) = list(records(database, "scores"))
    assert {name: record[name] for name in ("prompt", "response", "score", "scale", "language", "rater", "split")} == {
        "prompt": "Mto ni nini?", "response": "Maji yanayotiririka.", "score": 4, "scale": [1, 5], "language": "sw",
        "rater": "ana", "split": "train",
    }  # fmt: skip


def test_standard_output_gets_json_lines(filled: Database, capsys: pytest.CaptureFixture[str]) -> None:
    export_file(filled, "scores", "-")
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert [json.loads(line) for line in lines] == list(records(filled, "scores", messages=True))


@pytest.mark.parametrize(("kind", "name"), [("events", "events.csv"), ("events", "events.parquet")])
def test_a_format_that_cannot_hold_the_kind_is_refused(filled: Database, tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.jsonl"):
        export_file(filled, kind, str(tmp_path / name))
    assert not (tmp_path / name).exists()


def test_a_file_that_cannot_be_written_leaves_nothing_behind(filled: Database, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        export_file(filled, "scores", str(tmp_path / "folder.jsonl"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


# What was exported


@pytest.mark.parametrize("name", ["scores.jsonl", "scores.csv.gz", "scores.parquet", "events.jsonl"])
def test_a_manifest_tells_what_a_file_holds_and_its_digest(filled: Database, tmp_path: Path, name: str) -> None:
    file, kind = tmp_path / name, name.split(".")[0]
    written = export_file(filled, kind, str(file), manifest=f"workbench export {kind} {name} --manifest")
    told = json.loads((tmp_path / f"{name}.manifest.json").read_text(encoding="utf-8"))
    assert told["sha256"] == written.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["bytes"] == file.stat().st_size
    found = list(records(filled, kind))
    for counted, field in (("languages", "language"), ("splits", "split"), ("raters", "rater")):
        assert told[counted] == dict(sorted(Counter(one[field] for one in found if field in one).items()))
    assert {name for one in found for name in one} == set(told["fields"])
    assert (told["file"], told["kind"], told["records"]) == (name, kind, len(found))
    assert (told["schema"], told["last_event"]) == (CURRENT, filled.scalar("SELECT max(sequence) FROM ratings"))
    assert told["command"] == f"workbench export {kind} {name} --manifest"
    assert told["program"].startswith("alignment-workbench ")
    again = tmp_path / f"again-{name}"
    assert export_file(filled, kind, str(again)).sha256 == written.sha256, "the same records are the same bytes"
    assert not again.with_name(again.name + ".manifest.json").exists()


def test_what_is_no_file_has_no_manifest(filled: Database, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("-", "/dev/stdout", str(tmp_path / "pipe.jsonl")):
        with pytest.raises(UsageError, match="no file that a manifest could stand beside"):
            export_file(filled, "scores", name, manifest="workbench export")


def test_an_export_that_is_cancelled_leaves_no_file(filled: Database, tmp_path: Path) -> None:
    def cancel(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_file(filled, "scores", str(tmp_path / "scores.jsonl"), manifest="workbench export", heard=cancel)
    assert list(tmp_path.glob("*scores*")) == []


# Files


def test_an_export_that_is_interrupted_leaves_the_file_of_before(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scores.jsonl"
    file.write_text("of before")
    monkeypatch.setattr("storage.exchange.exporting.os.replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export_file(filled, "scores", str(file))
    assert file.read_text() == "of before"
    assert [path.name for path in tmp_path.glob("*scores*")] == ["scores.jsonl"]
    filled.execute("UPDATE main.prompts SET task = task")  # the snapshot is over: this connection may write again


def test_a_symlink_stays_and_a_file_keeps_its_mode(filled: Database, tmp_path: Path) -> None:
    file, link = tmp_path / "scores.jsonl", tmp_path / "link.jsonl"
    file.touch(0o640)
    file.chmod(0o640)
    link.symlink_to(file)
    count = export_file(filled, "scores", str(link)).records
    assert link.is_symlink()
    assert len(file.read_text(encoding="utf-8").split("\n")) == count + 1
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_as_it_comes(filled: Database, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        received = pool.submit(pipe.read_text, encoding="utf-8")
        count = export_file(filled, "prompts", str(pipe)).records
        assert len(received.result(10).split("\n")) == count + 1
    assert pipe.is_fifo()


def test_an_export_is_of_one_moment(filled: Database, workspace: Workspace) -> None:
    """What another connection writes in the middle is in none of it, and nobody waits for an export."""
    with open_database(workspace) as writer, filled.snapshot():
        before = records(filled, "scores")
        first = next(before)
        for number in range(3):
            log.append(writer, log.score(writer.scalar("SELECT id FROM samples LIMIT 1"), 1 + number, f"late {number}"))
        told = [first, *before]
        assert not any(record["rater"].startswith("late") for record in told)
    assert len(list(records(filled, "scores"))) == len(told) + 3


def test_memory_does_not_grow_with_the_number_of_records(database: Database, tmp_path: Path) -> None:
    """Python's own memory at its peak; what SQLite sorts lies in its page cache and a temporary file."""

    def peaks(count: int) -> dict[str, int]:
        file = tmp_path / "records.jsonl"
        record = {"response": "an answer of some length " * 10, "score": 3, "language": "en"}
        lines = [json.dumps({"prompt": f"question {count} {number}", **record}) for number in range(count)]
        file.write_text("\n".join(lines), encoding="utf-8")
        import_file(database, str(file))
        found = {}
        for name in ("scores.jsonl", "scores.json", "scores.csv", "events.jsonl", "prompts.jsonl.gz"):
            tracemalloc.start()
            export_file(database, name.split(".")[0], str(tmp_path / name))
            found[name] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return found

    few, many = peaks(300), peaks(3000)
    assert {name for name in few if many[name] > few[name] + 100_000} == set()
