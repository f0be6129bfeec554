"""The tables that are kept beside the log are what the log says, after any history and whatever the clock did."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import clock, conversations, jobs, samples, versions
from storage.database import Database, open_database
from storage.feedback import census, log, projection, queue
from storage.feedback.stock import take_stock
from storage.records import Choice, Rating, RatingKind, Sample, Source, Split
from storage.workspace import Workspace


@pytest.fixture
def no_order_in_keys_or_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set by hours at every look, both ways, and keys that tell nothing of when they were made."""
    generator = random.Random(0)

    def now() -> str:
        return f"2026-01-{generator.randint(1, 28):02}T{generator.randint(0, 23):02}:00:00.000000Z"

    monkeypatch.setattr(clock, "now", now)
    monkeypatch.setattr(clock, "new_id", lambda: str(uuid.UUID(int=generator.getrandbits(128))))


@pytest.fixture
def answers(database: Database, no_order_in_keys_or_times: None) -> list[str]:
    """The keys of six answers to three prompts."""
    versions.ensure_base(database, "smollm2", "d" * 64)
    made: list[Sample] = []
    for language in ("en", "sw", "zh"):
        prompt = conversations.add(database, f"? {language}", language=language, split=Split.TRAIN)
        made += [samples.new(prompt.id, text, version="v0", finish_reason="eos") for text in ("a", "b")]
    samples.add(database, made)
    return [sample.id for sample in made]


def rating(answers: list[str], kind: str, which: int, value: int, rater: str, source: Source) -> Rating:
    key, other = answers[which], answers[which ^ 1]
    more = {"source": source}
    return {
        "score": lambda: log.score(key, value, rater, **more),
        "label": lambda: log.label(key, value > 2, rater, attribute=("overall", "style")[value % 2], **more),
        "pair": lambda: log.pair(key, other, list(Choice)[value % 4], rater, **more),
        "edit": lambda: log.edit(key, f"better {value}", rater, **more),
        "tags": lambda: log.tags(key, {"harm": "x" * (value % 2)}, rater, **more),
        "note": lambda: log.note(key, "hm", rater, **more),
        "skip": lambda: log.skip(key, rater, cannot_judge=value > 3, **more),
        "outcome": lambda: log.outcome(key, f"it did {value}", rater, **more),
        "mistake": lambda: log.in_words(RatingKind.MISTAKE, key, f"not {value}", rater, **more),
    }[kind]()


RATERS = st.sampled_from(["ana", "amina"])
RATED = st.tuples(
    st.sampled_from(["score", "label", "pair", "edit", "tags", "note", "skip", "outcome", "mistake"]),
    st.integers(0, 5), st.integers(1, 5), RATERS, st.sampled_from([Source.HUMAN, Source.IMPORTED]),
)  # fmt: skip
ACTIONS = st.one_of(
    st.tuples(st.just("rate"), RATED),
    st.tuples(st.just("many"), st.lists(RATED, max_size=6)),
    st.tuples(st.just("gesture"), st.sampled_from([0, 2, 4]), st.booleans(), RATERS),
    st.tuples(st.sampled_from(["undo", "redo"]), RATERS),
    st.tuples(st.just("hold out"), st.sampled_from(["en", "sw", "zh"])),
)


def do(database: Database, answers: list[str], action: tuple) -> None:
    match action:
        case ("rate", rated):
            log.append(database, rating(answers, *rated))
        case ("many", several):
            log.append_many(database, [rating(answers, *rated) for rated in several])
        case ("gesture", first, True, rater):
            log.gesture(database, log.best_of(answers[first], answers[first : first + 3], rater))
        case ("gesture", first, False, rater):
            log.gesture(database, log.equally_good(answers[first : first + 3], rater))
        case ("undo", rater):
            log.undo(database, rater)
        case ("redo", rater):
            log.redo(database, rater)
        case ("hold out", language):
            conversations.add(database, f"? {language}", language=language, split=Split.HELD_OUT)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=20))
