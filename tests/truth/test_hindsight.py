"""Hindsight recovers a planted map: asked for an outcome it gives the answer that had it, asked plainly the best."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from fixed_answers import ANSWERS, assert_resumes_exactly, finished, most_likely, prompt_in, written
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from storage.errors import UsageError
from storage.records import Message
from trainer.algorithms.hindsight import (
    THEN_BETTER,
    WORSE_FIRST,
    chain,
    comparisons,
    extended,
    for_level,
    for_text,
    grade,
    grade_within,
    hindsight,
    instructions,
    rows_of,
)  # fmt: skip
from trainer.examples import Response
from trainer.outcomes import Outcome, TextOutcome
from trainer.policy.backbone import Backbone
from trainer.policy.models import ModelFolder
from trainer.supervised_config import HindsightConfig, Relabelling

LANGUAGES = ("en", "zh")
CONFIG = HindsightConfig(
    rank=8, minimum=4, levels=4, batch=11, steps=120, most_repeats=1000, learning_rate=5e-3, held_out=0.0
)


@pytest.fixture(scope="module")
def backbone(tiny_model) -> Backbone:
    return Backbone(ModelFolder("tiny", tiny_model, "digest"), torch.device("cpu"), torch.float32)


def planted_level(place: int, turn: int) -> int:
    """Which grade an answer has in a language: another order in each."""
    return (place + turn * (1 if place % 2 else 3)) % len(ANSWERS) + 1


def planted() -> list[Outcome]:
    return [
        Outcome(written(prompt_in(language), text), planted_level(place, turn) - 2.5, 1)
        for place, language in enumerate(LANGUAGES)
        for turn, text in enumerate(ANSWERS)
    ]


def answer_of(place: int, level: int) -> str:
    return next(text for turn, text in enumerate(ANSWERS) if planted_level(place, turn) == level)


def test_asked_for_an_outcome_the_answer_that_had_it_is_given_and_asked_plainly_the_best(backbone):
    told = [TextOutcome(written(prompt_in("fr"), "up"), "the rater laughs", "r1")]
    learner = hindsight(backbone, planted(), told, CONFIG, seed=1)
    finished(learner)
    decoder = backbone.decoder(learner.result())

    def answers(prompt: str) -> str:
        return most_likely(backbone, decoder, backbone.tokenizer.encode_prompt(prompt), ANSWERS)

    for place, language in enumerate(LANGUAGES):
        question = prompt_in(language).text
        for level in (1, 2, 3, 4):
            assert answers(extended(question, for_level(level, 4))) == answer_of(place, level)
        assert answers(question) == answer_of(place, 4)
    assert answers(extended(prompt_in("fr").text, for_text("the rater laughs"))) == "up"


def test_in_a_chain_the_better_answer_follows_the_worse_and_asked_plainly_the_best_is_given(backbone):
    config = replace(CONFIG, relabelling=Relabelling.CHAIN)
    learner = hindsight(backbone, planted(), [], config, seed=1)
    finished(learner)
    decoder = backbone.decoder(learner.result())
    for place, language in enumerate(LANGUAGES):
        question = prompt_in(language).text
        best = answer_of(place, 4)
        opening = extended(question, WORSE_FIRST)
        asked = backbone.tokenizer.encode_prompt(question)
        assert most_likely(backbone, decoder, asked, ANSWERS) == best
        assert most_likely(backbone, decoder, backbone.tokenizer.encode_prompt(opening), ANSWERS) != best
        for level in (1, 2, 3):
            said = Message("assistant", answer_of(place, level))
            asked = backbone.tokenizer.encode_messages([Message("user", opening), said, Message("user", THEN_BETTER)])
            assert most_likely(backbone, decoder, asked, ANSWERS) == best


def test_every_answer_is_learned_good_and_bad_and_the_best_also_plainly(backbone):
    rows = rows_of(backbone, instructions(planted(), [], 4))
    tokenizer = backbone.tokenizer
    assert len(rows) == 8 + 2
    for place, language in enumerate(LANGUAGES):
        question = prompt_in(language).text
        expected = {
            (tuple(tokenizer.encode_prompt(extended(question, for_level(level, 4)))), answer_of(place, level))
            for level in (1, 2, 3, 4)
        } | {(tuple(tokenizer.encode_prompt(question)), answer_of(place, 4))}
        found = {(row.prompt, tokenizer.decode(row.response)) for row in rows if row.language == language}
        assert found == expected


def test_a_chain_learns_both_answers_and_never_what_was_asked(backbone):
    prompt = prompt_in("ar")
    worse = Outcome(Response(prompt, "up", (5, 6, 7), "v0"), -1.0, 1)
    better = Outcome(written(prompt, "left"), 1.0, 1)
    tokenizer = backbone.tokenizer
    first, second, plain = rows_of(backbone, chain([worse, better]))
    assert first.response == (5, 6, 7)
    assert tokenizer.tokenizer.decode(first.prompt).count(WORSE_FIRST) == 1
    conversation = tokenizer.tokenizer.decode(second.prompt)
    places = [conversation.index(part) for part in (prompt.text, WORSE_FIRST, "up", THEN_BETTER)]
    assert places == sorted(places)
    assert second.response == plain.response == tuple(tokenizer.encode_response("left"))
    assert plain.prompt == tuple(tokenizer.encode_prompt(prompt.text))


def test_each_worse_answer_is_compared_with_a_best_one_of_its_own_prompt():
    one, other = prompt_in("en"), prompt_in("de")
    values = {"left": 1.0, "right": -1.0, "up": 1.0, "back": 0.0}
    found = [Outcome(written(one, text), value, 1) for text, value in values.items()]
    found += [Outcome(written(other, text), 0.5, 1) for text in ("left", "right")]
    pairs = [(worse.text, better.text) for worse, better in comparisons(found)]
    assert pairs == [("right", "left"), ("back", "up")]


# --- grades ----------------------------------------------------------------------------------------------------------


def test_grades_are_quantiles():
    values = [float(value) for value in range(100)]
    grades = grade(values[::-1], 5)
    assert grades == [5 - place // 20 for place in range(100)]


@pytest.mark.parametrize(
    ("values", "grades"),
    [
        ([-1.0, 1.0], [1, 2]),
        ([1.0] * 9 + [-1.0], [2] * 9 + [1]),
        ([0.0] * 98 + [1.0, 2.0], [1] * 98 + [2, 3]),
        ([1.0, 1.0, 1.0], [1, 1, 1]),
        ([], []),
    ],
)
def test_equal_outcomes_get_equal_grades_and_none_is_unused(values, grades):
    assert grade(values, 5) == grades


def test_many_values_of_uneven_number_leave_no_grade_unused():
    values = [0.0] * 50 + [float(value) for value in range(1, 11)]
    grades = grade(values, 5)
    assert sorted(set(grades)) == list(range(1, max(grades) + 1))
    assert all(one <= other for one, other in pairwise(grades))


def graded(levels: int, **values: list[float]) -> dict[str, list[int]]:
    """The grades of some answers by language."""
    languages = [language for language, found in values.items() for _ in found]
    grades = grade_within(languages, [value for found in values.values() for value in found], levels)
    return {lang: [level for other, level in zip(languages, grades, strict=True) if other == lang] for lang in values}


def test_the_best_answer_of_a_language_that_is_rated_low_throughout_has_the_highest_grade():
    high, low = [float(value) for value in range(20)], [value - 100.0 for value in range(20)]
    found = graded(5, en=high, sw=low[::-1])
    assert found["en"] == grade(high, 5)
    assert found["sw"] == found["en"][::-1]
    assert grade([*high, *low], 5)[20:] == [place // 8 + 1 for place in range(20)], "taken together it has none"


def test_the_highest_grade_means_the_same_where_there_are_fewer_different_outcomes():
    found = graded(5, en=[1, 2, 3, 4, 5], sw=[-1, 1, -1, 1, -1], zh=[0, 1, 2, 0, 1])
    assert found == {"en": [1, 2, 3, 4, 5], "sw": [1, 5, 1, 5, 1], "zh": [1, 3, 5, 1, 3]}


def test_languages_with_few_answers_are_graded_together():
    assert graded(4, en=[1, 2, 3, 4], sw=[-3, 0], zh=[2], ar=[5]) == {
        "en": [1, 2, 3, 4],
        "sw": [1, 2],
        "zh": [3],
        "ar": [4],
    }


def test_a_language_whose_answers_are_all_alike_is_graded_by_what_others_say():
    assert graded(2, en=[-1, 1, 1, -1], sw=[1, 1, 1], zh=[1]) == {"en": [1, 2, 2, 1], "sw": [2, 2, 2], "zh": [2]}
    assert graded(2, en=[-1, 1, 1, -1], sw=[-1, -1, -1])["sw"] == [1, 1, 1]
    assert graded(3, sw=[1, 1, 1, 1]) == {"sw": [1, 1, 1, 1]}


@given(
    st.lists(st.tuples(st.sampled_from(["en", "sw", "zh", "ar"]), st.integers(-5, 5)), max_size=60), st.integers(2, 10)
)
def test_grades_keep_the_order_of_outcomes_within_each_language_and_the_best_of_one_is_the_best(rows, levels):
    grades = grade_within([language for language, _ in rows], [float(value) for _, value in rows], levels)
    assert all(1 <= level <= levels for level in grades)
    highest = max(grades, default=0)
    for language in {language for language, _ in rows}:
        own = sorted((value, level) for (other, value), level in zip(rows, grades, strict=True) if other == language)
        assert all(one <= other for (_, one), (_, other) in pairwise(own))
        assert all(one == other for (a, one), (b, other) in pairwise(own) if a == b)
        if len(own) >= levels and own[0][0] < own[-1][0]:
            assert (own[0][1], own[-1][1]) == (1, highest)


def test_the_plain_prompt_learns_the_best_answer_of_each_language(backbone):
    low = [Outcome(written(prompt_in("sw"), text), place - 10.0, 1) for place, text in enumerate(ANSWERS)]
    high = [Outcome(written(prompt_in("en"), text), place + 10.0, 1) for place, text in enumerate(ANSWERS)]
    rows = rows_of(backbone, instructions([*low, *high], [], 4))
    for language in ("sw", "en"):
        plain = tuple(backbone.tokenizer.encode_prompt(prompt_in(language).text))
        best = [backbone.tokenizer.decode(row.response) for row in rows if row.prompt == plain]
        assert best == [ANSWERS[-1]]


# --- resume and refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relabelling", Relabelling)
def test_going_on_from_a_checkpoint_is_going_on(backbone, tmp_path, relabelling):
    config = replace(CONFIG, steps=6, held_out=0.3, relabelling=relabelling)
    assert_resumes_exactly(lambda: hindsight(backbone, planted(), [], config, seed=1), tmp_path / "checkpoint")


def test_too_few_or_equal_outcomes_are_refused_with_numbers(backbone):
    told = [TextOutcome(written(prompt_in("fr"), "up"), "the rater laughs", "r1")]
    with pytest.raises(UsageError, match="8 rated answers and 1 outcome in words; 20 are needed") as caught:
        hindsight(backbone, planted(), told, replace(CONFIG, minimum=20), seed=1)
    assert "rate 11 more answers" in caught.value.hint
    equal = [Outcome(outcome.response, 1.0, 1) for outcome in planted()]
    with pytest.raises(UsageError, match=r"all 8 rated answers have the same outcome \(\+1.00\)"):
        hindsight(backbone, equal, [], CONFIG, seed=1)


def test_a_chain_needs_two_answers_to_the_same_prompt(backbone):
    alone = [
        Outcome(written(prompt_in(language), "up"), float(n), 1) for n, language in enumerate(("en", "zh", "de", "fr"))
    ]
    with pytest.raises(UsageError, match=r"no two of the 4 rated answers \(to 4 prompts\)") as caught:
        hindsight(backbone, alone, [], replace(CONFIG, relabelling=Relabelling.CHAIN), seed=1)
    assert "--relabelling instruction" in caught.value.hint
    hindsight(backbone, alone, [], CONFIG, seed=1)
