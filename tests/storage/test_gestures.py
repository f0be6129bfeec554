"""What one key says is one act: stored, taken back, brought back and replaced as one."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from storage import conversations, samples
from storage.database import Database
from storage.errors import WorkbenchError
from storage.feedback import log
from storage.feedback.counting import Link, counted
from storage.records import Choice, Rating, Sample


@pytest.fixture
def shown(database: Database) -> list[str]:
    """The keys of four answers to one prompt, from left to right."""
    prompt = conversations.add(database, "Was ist ein Moor?", language="de")
    made = [samples.new(prompt.id, text) for text in "abcd"]
    samples.add(database, made)
    return [sample.id for sample in made]


def said(database: Database, shown: list[str]) -> set[str]:
    """What counts: `a>b` for a preference, `a=b` for a tie."""
    letters = dict(zip(shown, "abcd", strict=True))
    signs = {Choice.A: ">", Choice.B: "<", Choice.TIE: "="}
    return {
        f"{letters[one.sample_id or '']}{signs[one.choice or Choice.TIE]}{letters[one.other_sample_id or '']}"
        for one in log.effective(database)
    }


def prefer(database: Database, shown: list[str], letter: str, rater: str = "ana") -> list[Rating]:
    return log.gesture(database, log.best_of(shown["abcd".index(letter)], shown, rater))


def test_the_best_of_four_is_three_pairs_with_the_order_in_which_they_stood(
    database: Database, shown: list[str]
) -> None:
    made = prefer(database, shown, "c")
    assert said(database, shown) == {"c>a", "c>b", "c>d"}
    assert [(one.other_sample_id, one.shown_order) for one in made] == list(
        zip([shown[0], shown[1], shown[3]], ["ba", "ba", "ab"], strict=True)
    )
    assert len({one.gesture for one in log.effective(database)} - {None}) == 1


def test_four_that_are_equal_are_six_pairs(database: Database, shown: list[str]) -> None:
    log.gesture(database, log.equally_good(shown, "ana"))
    assert said(database, shown) == {f"{a}={b}" for a, b in itertools.combinations("abcd", 2)}


def test_one_undo_takes_all_of_it_back_and_one_redo_brings_all_of_it_back(database: Database, shown: list[str]) -> None:
    log.append(database, log.score(shown[0], 4, "ana"))
    before = log.effective(database)
    prefer(database, shown, "b")
    after = log.effective(database)
    for _ in range(3):
        taken = log.undo(database, "ana")
        assert taken is not None
        assert len(log.act(database, taken)) == 3
        assert log.effective(database) == before
        assert log.redo(database, "ana") is not None
        assert log.effective(database) == after
    assert log.effects_differ(database) == 0


@pytest.mark.parametrize("first", [*"abcd", "="])
@pytest.mark.parametrize("second", [*"abcd", "="])
def test_changing_ones_mind_leaves_no_stale_pair(database: Database, shown: list[str], first: str, second: str) -> None:
    def say(which: str) -> None:
        if which == "=":
            log.gesture(database, log.equally_good(shown, "ana"))
        else:
            prefer(database, shown, which)

    say(first)
    once = said(database, shown)
    say(second)
    others = [letter for letter in "abcd" if letter != second]
    pairs = {f"{a}={b}" for a, b in itertools.combinations("abcd", 2)}
    assert said(database, shown) == (pairs if second == "=" else {f"{second}>{other}" for other in others})
    log.undo(database, "ana")
    assert said(database, shown) == once
    log.undo(database, "ana")
    assert said(database, shown) == set()


def test_a_single_pair_rated_again_leaves_the_rest_of_a_gesture(database: Database, shown: list[str]) -> None:
    prefer(database, shown, "a")
    log.append(database, log.pair(shown[1], shown[0], Choice.TIE, "ana", shown_order="ab"))
    assert said(database, shown) == {"b=a", "a>c", "a>d"}
    log.undo(database, "ana")
    assert said(database, shown) == {"a>b", "a>c", "a>d"}


def test_a_gesture_replaces_whole_an_earlier_one_though_a_single_pair_stands_between(
    database: Database, shown: list[str]
) -> None:
    prefer(database, shown, "a")
    log.append(database, log.pair(shown[0], shown[1], Choice.TIE, "ana", shown_order="ab"))
    prefer(database, shown, "b")
    assert said(database, shown) == {"b>a", "b>c", "b>d"}
    for expected in ({"a=b", "a>c", "a>d"}, {"a>b", "a>c", "a>d"}, set()):
        log.undo(database, "ana")
        assert said(database, shown) == expected


def test_the_gestures_of_others_stand(database: Database, shown: list[str]) -> None:
    prefer(database, shown, "a", "amina")
    prefer(database, shown, "b")
    log.undo(database, "ana")
    assert said(database, shown) == {"a>b", "a>c", "a>d"}
    assert log.undo(database, "ana") is None


def test_a_gesture_is_stored_whole_or_not_at_all(database: Database, shown: list[str]) -> None:
    broken = [*log.best_of(shown[0], shown, "ana"), log.pair(shown[0], "no such answer", Choice.A, "ana")]
    with pytest.raises(WorkbenchError, match="refused"):
        log.gesture(database, broken)
    assert database.scalar("SELECT count(*) FROM ratings") == 0
    assert log.effective(database) == []


def test_history_tells_that_a_gesture_was_taken_back_of_each_of_its_answers(
    database: Database, shown: list[str]
) -> None:
    prefer(database, shown, "a")
    log.undo(database, "ana")
    log.redo(database, "ana")
    for key in shown[1:]:
        assert [event.kind for event in log.history(database, key)] == ["pair", "undo", "redo"]


def test_a_new_edit_replaces_the_last_one(database: Database, answer: Sample) -> None:
    first = log.append(database, log.edit(answer.id, "better", "ana"))
    second = log.append(database, log.edit(answer.id, "best", "ana", attribute="style"))
    log.append(database, log.edit(answer.id, "other", "amina"))
    assert second.supersedes == first.id
    assert [one.text for one in log.effective(database)] == ["best", "other"]


def test_counting_is_of_the_events_alone_in_any_order() -> None:
    """Two logs merged: a gesture that was replaced in one of them and taken back in the other."""
    events = [
        Link("1", "pair", None, "g"), Link("2", "pair", None, "g"), Link("3", "pair", "1", "h"),
        Link("4", "pair", None, "h"), Link("5", "undo", "2"), Link("6", "pair", "4"),
    ]  # fmt: skip
    for turned in itertools.permutations(events, 6):
        assert counted(turned) == {"3", "6"}
    assert counted([*events, Link("7", "undo", "4")]) == {"6"}
    assert counted([*events, Link("7", "undo", "3"), Link("8", "redo", "5")]) == {"1", "2", "6"}


def test_every_rating_of_a_gesture_may_come_by_itself_and_late(database: Database, shown: list[str]) -> None:
    """As when a file of events is imported twice, the second time whole."""
    made = [msgspec.structs.replace(one, gesture="g") for one in log.best_of(shown[0], shown, "ana")]
    log.append_many(database, made[:2])
    log.undo(database, "ana")
    log.append_many(database, made[2:])
    assert said(database, shown) == set()
    assert log.effects_differ(database) == 0
