"""The library: pages of prompts, and what became of everything that was said of an answer."""

from __future__ import annotations

import pytest

from storage import conversations, library, samples
from storage.database import Database
from storage.errors import UsageError
from storage.feedback import log
from storage.library import Standing
from storage.records import Choice, Split

TEXTS = ("Why does bread rise?", "¿Por qué sube el pan?", "面包为什么会发起来？", "Kwa nini mkate huumuka?")


def all_pages(database: Database, search: str = "", **only: str) -> list[str]:
    """The texts of all pages, two prompts a page."""
    found: list[library.Shelved] = []
    while page := library.page(database, search, found[-1].sequence if found else None, 2, only):
        found += page
    return [prompt.text for prompt in found]


def test_pages_go_on_where_the_one_before_ended_and_find_what_is_searched_in_any_script(database: Database) -> None:
    for place, text in enumerate(TEXTS):
        split = Split.HELD_OUT if place == 1 else Split.TRAIN
        conversations.add(database, text, language=("en", "es", "zh", "sw")[place], split=split, task="explanation")
    assert all_pages(database) == list(reversed(TEXTS))
    assert all_pages(database, "POR QUE") == [TEXTS[1]]
    assert all_pages(database, "发起来") == [TEXTS[2]]
    assert all_pages(database, "包") == [TEXTS[2]], "shorter than what the index knows"
    assert all_pages(database, split="held-out") == [TEXTS[1]]
    assert all_pages(database, "w", language="sw", task="explanation") == [TEXTS[3]]


def test_a_page_counts_answers_and_the_ratings_that_count(database: Database) -> None:
    asked = conversations.add(database, TEXTS[0], language="en")
    conversations.add(database, TEXTS[1], language="es")
    made = [samples.new(asked.id, text) for text in ("Yeast.", "Magic.")]
    samples.add(database, made)
    log.append(database, log.score(made[0].id, 3, "ana"))
    log.append(database, log.score(made[0].id, 4, "ana"))
    log.append(database, log.note(made[0].id, "brief", "ana"))
    log.append(database, log.pair(made[0].id, made[1].id, Choice.A, "ana"))
    assert [(one.answers, one.ratings) for one in library.page(database)] == [(0, 0), (2, 2)]


def test_each_event_tells_what_has_become_of_it(database: Database) -> None:
    asked = conversations.add(database, TEXTS[0], language="en")
    made = [samples.new(asked.id, text) for text in ("Yeast.", "Magic.", "Gas.")]
    samples.add(database, made)
    log.append(database, log.score(made[0].id, 2, "ana"))
    log.append(database, log.score(made[0].id, 4, "ana"))
    log.gesture(database, log.best_of(made[0].id, [one.id for one in made], "ana"))
    log.undo(database, "ana")
    log.append(database, log.label(made[0].id, True, "bo"))
    log.undo(database, "bo")
    log.redo(database, "bo")
    answered = library.answer(database, asked.id, 3)
    assert answered is not None
    assert (answered.sample, answered.place, answered.count) == (made[0], 0, 3), "round the end"
    assert [(one.rating.kind, one.standing) for one in answered.told] == [
        ("score", Standing.REPLACED), ("score", Standing.COUNTS), ("pair", Standing.TAKEN_BACK),
        ("pair", Standing.TAKEN_BACK), ("undo", Standing.TURN), ("label", Standing.COUNTS), ("undo", Standing.TURN),
        ("redo", Standing.TURN),
    ]  # fmt: skip
    unanswered = conversations.add(database, TEXTS[1], language="es")
    assert library.answer(database, unanswered.id, 0) is None


def test_a_page_costs_the_same_among_few_prompts_and_among_many(database: Database) -> None:
    def steps(search: str) -> int:
        taken = 0

        def step() -> int:
            nonlocal taken
            taken += 1
            return 0

        database.connection.set_progress_handler(step, 100)
        assert len(library.page(database, search, limit=5)) == 5
        database.connection.set_progress_handler(None, 0)
        return taken

    with database.transaction():
        for n in range(200):
            conversations.add(database, f"Why does bread number {n} rise?", language="en")
    few = steps(""), steps("bread")
    with database.transaction():
        for n in range(200, 2000):
            conversations.add(database, f"Why does bread number {n} rise?", language="en")
    many = steps(""), steps("bread")
    assert many[0] <= few[0] + 1, "read by the sequence"
    assert many[1] <= few[1] + 5, "read from the index of three characters, newest first"


def test_a_prompt_put_to_a_stricter_use_takes_along_all_that_open_with_its_text(database: Database) -> None:
    asked = conversations.add(database, TEXTS[0], language="en", split=Split.TRAIN)
    other = conversations.add(database, TEXTS[0], language="sw", split=Split.TRAIN)
    conversations.add(database, TEXTS[1], language="es", split=Split.TRAIN)
    made = samples.new(other.id, "Yeast.")
    samples.add(database, [made])
    log.append(database, log.score(made.id, 3, "ana"))
    log.append(database, log.note(made.id, "brief", "ana"))
    assert library.moved_with(database, asked.id) == (2, 1)
    put = conversations.put_to_use(database, asked.id, Split.HELD_OUT, "baking")
    assert (put.split, put.task) == (Split.HELD_OUT, "baking")
    assert [one.text for one in conversations.by_split(database, Split.TRAIN)] == [TEXTS[1]]
    assert library.prompt(database, other.id).ratings == 1
    with pytest.raises(UsageError, match="never becomes train"):
        conversations.put_to_use(database, asked.id, Split.TRAIN, "baking")
