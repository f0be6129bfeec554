"""Ratings: append-only, replaced by re-rating, taken back and brought back, and always what a plain model says."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import conversations, samples
from storage.database import Database, DatabaseError, open_database
from storage.errors import WorkbenchError
from storage.feedback import log
from storage.feedback.counting import Link, counted
from storage.records import Choice, Rating, RatingKind, Sample, Source
from storage.workspace import Workspace


@pytest.fixture
def answers(database: Database) -> list[Sample]:
    """Three answers to one prompt."""
    prompt = conversations.add(database, "Qu'est-ce qu'un glacier ?", language="fr")
    made = [samples.new(prompt.id, text) for text in ("De la glace.", "Un fleuve de glace.", "Je ne sais pas.")]
    samples.add(database, made)
    return made


def values(database: Database) -> list[float | None]:
    return [rating.value for rating in log.effective(database)]


def test_a_rating_cannot_be_changed(database: Database, answers: list[Sample]) -> None:
    log.append(database, log.score(answers[0].id, 4, "ana"))
    with pytest.raises(DatabaseError, match="append-only"):
        database.execute("UPDATE main.ratings SET value = 1")
    assert values(database) == [4]


def test_a_rating_cannot_be_deleted(database: Database, answers: list[Sample]) -> None:
    log.append(database, log.score(answers[0].id, 4, "ana"))
    with pytest.raises(DatabaseError, match="append-only"):
        database.execute("DELETE FROM main.ratings")
    assert values(database) == [4]


def test_a_rating_cannot_be_replaced_through_its_key(database: Database, answers: list[Sample]) -> None:
    kept = log.append(database, log.score(answers[0].id, 4, "ana"))
    columns = "id, created_at, rater, kind, sample_id, value, source, scale_low, scale_high"
    with pytest.raises(DatabaseError, match="append-only"):
        database.execute(
            f"""INSERT OR REPLACE INTO main.ratings ({columns})
                SELECT id, created_at, rater, kind, sample_id, 1, source, 1, 5 FROM ratings WHERE id = ?""",
            (kept.id,),
        )
    assert values(database) == [4]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("score", {"value": 9.0, "scale_low": 1.0, "scale_high": 5.0}),
        ("score", {"value": 3.0, "scale_low": 5.0, "scale_high": 1.0}),
        ("score", {"value": 3.0}),
        ("score", {"value": float("nan"), "scale_low": 1.0, "scale_high": 5.0}),
        ("label", {"value": 0.5}),
        ("label", {}),
        ("pair", {"choice": "a"}),
        ("tags", {}),
        ("edit", {}),
        ("undo", {}),
        ("score", {"value": 3.0, "scale_low": 1.0, "scale_high": 5.0, "sample_id": "no such sample"}),
    ],
)
def test_events_that_break_a_rule_are_refused_and_nothing_is_stored(
    database: Database, answers: list[Sample], kind: str, fields: dict[str, object]
) -> None:
    rating = log.score(answers[0].id, 3, "ana")
    blank = {"value": None, "scale_low": None, "scale_high": None}
    broken = msgspec.convert({**msgspec.to_builtins(rating), **blank, "kind": kind, **fields}, Rating)
    with pytest.raises(WorkbenchError, match="refused"):
        log.append(database, broken)
    assert database.scalar("SELECT count(*) FROM ratings") == 0


def test_a_second_score_replaces_the_first(database: Database, answers: list[Sample]) -> None:
    first = log.append(database, log.score(answers[0].id, 2, "ana"))
    second = log.append(database, log.score(answers[0].id, 5, "ana"))
    assert second.supersedes == first.id
    assert values(database) == [5]


def test_a_third_score_does_not_bring_back_the_first(database: Database, answers: list[Sample]) -> None:
    for value in (1, 2, 3, 4):
        log.append(database, log.score(answers[0].id, value, "ana"))
        assert values(database) == [value]
    for value in (3, 2, 1):
        log.undo(database, "ana")
        assert values(database) == [value]
    for value in (2, 3, 4):
        log.redo(database, "ana")
        assert values(database) == [value]


def test_other_raters_kinds_attributes_and_samples_are_left_alone(database: Database, answers: list[Sample]) -> None:
    log.append(database, log.score(answers[0].id, 2, "ana"))
    log.append(database, log.score(answers[0].id, 3, "amina"))
    log.append(database, log.score(answers[0].id, 4, "ana", attribute="fluency"))
    log.append(database, log.label(answers[0].id, True, "ana"))
    log.append(database, log.score(answers[1].id, 5, "ana"))
    assert values(database) == [2, 3, 4, 1, 5]


def test_a_pair_rated_again_the_other_way_round_replaces(database: Database, answers: list[Sample]) -> None:
    a, b, _ = (answer.id for answer in answers)
    log.append(database, log.pair(a, b, Choice.A, "ana"))
    log.append(database, log.pair(b, a, Choice.TIE, "ana"))
    assert [rating.choice for rating in log.effective(database)] == [Choice.TIE]


def test_a_sample_is_not_paired_with_itself(database: Database, answers: list[Sample]) -> None:
    with pytest.raises(WorkbenchError):
        log.append(database, log.pair(answers[0].id, answers[0].id, Choice.A, "ana"))


def test_undo_and_redo_survive_a_restart(workspace: Workspace, database: Database, answers: list[Sample]) -> None:
    log.append(database, log.label(answers[0].id, True, "ana"))
    database.close()
    with open_database(workspace) as again:
        assert log.undo(again, "ana") is not None
        assert values(again) == []
    with open_database(workspace) as again:
        assert log.redo(again, "ana") is not None
        assert values(again) == [1]


def test_undo_takes_only_the_raters_own(database: Database, answers: list[Sample]) -> None:
    log.append(database, log.label(answers[0].id, True, "ana"))
    assert log.undo(database, "amina") is None
    assert values(database) == [1]


def test_undo_leaves_ratings_from_files_alone(database: Database, answers: list[Sample]) -> None:
    log.append(database, log.label(answers[0].id, True, "ana"))
    log.append(database, log.score(answers[1].id, 3, "ana", source=Source.IMPORTED))
    assert log.undo(database, "ana") is not None
    assert values(database) == [3]
    assert log.undo(database, "ana") is None


def test_redo_ends_at_a_new_rating(database: Database, answers: list[Sample]) -> None:
    log.append(database, log.label(answers[0].id, True, "ana"))
    log.undo(database, "ana")
    log.append(database, log.label(answers[1].id, False, "ana"))
    assert log.redo(database, "ana") is None
    assert values(database) == [0]


def test_history_tells_every_event_about_a_sample(database: Database, answers: list[Sample]) -> None:
    log.append(database, log.score(answers[0].id, 2, "ana"))
    log.append(database, log.score(answers[1].id, 2, "ana"))
    log.undo(database, "ana")
    log.redo(database, "ana")
    told = [rating.kind for rating in log.history(database, answers[1].id)]
    assert told == [RatingKind.SCORE, RatingKind.UNDO, RatingKind.REDO]


def test_a_damaged_effects_table_is_noticed_and_rebuilt(database: Database, answers: list[Sample]) -> None:
    for value in (1, 2, 3):
        log.append(database, log.score(answers[0].id, value, "ana"))
    assert log.effects_differ(database) == 0
    database.execute("DELETE FROM main.counted")
    assert log.effects_differ(database) == 1
    database.execute("UPDATE main.tally_of_ratings SET ratings = 7")
    assert log.effects_differ(database) == 2, "the rating that does not count, and the sum that is none"
    database.execute("UPDATE topics SET newest = 0")
    log.rebuild_effects(database)
    assert log.effects_differ(database) == 0
    assert values(database) == [3]


def test_what_replaces_a_rating_down_the_line_holds_though_the_one_between_was_undone() -> None:
    """Two logs merged can tell this story, the app alone cannot."""
    events = [Link("1", "score"), Link("2", "score", "1"), Link("3", "score", "2"), Link("4", "undo", "2")]
    for turned in (events, events[::-1]):
        assert counted(turned) == {"3"}
    assert counted([*events, Link("5", "undo", "3")]) == {"1"}
    assert counted([*events, Link("5", "redo", "4")]) == {"3"}


# A model of the whole behaviour that shares no idea with the code: each rater has a stack of screens to go back to.


@dataclass
class Model:
    """What counts, as each rater would keep it in a notebook: every action copies the page."""

    pages: dict[str, dict[tuple[str, int], float]] = field(default_factory=dict)
    back: dict[str, list[dict[tuple[str, int], float]]] = field(default_factory=dict)
    forth: dict[str, list[dict[tuple[str, int], float]]] = field(default_factory=dict)

    def rate(self, rater: str, key: tuple[str, int], value: float) -> None:
        page = self.pages.get(rater, {})
        self.back.setdefault(rater, []).append(page)
        self.pages[rater] = {**page, key: value}
        self.forth[rater] = []

    def step(self, rater: str, origin: str, target: str) -> None:
        pages: list[dict[tuple[str, int], float]] = getattr(self, origin).get(rater, [])
        if pages:
            getattr(self, target).setdefault(rater, []).append(self.pages.get(rater, {}))
            self.pages[rater] = pages.pop()

    def counted(self) -> set[tuple[str, str, int, float]]:
        return {(rater, *key, value) for rater, page in self.pages.items() for key, value in page.items()}


RATERS = st.sampled_from(["ana", "amina"])
ACTIONS = st.one_of(
    st.tuples(st.just("score"), RATERS, st.integers(0, 1), st.integers(1, 5)),
    st.tuples(st.just("label"), RATERS, st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.sampled_from(["undo", "redo"]), RATERS),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=25))
def test_any_order_of_rating_undo_and_redo_counts_what_a_notebook_counts(
    database: Database, answers: list[Sample], actions: list[tuple]
) -> None:
    model = Model()
    database.execute("BEGIN")
    try:
        for action, rater, *rest in actions:
            if action == "undo":
                model.step(rater, "back", "forth")
                log.undo(database, rater)
            elif action == "redo":
                model.step(rater, "forth", "back")
                log.redo(database, rater)
            else:
                which, value = rest
                make = log.score if action == "score" else log.label
                model.rate(rater, (action, which), value)
                log.append(database, make(answers[which].id, value, rater))
            places = {answer.id: place for place, answer in enumerate(answers)}
            counted = {
                (rating.rater, str(rating.kind), places[rating.sample_id or ""], rating.value)
                for rating in log.effective(database)
            }
            assert counted == model.counted()
            assert len(log.effective(database)) == len(counted)
        assert log.effects_differ(database) == 0
        before = log.effective(database)
        log.rebuild_effects(database)
        assert log.effective(database) == before
    finally:
        database.execute("ROLLBACK")
