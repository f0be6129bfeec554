"""Which ratings teach the reward and which the judge, and ratings that say nothing any more."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rated_workspace import LANGUAGES

from storage.records import Prompt
from trainer.config import Control
from trainer.examples import Examples, Labelled, Pair, Response, Scored
from trainer.reward.folds import FEWEST_JUDGED, controlled, folds, shuffled, without


def scored(prompts: int, languages: int = 1, each: int = 2) -> Examples:
    """Answers of mounting scores to prompts that take turns among languages."""
    found = []
    for number in range(prompts):
        prompt = Prompt(f"p{number}", f"Why {number}?", LANGUAGES[number % languages], "")
        found += [
            Scored(Response(prompt, f"{number} {n}", None, None), float(number + n), "amina") for n in range(each)
        ]
    return Examples(scores=found, rating_ids=["r"])


def prompts_of(examples: Examples) -> set[str]:
    return {example.prompt.id for example in examples.every()}


@pytest.mark.parametrize("share", [0.2, 0.4, 0.5])
def test_no_prompt_teaches_both_and_none_is_lost(share):
    examples = scored(60, languages=3)
    learned, judged = folds(examples, share, 20)
    assert not prompts_of(learned) & prompts_of(judged)
    assert sorted(map(id, [*learned.every(), *judged.every()])) == sorted(map(id, examples.every()))
    assert len(prompts_of(judged)) == share * 60


def test_the_order_in_which_ratings_came_makes_no_difference():
    examples = scored(30)
    turned = Examples(scores=examples.scores[::-1])
    assert prompts_of(folds(examples, 0.4, 20)[1]) == prompts_of(folds(turned, 0.4, 20)[1])


def test_every_language_gives_its_share_and_many_small_ones_give_theirs_together():
    for languages, prompts in ((3, 60), (10, 60), (10, 20)):
        learned, judged = folds(scored(prompts, languages, each=4), 0.4, 20)
        told = Counter(example.prompt.language for example in judged.scores)
        assert len(prompts_of(judged)) == 0.4 * prompts
        most, least = max(told.values()), min(told.get(language, 0) for language in LANGUAGES[:languages])
        assert (most - least) // 4 <= 1
        assert {example.prompt.language for example in learned.scores} == set(LANGUAGES[:languages])


def test_all_kinds_of_ratings_of_a_prompt_go_the_same_way():
    examples = scored(40)
    answers = [one.response for one in examples.scores]
    examples.labels = [Labelled(answer, True) for answer in answers]
    examples.pairs = [Pair(one, other, 1.0) for one, other in zip(answers[::2], answers[1::2], strict=True)]
    learned, judged = folds(examples, 0.4, 20)
    for part in (learned, judged):
        kinds = [{one.prompt.id for one in found} for found in (part.scores, part.labels, part.pairs)]
        assert kinds[0] == kinds[1] == kinds[2]


@pytest.mark.parametrize(("prompts", "share", "minimum"), [(14, 0.4, 20), (15, 0.4, 20), (40, 0.1, 20), (40, 0.0, 20)])
def test_too_few_ratings_make_no_judge_and_all_of_them_teach(prompts, share, minimum):
    examples = scored(prompts)
    learned, judged = folds(examples, share, minimum)
    assert learned is examples
    assert judged.count() == 0


def test_the_fewest_that_make_a_judge():
    assert folds(scored(15, each=2), 0.4, 18)[1].count() == FEWEST_JUDGED
    assert folds(scored(15, each=2), 0.4, 19)[1].count() == 0


def test_without_some_prompts_the_others_are_left():
    examples = scored(4)
    assert prompts_of(without(examples, {"p1", "p3", "unknown"})) == {"p0", "p2"}
    assert without(examples, set()).every() == examples.every()
    assert without(examples, prompts_of(examples)).count() == 0


# --- a control -------------------------------------------------------------------------------------------------------


@st.composite
def ratings(draw) -> Examples:
    """Ratings of every kind in up to three languages; no two answers are the same."""
    prompts = [
        Prompt(f"p{n}", "Why?", draw(st.sampled_from(LANGUAGES[:3])), "") for n in range(draw(st.integers(1, 8)))
    ]
    count = draw(st.integers(1, 20))
    answers = [Response(draw(st.sampled_from(prompts)), f"said {n}", None, None) for n in range(2 * count)]
    values, raters = st.floats(-2, 2), st.sampled_from(["amina", "juma"])
    labels = [Labelled(one, draw(st.booleans()), 1.0, draw(raters)) for one in answers[:count]]
    pairs = []
    for one, other in zip(answers[::2], answers[1::2], strict=True):
        second = Response(one.prompt, other.text, None, None)
        wins, left = draw(st.sampled_from([0.0, 0.5, 1.0])), draw(st.sampled_from([None, True, False]))
        pairs.append(Pair(one, second, wins, draw(raters), left))
    return Examples([Scored(one, draw(values), draw(raters)) for one in answers], labels, pairs, ["r1", "r2"])


@settings(max_examples=60, deadline=None)
@given(ratings(), st.integers(0, 5))
def test_shuffled_ratings_are_the_same_ones_of_the_same_answers(examples, seed):
    found = shuffled(examples, seed)
    assert found.rating_ids == examples.rating_ids
    assert [one.response for one in found.scores] == [one.response for one in examples.scores]
    assert [one.response for one in found.labels] == [one.response for one in examples.labels]
    sides = [({one.first, one.second}, one.prompt) for one in found.pairs]
    assert sides == [({one.first, one.second}, one.prompt) for one in examples.pairs]

    def told(some: Examples) -> dict[str, Counter]:
        by_language: dict[str, Counter] = defaultdict(Counter)
        for score in some.scores:
            by_language[score.prompt.language]["score", score.value, score.rater] += 1
        for label in some.labels:
            by_language[label.prompt.language]["label", label.good, label.weight, label.rater] += 1
        for pair in some.pairs:
            by_language[pair.prompt.language]["pair", pair.first_wins == 0.5] += 1
        return by_language

    assert told(found) == told(examples)
    assert shuffled(examples, seed) == found, "the same seed, the same control"


def test_shuffled_ratings_tell_nothing_of_the_answers():
    examples = scored(200, each=1)
    values = [one.value for one in examples.scores]
    found = [one.value for one in shuffled(examples, 0).scores]
    assert sorted(found) == values
    assert abs(correlation(values, found)) < 0.2
    assert found != [one.value for one in shuffled(examples, 1).scores]


def test_a_shuffled_preference_is_a_toss_up_whoever_stood_first():
    """Winners always stand first, as edits do: permuting alone would give the same pairs back."""
    prompt = Prompt("p", "Why?", "en", "")
    pairs = [
        Pair(Response(prompt, f"good {n}", None, None), Response(prompt, f"bad {n}", None, None), 1.0, "amina", True)
        for n in range(400)
    ]
    found = shuffled(Examples(pairs=pairs), 3).pairs
    won = sum((pair.first if pair.first_wins else pair.second).text.startswith("good") for pair in found)
    assert 160 <= won <= 240
    stood = [pair for pair in found if pair.first_left]
    assert all(pair.first_left == pair.first.text.startswith("good") for pair in found), "each stands where it stood"
    assert 0 < len(stood) < 400


def test_only_the_shuffled_control_changes_what_was_rated():
    examples = scored(20)
    assert controlled(examples, Control.NONE, 1) is controlled(examples, Control.CONSTANT, 1) is examples
    assert controlled(examples, Control.SHUFFLED, 1) == shuffled(examples, 1) != examples


def correlation(one: list[float], other: list[float]) -> float:
    import numpy as np

    return float(np.corrcoef(one, other)[0, 1])


def test_the_correlation_that_is_destroyed_would_have_been_seen():
    chosen = random.Random(0)
    values = [chosen.random() for _ in range(200)]
    assert correlation(values, values) > 0.99
