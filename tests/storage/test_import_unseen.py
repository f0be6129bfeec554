"""An import is seen whole or not at all, wherever it ends; meanwhile others read and write as if it were not there."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Child, go, next_line

from storage import conversations, jobs, samples, unfinished
from storage.database import Database, IntegrityError, open_database
from storage.exchange import exporting
from storage.exchange.importing import import_file
from storage.feedback import census, log
from storage.records import Split
from storage.workspace import Workspace
from workbench.commands import doctor

TABLES = ("prompts", "samples", "ratings", "counted", "unfinished_import", "shown_prompts", "shown_samples",
          "shown_ratings", "lessons")  # fmt: skip


@pytest.fixture
def other(workspace: Workspace, database: Database) -> Iterator[Database]:
    """Another connection, such as the app's."""
    with open_database(workspace) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Records of every kind; two name a stricter split, one a task, one replaces a score of before."""
    records: list[dict[str, Any]] = []
    for number in range(400):
        asked = {"prompt": f"question {number}", "language": ("en", "fr", "sw")[number % 3]}
        records += [
            {**asked, "response": "an answer", "score": 1 + number % 5, "rater": f"rater {number % 7}"},
            {**asked, "chosen": "an answer", "rejected": "another"},
            {**asked, "completion": f"shown {number % 9}"},
        ]
    records[0]["task"] = "dialogue"
    records[1]["split"] = records[4]["split"] = "ethics"
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return str(tmp_path / "records.jsonl")


def everything(database: Database) -> dict[str, Any]:
    """All that a reader can see."""
    seen: dict[str, Any] = {kind: list(exporting.records(database, kind)) for kind in exporting.KINDS}
    seen["census"] = census.summary(database)
    seen["found"] = len(conversations.recent(database, 5000, "question"))
    seen["samples"] = len(samples.recent(database, 5000))
    for table in ("tally_of_lessons", "tally_of_raters", "tally_of_ratings"):
        seen[table] = [row for row in database.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3")
                       if any(value for value in row.values() if isinstance(value, int))]  # fmt: skip
    return seen


def sizes(database: Database) -> dict[str, int]:
    """How many rows there are, seen or not."""
    return {table: database.scalar(f"SELECT count(*) FROM main.{table}") for table in TABLES}


def without_keys(seen: dict[str, Any]) -> dict[str, Any]:
    """What is seen but for what is made anew each time."""
    made = ("id", "created_at", "sample_id", "other_sample_id", "supersedes")
    return {
        name: [{field: value for field, value in row.items() if field not in made} for row in rows]
        if isinstance(rows, list) else rows
        for name, rows in seen.items()
    }  # fmt: skip


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest takes for its own."""


def at(part: float, act: Callable[[], None]) -> Callable[[str, int, int], None]:
    """A progress that acts once, when so much of the records is stored."""
    waiting = [act]

    def progress(doing: str, done: int, of: int) -> None:
        if doing == "storing" and done >= part * of and waiting:
            waiting.pop()()

    return progress


def stop() -> None:
    raise Interrupted


@pytest.fixture
def lived_in(database: Database) -> Database:
    """A workspace in which some of the file's questions were asked and rated before."""
    for number in range(3):
        prompt = conversations.add(database, f"question {number}", language="en", split=Split.TRAIN)
        said = samples.new(prompt.id, "an answer")
        samples.add(database, [said])
        log.append(database, log.score(said.id, 5, f"rater {number}", source="imported"))
        log.append(database, log.label(said.id, True, "ana"))
    return database


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_killed_import_is_not_seen_and_the_next_one_sweeps_it_away(
    lived_in: Database, file: str, start: Callable[..., Child], after: int, workspace: Workspace
) -> None:
    before, rows = everything(lived_in), sizes(lived_in)
    killed = start("import_some", file, after)
    assert killed.wait(60) == -signal.SIGKILL
    assert sizes(lived_in)["prompts"] > rows["prompts"], "it had begun to store"
    assert everything(lived_in) == before
    (found,) = doctor.unfinished_import(lived_in)
    assert (found.status, file in found.detail) == ("warn", True)
    assert doctor.effects(lived_in).status == "ok"
    import_file(lived_in, file, dry_run=True)  # sweeps up, and stores nothing itself
    assert (everything(lived_in), sizes(lived_in)) == (before, rows)
    assert list(doctor.unfinished_import(lived_in)) == []
    assert log.effects_differ(lived_in) == 0


def test_an_import_after_a_killed_one_is_as_if_that_had_never_been(
    database: Database, file: str, start: Callable[..., Child], tmp_path: Path
) -> None:
    assert start("import_some", file, 2).wait(60) == -signal.SIGKILL
    import_file(database, file)
    with open_database(Workspace(tmp_path / "fresh")) as fresh:
        import_file(fresh, file)
        assert without_keys(everything(database)) == without_keys(everything(fresh))
        assert sizes(database) == sizes(fresh)
    assert log.effects_differ(database) == 0


