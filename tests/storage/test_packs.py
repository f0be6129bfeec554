"""The prompt packs that come with the program."""

from __future__ import annotations

from collections import Counter

import pytest

from storage import conversations, packs
from storage.database import Database
from storage.errors import UsageError
from storage.forms import search_form, text_key
from workbench.demo import languages as demo

LANGUAGES = {"en", "es", "fr", "de", "pt", "it", "ru", "ar", "hi", "zh", "ja", "sw"}
TASKS = ["dialogue", "translation", "summary", "sentiment", "creative"]


def test_there_are_twelve_languages_with_five_tasks_of_eight_prompts_each_and_none_twice() -> None:
    assert [pack.name for pack in packs.every()] == [
        f"{language}/{task}" for language in dict.fromkeys(pack.language for pack in packs.every()) for task in TASKS
    ]
    assert {pack.language for pack in packs.every()} == LANGUAGES
    assert {len(pack.prompts) for pack in packs.every()} == {8}
    texts = [text for pack in packs.every() for text in pack.prompts]
    assert [text for text, times in Counter(map(search_form, texts)).items() if times > 1] == []
    assert all(text == text_key(text) for text in texts), "in the form in which they are known"


def test_none_is_asked_by_the_demo_which_measures_with_its_own() -> None:
    asked = {search_form(one.text) for one in demo.prompts()}
    assert not [text for pack in packs.every() for text in pack.prompts if search_form(text) in asked]


def test_nearly_every_prompt_is_taken_for_its_own_language() -> None:
    from py3langid.langid import classify

    taken = [(pack.language, classify(text)[0]) for pack in packs.every() for text in pack.prompts]
    others = Counter(language for language, told in taken if told != language)
    assert sum(others.values()) <= len(taken) // 50, others
    assert all(times <= 4 for times in others.values()), others


def test_summaries_hold_the_text_to_be_summarised_and_others_are_short() -> None:
    wide = ("zh", "ja")  # a sign says more there
    for pack in packs.every():
        for text in pack.prompts:
            length = len(text) * (2.5 if pack.language in wide else 1)
            assert length > 160 if pack.task == "summary" else length < 190, (pack.name, length, text)


def test_packs_are_added_once_whatever_they_are_called_by(database: Database) -> None:
    assert packs.add(database, packs.chosen(["fr/summary"])) == packs.Added(packs=1, prompts=8, new=8)
    added = packs.add(database, packs.chosen(["fr", "summary", "fr/summary"]))
    assert (added.packs, added.prompts, added.new) == (16, 128, 120)
    assert packs.add(database, packs.chosen(["fr", "summary"])).new == 0
    held = packs.held(database)
    assert (held["fr/creative"], held["sw/summary"], held["sw/creative"]) == (8, 8, 0)
    found = conversations.recent(database, 500)
    assert len(found) == 128
    assert {(one.origin, one.task) for one in found if one.language == "sw"} == {("pack", "summary")}
    assert {one.split for one in found} == {"train", "held-out"}, "decided by the hash, as for any new prompt"
    everything = packs.add(database, packs.chosen(["all"]))
    assert (everything.packs, everything.new) == (60, 480 - 128)


def test_a_name_that_stands_for_no_pack_says_what_there_is() -> None:
    with pytest.raises(UsageError, match="no pack is called frz") as told:
        packs.chosen(["fr", "frz"])
    assert "fr/summary" in told.value.hint
