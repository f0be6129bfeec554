"""The languages of the demo: each whole in its own file."""

from __future__ import annotations

from collections import Counter

import pytest

from storage.languages import normal
from storage.records import Split
from workbench.demo.gold import _in_language
from workbench.demo.languages import Spoken, spoken

TASKS = {"dialogue", "explanation", "translation", "summary", "sentiment", "creative"}
LANGUAGES = list(spoken().values())


@pytest.mark.parametrize("language", LANGUAGES, ids=spoken())
def test_a_language_has_prompts_of_all_tasks_and_the_simulated_rater_knows_it(language: Spoken) -> None:
    assert normal(language.tag) == language.tag
    assert bool(language.common_words) != bool(language.scripts), "one or the other tells the language"
    splits = Counter(prompt.split for prompt in language.prompts)
    assert splits == {Split.TRAIN: 14, Split.HELD_OUT: 5}, "as many as the others have"
    assert {prompt.task for prompt in language.prompts if prompt.split == Split.TRAIN} == TASKS
    told = " ".join(prompt.text for prompt in language.prompts if prompt.task != "translation")
    others = [one.tag for one in LANGUAGES if one.tag != language.tag]
    assert _in_language(told, language.tag) > 0.5
    assert _in_language(told, language.tag) >= max(_in_language(told, other) for other in others)


def test_no_prompt_stands_twice() -> None:
    texts = [prompt.text for language in LANGUAGES for prompt in language.prompts]
    assert len(texts) == len(set(texts))
    assert all(text == text.strip() and text for text in texts)