def test_what_is_kept_is_what_the_log_says_after_any_history(
    database: Database, answers: list[str], actions: list[tuple]
) -> None:
    database.execute("BEGIN")
    try:
        then = []
        for action in actions:
            do(database, answers, action)
            then.append((log.position(database), log.effective(database)))
        assert log.effects_differ(database) == 0
        for sequence, counted in then:
            assert log.effective_at(database, sequence) == counted
        stored, stock = census.summary(database), take_stock(database, "d" * 64)
        log.rebuild_effects(database)
        assert log.effects_differ(database) == 0
        assert (census.summary(database), take_stock(database, "d" * 64)) == (stored, stock)
    finally:
        database.execute("ROLLBACK")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several=st.lists(RATED, max_size=20), before=st.lists(RATED, max_size=5))
def test_many_at_once_are_stored_as_one_after_the_other(
    database: Database, answers: list[str], several: list[tuple], before: list[tuple]
) -> None:
    database.execute("BEGIN")
    try:
        log.append_many(database, [rating(answers, *rated) for rated in before])
        made = [rating(answers, *rated) for rated in several]
        database.execute("SAVEPOINT here")
        together = log.append_many(database, made), log.effective(database)
        database.execute("ROLLBACK TO here")
        assert ([log.append(database, one) for one in made], log.effective(database)) == together
    finally:
        database.execute("ROLLBACK")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(here=st.lists(ACTIONS, max_size=10), there=st.lists(ACTIONS, max_size=10), whole=st.booleans())
def test_two_logs_merged_either_way_count_the_same(
    database: Database, answers: list[str], here: list[tuple], there: list[tuple], whole: bool
) -> None:
    """Of different raters, who never met; their events arrive in one piece or one by one."""

    def events_of(actions: list[tuple], name: str) -> list[Rating]:
        database.execute("SAVEPOINT here")
        for action in actions:
            if action[0] != "hold out":
                do(database, answers, action)
        told = database.records(Rating, "SELECT * FROM ratings ORDER BY sequence")
        database.execute("ROLLBACK TO here")
        return [msgspec.structs.replace(one, rater=f"{one.rater} {name}") for one in told]

    def merged(*logs: list[Rating]) -> set[str]:
        database.execute("SAVEPOINT here")
        for events in logs:
            for some in [events] if whole else [[one] for one in events]:
                log.append_many(database, some)
        assert log.effects_differ(database) == 0
        counted = {one.id for one in log.effective(database)}
        database.execute("ROLLBACK TO here")
        return counted

    database.execute("BEGIN")
    try:
        ours, theirs = events_of(here, "here"), events_of(there, "there")
        assert merged(ours, theirs) == merged(theirs, ours) == merged(ours) | merged(theirs)
    finally:
        database.execute("ROLLBACK")


def test_undo_takes_the_latest_whatever_the_clock_says(database: Database, answers: list[str]) -> None:
    made = [log.append(database, log.score(key, 3, "ana")) for key in answers]
    assert [log.undo(database, "ana") for _ in answers] == made[::-1]
    assert [log.redo(database, "ana") for _ in answers] == made


def test_what_is_newest_is_what_was_stored_last_whatever_the_clock_says(database: Database, answers: list[str]) -> None:
    base = versions.get(database, "v0")
    for number in range(1, 9):
        made = versions.add_candidate(database, base=base, parent="v0", file=f"{number}", sha256="e" * 64)
        versions.serve(database, made.name)
        assert (made.name, versions.served(database)) == (f"v{number}", versions.get(database, made.name))
        queued = jobs.enqueue(database, "ppo", {})
        assert jobs.every(database)[0] == queued
        asked = conversations.add(database, f"{number}")
        assert conversations.recent(database, 1) == [asked]
    assert [version.name for version in versions.every(database)] == [f"v{number}" for number in range(8, -1, -1)]
    assert jobs.claim(database, "worker").id == jobs.every(database)[-1].id


def test_a_job_learns_from_what_was_there_when_it_began_whatever_the_clock_says(
    database: Database, answers: list[str]
) -> None:
    kept = log.append(database, log.score(answers[0], 3, "ana"))
    jobs.enqueue(database, "ppo", {})
    job = jobs.claim(database, "worker")
    assert job is not None
    assert job.begun == jobs.now(database)
    log.append(database, log.score(answers[0], 5, "ana"))
    log.undo(database, "ana")
    log.append(database, log.score(answers[1], 5, "ana"))
    jobs.pause(database, job)
    again = jobs.claim(database, "worker", job_id=job.id)
    assert again is not None
    assert again.begun == job.begun
    assert log.effective_at(database, again.feedback_sequence or 0) == [kept]