def test_others_see_all_of_it_or_nothing(lived_in: Database, other: Database, file: str) -> None:
    before = everything(other)
    seen = []
    import_file(lived_in, file, progress=lambda doing, done, of: seen.append(everything(other) == before))
    assert len(seen) > 3
    assert all(seen)
    assert everything(other) == everything(lived_in) != before
    assert log.effects_differ(other) == 0
    assert conversations.find(other, "question 0", language="en").task == "dialogue"  # type: ignore[union-attr]
    assert {prompt.text for prompt in conversations.by_split(other, Split.ETHICS)} == {"question 0", "question 1"}


def test_an_interrupted_import_leaves_nothing(lived_in: Database, file: str) -> None:
    before, rows = everything(lived_in), sizes(lived_in)
    with pytest.raises(Interrupted):
        import_file(lived_in, file, progress=at(0.6, stop))
    assert (everything(lived_in), sizes(lived_in)) == (before, rows)
    assert log.effects_differ(lived_in) == 0


@pytest.mark.parametrize("ends", [True, False])
def test_what_others_do_meanwhile_stays_whether_the_import_ends_or_not(
    lived_in: Database, other: Database, file: str, ends: bool
) -> None:
    """They ask a question that the import has stored already, one that it has yet to store, and one of their own."""
    asked = [("question 3", "en"), ("question 399", "en"), ("only theirs", "de")]

    def ask_and_rate() -> None:
        for text, language in asked:
            prompt = conversations.add(other, text, language=language)
            said = samples.new(prompt.id, "their answer")
            samples.add(other, [said])
            log.append(other, log.score(said.id, 2, "bo"))
        log.append(other, log.label(said.id, False, "bo"))
        log.undo(other, "bo")
        assert [rating.value for rating in log.effective(other, rater="bo")] == [2, 2, 2]
        if not ends:
            raise Interrupted

    if ends:
        import_file(lived_in, file, progress=at(0.5, ask_and_rate))
    else:
        with pytest.raises(Interrupted):
            import_file(lived_in, file, progress=at(0.5, ask_and_rate))
    for text, language in asked:
        prompt = conversations.find(other, text, language=language)
        assert prompt is not None
        answers = [sample.text for sample in samples.of_prompt(other, prompt.id)]
        assert answers.count("their answer") == 1
        assert ("an answer" in answers) == (ends and text != "only theirs")
    assert [rating.value for rating in log.effective(lived_in, rater="bo")] == [2, 2, 2]
    assert (
        census.summary(other).prompts == len(list(exporting.records(other, "prompts"))) == (401 + 2 if ends else 3 + 3)
    )  # questions 1 and 2 of before are in English, those of the file are not
    assert log.effects_differ(lived_in) == 0


def test_nothing_but_rows_of_an_unfinished_import_may_be_deleted(
    lived_in: Database, other: Database, file: str
) -> None:
    def attempt() -> None:
        for table in ("ratings", "samples", "prompts"):
            with pytest.raises(IntegrityError, match="append-only"):
                other.execute(f"DELETE FROM main.{table}")
            with pytest.raises(IntegrityError, match="append-only"):
                other.execute(f"DELETE FROM main.{table} WHERE sequence = 1")

    import_file(lived_in, file, progress=at(0.5, attempt))
    attempt()


def test_a_job_that_begins_meanwhile_does_not_learn_from_what_comes_into_view_later(
    lived_in: Database, other: Database, file: str
) -> None:
    def begin() -> None:
        jobs.enqueue(other, "reward", {})
        jobs.claim(other, "worker")

    before = log.effective(lived_in)
    import_file(lived_in, file, progress=at(0.5, begin))
    (job,) = jobs.every(other)
    assert job.feedback_sequence is not None
    assert log.effective_at(other, job.feedback_sequence) == before


def test_two_imports_take_turns(database: Database, file: str, workspace: Workspace) -> None:
    told: list[str] = []

    def second() -> None:
        with open_database(workspace) as mine:
            import_file(mine, file, progress=lambda doing, done, of: told.append(doing))

    beside = threading.Thread(target=second)
    import_file(database, file, progress=at(0.3, beside.start))
    beside.join(60)
    assert "waiting for another import" in told
    assert census.summary(database).prompts == 400
    assert len(log.effective(database)) == 800


def test_no_other_writer_waits_for_an_import(database: Database, file: str, start: Callable[..., Child]) -> None:
    """Told by what the import takes as a whole, since a busy machine makes both slow."""
    writer = start("write_all_along")
    assert next_line(writer) == "ready"
    began = time.monotonic()
    import_file(database, file)
    took = time.monotonic() - began
    go(writer)
    count, longest = next_line(writer).split()
    assert int(count) > 10
    assert float(longest) < took / 2


def test_a_transaction_of_an_import_holds_as_many_rows_as_fit_into_its_time() -> None:
    pace = unfinished.Pace()
    for _ in range(3):
        with pace:
            time.sleep(4 * unfinished.SHORT)
    assert pace.rows <= 100 // 4**3 + 1
    for _ in range(20):
        with pace:
            pass
    assert pace.rows == unfinished.MOST_ROWS
