"""What words cost, where it can be counted by hand; and what is asked of each language."""

from __future__ import annotations

import pytest

from benchmarks import languages
from storage import conversations, packs, samples, versions


class Letters:
    """A tokenizer of two bytes a token."""

    def encode_response(self, text: str, *, end: bool) -> list[int]:
        assert not end
        raw = text.encode()
        return [raw[place] for place in range(0, len(raw), 2)]


def test_tokens_are_told_by_the_word_and_where_words_are_not_separated_by_the_character():
    spaced = languages.tokens_of(Letters(), ["four more", "of them"], "en")
    assert spaced == {"bytes_per_token": pytest.approx(16 / 9), "tokens_per_unit": 9 / 4, "unit": "word"}
    unspaced = languages.tokens_of(Letters(), ["雨水 溶解"], "zh")
    assert unspaced == {"bytes_per_token": pytest.approx(13 / 7), "tokens_per_unit": 7 / 4, "unit": "character"}


def test_what_became_of_the_answers_of_a_workspace_is_told_by_language(workspace, database):
    versions.ensure_base(database, "smollm2", "0" * 64)
    for language, task, text in (
        ("en", "dialogue", "Soak the pan overnight, then scrub it with salt."),
        ("en", "dialogue", "I'm sorry, but I can't help with that."),
        ("en", "translation", "Weiche die Pfanne über Nacht ein."),
        ("sw", "dialogue", "Soak the pan overnight, then scrub it with salt."),
    ):
        prompt = conversations.add(database, f"{language} {task} {text}", language=language, task=task)
        samples.add(database, [samples.new(prompt.id, text, version="v0", finish_reason="eos")])
    found = languages.answers_of(workspace.root)
    told = {language: languages.told(outcomes, language) for language, outcomes in found.items()}
    figures = {language: {name: one[name][0] for name in languages.FIGURES} for language, one in told.items()}
    nothing = dict.fromkeys(languages.FIGURES, 0.0)
    assert {language: one["n"] for language, one in told.items()} == {"en": 2, "sw": 1}
    assert figures == {"en": nothing | {"answered": 0.5, "refused": 0.5}, "sw": nothing | {"wrong_language": 1.0}}


def test_every_language_is_asked_what_is_to_be_answered_in_it():
    for language in {pack.language for pack in packs.every()}:
        asked = languages.questions(language)
        assert len(asked) == 8 * len(languages.ASKED)
        assert {one.answer_language for one in asked} == {language}
        assert "I can't" in " ".join(asked[0].refusals).replace("’", "'")