# What it costs, in SQLite's own steps, which no busy machine can change


def steps(database: Database, key: str, work: Callable[[Database, str], object]) -> int:
    """How many hundreds of SQLite's steps some work takes."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    database.connection.set_progress_handler(count, 100)
    try:
        work(database, key)
    finally:
        database.connection.set_progress_handler(None, 0)
    return counted


def filled(root: Path, prompts: int) -> tuple[Database, str]:
    """A workspace with eight answers to each prompt, of two versions, and six raters who judged nearly all of them."""
    database = open_database(Workspace(root).prepare())
    base = versions.ensure_base(database, "smollm2", "d" * 64)
    versions.add_candidate(database, base=base, parent="v0", file="v1", sha256="e" * 64)
    made: list[Sample] = []
    with database.transaction():
        for number in range(prompts):
            language = ("en", "sw", "zh")[number % 3]
            asked = conversations.add(database, f"What is number {number}? {language}", language=language)
            made += [samples.new(asked.id, f"{place} {number}", version=("v0", "v1")[place % 2]) for place in range(8)]
        samples.add(database, made)
        ratings = []
        for rater in ("ana", "amina", "li", "juma", "inés", "noa"):
            for place, sample in enumerate(made[:-24]):
                ratings.append(log.score(sample.id, 1 + place % 5, rater))
                if place % 2:
                    ratings.append(log.pair(sample.id, made[place - 1].id, Choice.A, rater))
        log.append_many(database, ratings)
    return database, made[-30].id


WORK: dict[str, Callable[[Database, str], object]] = {
    "the header": lambda database, key: census.rated(database),
    "stats": lambda database, key: census.summary(database),
    "bars": lambda database, key: census.ratings_by_language(database, "ana"),
    "kinds": lambda database, key: census.ratings_by_language_and_kind(database),
    "stock": lambda database, key: take_stock(database, "d" * 64),
    "a rating": lambda database, key: log.append(database, log.score(key, 3, "ana")),
    "undo": lambda database, key: log.undo(database, "ana"),
    "redo": lambda database, key: log.redo(database, "ana"),
    "a card": lambda database, key: log.effective(database, rater="ana", sample_id=key),
    "history": lambda database, key: log.history(database, key),
    # Of several raters: where drawing begins, which differs by rater, decides how much is looked at.
    "the queue": lambda database, key: [queue.next_items(database, rater, 8) for rater in ("ana", "amina")],
    "the queue of a new rater": lambda database, key: queue.next_items(database, "new", 8),
    "search": lambda database, key: conversations.recent(database, 50, "number 11"),
    "prompts": lambda database, key: conversations.recent(database, 50),
    "a job begins": lambda database, key: jobs.now(database),
}


def test_nothing_on_screen_costs_more_with_more_ratings(tmp_path: Path) -> None:
    """Four times as many prompts, answers and ratings: as many steps, give or take a fifth and the depth of a tree."""
    cost = []
    for prompts in (30, 120):
        database, key = filled(tmp_path / str(prompts), prompts)
        with database:
            cost.append({name: steps(database, key, work) for name, work in WORK.items()})
    few, many = cost
    assert {name: (few[name], many[name]) for name in WORK if many[name] > 1.2 * few[name] + 10} == {}
    assert max(many.values()) < 1500


def test_what_is_stored_while_sums_are_compared_is_no_difference(
    database: Database, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = conversations.add(database, "What is a fjord?", language="en")
    answer = samples.new(prompt.id, "Drowned valley.")
    samples.add(database, [answer])
    told = projection._told_by_the_log

    def and_then_somebody_rates(read: Database) -> list[str]:
        found = told(read)
        with open_database(workspace) as other:
            log.append(other, log.score(answer.id, 4, "amina"))
        return found

    monkeypatch.setattr(projection, "_told_by_the_log", and_then_somebody_rates)
    assert projection.effects_differ(database) == 0
    assert len(log.effective(database)) == 1
