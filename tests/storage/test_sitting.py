"""Two apps of one rater on one workspace: undo and redo turn to what was said in this one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from storage import conversations, samples
from storage.database import Database
from storage.feedback import log
from storage.feedback.sitting import Sitting
from storage.records import Sample


@pytest.fixture
def answers(database: Database) -> list[Sample]:
    prompt = conversations.add(database, "Mto ni nini?", language="sw")
    made = [samples.new(prompt.id, text) for text in ("maji", "mto", "ziwa")]
    samples.add(database, made)
    return made


def values(database: Database) -> list[float | None]:
    return [rating.value for rating in log.effective(database)]


def test_undo_takes_back_what_was_said_here_and_leaves_what_another_app_says(database: Database, answers: list[Sample]):
    log.append(database, log.score(answers[2].id, 1, "ana"))
    here, there = Sitting(log.position(database)), Sitting(log.position(database))
    here.append(database, log.score(answers[0].id, 2, "ana"))
    there.append(database, log.score(answers[1].id, 3, "ana"))
    undone = here.undo(database, "ana")
    assert undone is not None
    assert (undone.value, values(database)) == (2, [1, 3])
    again = here.undo(database, "ana")  # nothing of its own is left: what was there before it began
    assert again is not None
    assert (again.value, values(database)) == (1, [3])
    assert here.undo(database, "ana") is None
    assert values(database) == [3]
    for _ in range(2):
        assert here.redo(database, "ana") is not None
    assert here.redo(database, "ana") is None
    assert values(database) == [1, 2, 3]


def test_redo_is_over_when_something_was_rated_here_and_not_when_elsewhere(database: Database, answers: list[Sample]):
    here, there = Sitting(log.position(database)), Sitting(log.position(database))
    here.append(database, log.score(answers[0].id, 2, "ana"))
    here.undo(database, "ana")
    there.append(database, log.score(answers[1].id, 3, "ana"))
    assert there.redo(database, "ana") is None
    assert here.redo(database, "ana") is not None
    here.undo(database, "ana")
    here.append(database, log.score(answers[2].id, 4, "ana"))
    assert here.redo(database, "ana") is None
    assert values(database) == [3, 4]


def test_a_rating_that_replaced_one_gives_way_to_it(database: Database, answers: list[Sample]):
    here = Sitting(0)
    for value in (2, 4):
        here.append(database, log.score(answers[0].id, value, "ana"))
    said = []
    while here.undo(database, "ana") is not None:
        said.append(values(database))
    assert said == [[2], []]


def test_what_was_replaced_elsewhere_is_taken_back_too_and_does_not_come_back(
    database: Database, answers: list[Sample]
):
    here, there = Sitting(0), Sitting(0)
    here.append(database, log.score(answers[0].id, 2, "ana"))
    there.append(database, log.score(answers[0].id, 5, "ana"))
    undone = here.undo(database, "ana")
    assert undone is not None
    assert (undone.value, values(database)) == (2, [5])
    assert here.undo(database, "ana") is None
    there.undo(database, "ana")
    assert values(database) == []
    assert here.redo(database, "ana") is not None
    assert values(database) == [2]


def test_a_gesture_is_one_act_and_a_rater_has_their_own(database: Database, answers: list[Sample]):
    here = Sitting(0)
    here.gesture(database, log.best_of(answers[0].id, [sample.id for sample in answers], "ana"))
    here.append(database, log.label(answers[0].id, True, "amina"))
    assert here.undo(database, "ana") is not None
    assert [rating.rater for rating in log.effective(database)] == ["amina"]
    assert here.undo(database, "amina") is not None
    assert log.effective(database) == []
    assert here.redo(database, "ana") is not None
    assert len(log.effective(database)) == 2


def test_an_act_that_was_rolled_back_was_never_said(database: Database, answers: list[Sample]):
    here = Sitting(0)
    here.append(database, log.score(answers[0].id, 2, "ana"))
    with suppress(ZeroDivisionError), database.transaction():
        here.append(database, log.score(answers[1].id, 3, "ana"))
        here.undo(database, "ana")
        raise ZeroDivisionError
    assert values(database) == [2]
    assert here.redo(database, "ana") is None
    assert here.undo(database, "ana") is not None
    assert values(database) == []


def test_undo_and_redo_cost_the_same_however_much_others_have_said(database: Database, answers: list[Sample]):
    """Counted in SQLite's own steps, which no busy machine can change."""
    here = Sitting(0)
    here.append(database, log.score(answers[0].id, 2, "ana"))

    def steps(work: Callable[[], object]) -> int:
        count = 0

        def one() -> None:
            nonlocal count
            count += 1

        database.connection.set_progress_handler(one, 10)
        work()
        database.connection.set_progress_handler(None, 0)
        return count

    def turn() -> None:
        assert here.undo(database, "ana") is not None
        assert here.redo(database, "ana") is not None

    first = steps(turn)
    with database.transaction():
        log.append_all(database, (log.note(answers[1].id, f"{n}", "ana") for n in range(3000)))
    assert steps(turn) < 1.5 * first + 5
