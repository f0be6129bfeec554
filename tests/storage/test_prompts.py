"""Prompts: the same text once, and never less strict than its strictest use."""

from __future__ import annotations

import pytest

from storage import conversations
from storage.database import Database
from storage.records import Split


def test_the_same_text_is_stored_once_however_it_is_composed(database: Database) -> None:
    composed, decomposed = "Où est le glacier ?", "Ou\u0300 est le glacier ?"
    first = conversations.add(database, composed, language="fr")
    again = conversations.add(database, f"  {decomposed}\n", language="fr")
    assert again.id == first.id
    assert again.text == composed  # as it was first written


def test_the_raw_text_is_kept(database: Database) -> None:
    text = "  \x1b[31mlook\x1b[0m\u202e \n"
    assert conversations.get(database, conversations.add(database, text, language="en").id).text == text


@pytest.mark.parametrize("later", [Split.HELD_OUT, Split.ETHICS])
def test_a_stricter_use_wins_and_stays(database: Database, later: Split) -> None:
    conversations.add(database, "氷河とは何ですか。", language="ja")
    assert conversations.add(database, "氷河とは何ですか。", language="ja", split=later).split == later
    assert conversations.add(database, "氷河とは何ですか。", language="ja", split=Split.TRAIN).split == later


def test_held_out_text_stays_held_out_under_another_language_or_system_prompt(database: Database) -> None:
    conversations.add(database, "ما هو النهر الجليدي؟", language="ar", split=Split.HELD_OUT)
    unmarked = conversations.add(database, "ما هو النهر الجليدي؟")
    with_system = conversations.add(database, "ما هو النهر الجليدي؟", language="ar", system="Be brief.")
    assert (unmarked.split, with_system.split) == (Split.HELD_OUT, Split.HELD_OUT)
    assert conversations.by_split(database, Split.TRAIN) == []


def test_holding_a_text_out_takes_its_other_prompts_along(database: Database) -> None:
    conversations.add(database, "हिमनद क्या है?", language="hi")
    conversations.add(database, "हिमनद क्या है?", language="hi", system="Be brief.")
    conversations.add(database, "हिमनद क्या है?", split=Split.HELD_OUT)
    assert conversations.by_split(database, Split.TRAIN) == []
    assert len(conversations.by_split(database, Split.HELD_OUT)) == 3


def test_a_task_is_filled_in_later_and_not_overwritten(database: Database) -> None:
    conversations.add(database, "O que é uma geleira?", language="pt")
    assert conversations.add(database, "O que é uma geleira?", language="pt", task="dialogue").task == "dialogue"
    assert conversations.add(database, "O que é uma geleira?", language="pt", task="summary").task == "dialogue"


def test_prompts_are_found_by_a_part_of_their_text(database: Database) -> None:
    conversations.add(database, "什么是冰川？", language="zh")
    conversations.add(database, "What is a river?", language="en")
    assert [prompt.language for prompt in conversations.recent(database, search="冰川")] == ["zh"]
    assert [prompt.language for prompt in conversations.recent(database, search="RIVER")] == ["en"]


ASKED = (
    "Évian, où est-ce ?", "Wo ist die Straße?", "什么是冰川？", "नदी क्या है?", "ما هو النهر؟", 'say a "b" OR c*',
)  # fmt: skip


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("search", "place"),
    [
        ("evian", 0), ("ÉVIAN", 0), ("ou est", 0), ("STRASSE", 1), ("冰", 2), ("是冰川", 2), ("नदी", 3), ("النهر", 4),
        ('a "b', 5), ("OR c*", 5), ("*", 5), ("absent", None), ("मक", None), ("नदि", None),
    ],
)  # fmt: skip
def test_prompts_are_found_in_every_script_whatever_their_case_and_accents(
    database: Database, indexed: bool, search: str, place: int | None
) -> None:
    for text in ASKED:
        conversations.add(database, text)
    if not indexed:
        database.execute("DROP TRIGGER prompts_are_found")
        database.execute("DROP TABLE prompt_search")
    found = [prompt.text for prompt in conversations.recent(database, search=search)]
    assert found == ([] if place is None else [ASKED[place]])


def test_what_is_found_comes_newest_first(database: Database) -> None:
    for number in range(30):
        conversations.add(database, f"Glacier {number}")
    found = [prompt.text for prompt in conversations.recent(database, 3, "glacier")]
    assert found == ["Glacier 29", "Glacier 28", "Glacier 27"]
