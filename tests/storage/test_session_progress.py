"""How a session goes: whatever is said of items, in whatever order, a goal counts those that were judged."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from storage import conversations, samples
from storage.database import Database, open_database
from storage.feedback import log, progress
from storage.records import Choice
from storage.workspace import Workspace

SIZES = (1, 1, 2, 3)  # answers of each item
JUDGED = ("score", "label", "edit")
ACTS = st.lists(
    st.tuples(st.integers(0, len(SIZES) - 1), st.sampled_from([*JUDGED, "skip", "cannot", "note", "tags", "undo"])),
    max_size=12,
)


def act(database: Database, answers: list[str], said: str) -> None:
    """Say it of an item; one of several answers is ranked where another is scored."""
    more: dict[str, Any] = {"duration_ms": 1000}
    one, several = answers[0], len(answers) > 1
    match said:
        case "skip" | "cannot":
            log.gesture(database, log.pass_over(answers, "ana", cannot_judge=said == "cannot", **more))
        case "note":
            log.append(database, log.note(one, "hm", "ana"))
        case "tags":
            log.append(database, log.tags(one, {"harm": "medical"}, "ana"))
        case "undo":
            log.undo(database, "ana")
        case _ if several:
            log.gesture(database, log.ranking([[one] for one in answers], answers, "ana", **more))
        case "score":
            log.append(database, log.score(one, 3, "ana", **more))
        case "label":
            log.append(database, log.label(one, True, "ana", **more))
        case "edit":
            log.append(database, log.edit(one, "better", "ana", **more))


@given(ACTS)
@settings(max_examples=40, deadline=None)
def test_a_goal_is_of_what_was_judged_whatever_else_was_said(
    tmp_path_factory: Any, acts: list[tuple[int, str]]
) -> None:
    with open_database(Workspace(tmp_path_factory.mktemp("session")).prepare()) as database:
        items: list[list[str]] = []
        for n, many in enumerate(SIZES):
            prompt = conversations.add(database, f"Question {n}?", language="en")
            made = [samples.new(prompt.id, f"answer {n} {place}") for place in range(many)]
            samples.add(database, made)
            items.append([one.id for one in made])
        for place, said in acts:
            act(database, items[place], said)
        found = progress.since(database, "ana", 0)
        counts = log.effective(database, rater="ana")
        about = [{one.sample_id, one.other_sample_id} - {None} for one in counts]
        kinds = [
            {str(rating.kind) for rating, of in zip(counts, about, strict=True) if of <= set(answers)}
            for answers in items
        ]
        judged = [n for n, said in enumerate(kinds) if said & {"pair", *JUDGED}]
        passed = [n for n, said in enumerate(kinds) if said & {"skip", "cannot-judge"} and n not in judged]
        assert (found.items, found.passed_over) == (len(judged), len(passed))
        assert found.languages == ({"en": len(judged)} if judged else {})
        assert (found.pace is None) == (not judged)
        assert found.kinds.get("pair", 0) + found.kinds.get("ranking", 0) == sum("pair" in said for said in kinds)


def test_the_two_kinds_of_item_that_are_passed_over_are_told_beside_the_goal(database: Database) -> None:
    prompt = conversations.add(database, "Why?", language="en")
    made = [samples.new(prompt.id, f"answer {n}") for n in range(4)]
    samples.add(database, made)
    a, b, c, d = (one.id for one in made)
    for ratings in (
        log.pass_over([a], "ana"),
        log.pass_over([b, c, d], "ana", cannot_judge=True),
        [log.pair(a, b, Choice.A, "ana", duration_ms=500)],
    ):
        log.gesture(database, ratings)
    found = progress.since(database, "ana", 0)
    assert (found.items, found.passed_over, found.settled) == (1, 2, 3)
    assert found.pace == 0.5
