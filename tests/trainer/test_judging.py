"""Whether a judge knows what it judges, and what the gate makes of one that does not."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hand_made import rollout, scores, side
from rated_workspace import LANGUAGES
from tiny_model import CORPUS

from storage.records import Prompt
from trainer.config import RewardConfig
from trainer.evaluation.gate import (
    BLIND_PAIRS,
    Gain,
    _by_language,
    _judge_gate,
    _language_gate,
    _support_gate,
    measure,
)
from trainer.evaluation.intervals import Interval, mean_interval
from trainer.evaluation.judging import Judge, agreement, centred
from trainer.evaluation.seen import Side, at_equal_length, facts, matched, rests_on, shown
from trainer.examples import Examples, Response, Scored
from trainer.reward import fitting
from trainer.reward.folds import shuffled
from trainer.reward.protocol import ConstantReward


def rated(count: int, languages: int = 2, offset: float = 0.0) -> Examples:
    """Answers whose last token decides their score; with an offset, languages differ in their mean as well."""
    chosen = random.Random(1)
    found = []
    for number in range(count):
        place = number % languages
        prompt = Prompt(f"p{number}", f"{CORPUS[place][:12]} {number}", LANGUAGES[place], "")
        good = chosen.random() < 0.5
        said = (*(chosen.randrange(60, 300) for _ in range(4)), 70 if good else 300)
        found.append(
            Scored(Response(prompt, f"said {number}", said, "v0"), (1.0 if good else -1.0) + place * offset, "a")
        )
    return Examples(scores=found)


@pytest.fixture(scope="module")
def knowing(backbone):
    """A model that learned which answers are good."""
    config = RewardConfig(rank=4, epochs=6, learning_rate=1e-2)
    return fitting.fit(backbone, Examples(scores=rated(120).scores[:80]), config, 0)[0]


def test_a_judge_that_knows_foretells_ratings_it_never_saw(knowing):
    found = agreement(knowing, Examples(scores=rated(120).scores[80:]))
    assert found.low > 0.3
    assert found.n == 40
    assert _judge_gate(Judge(knowing, found))["passed"]


def test_a_judge_of_shuffled_ratings_fails_its_gate(backbone):
    everything = shuffled(rated(120, offset=3.0), 0).scores
    config = RewardConfig(rank=4, epochs=6, learning_rate=1e-2)
    model, _ = fitting.fit(backbone, Examples(scores=everything[:80]), config, 0)
    found = agreement(model, Examples(scores=everything[80:]))
    assert found.low <= 0
    gate = _judge_gate(Judge(model, found))
    assert not gate["passed"]
    assert "rate more answers" in gate["detail"]
    assert BLIND_PAIRS in gate["detail"]


def test_ratings_that_differ_between_languages_alone_are_not_agreed_with(backbone, knowing):
    """Within a language this reward says nothing; between them it says all."""
    unseen = rated(120, offset=3.0).scores[80:]
    by_language = [Scored(one.response, 3.0 * (one.prompt.language == LANGUAGES[1]), "a") for one in unseen]
    found = agreement(knowing, Examples(scores=by_language))
    assert found is None or found.low <= 0
    assert centred([1, 2, 10, 20], ["en", "en", "sw", "sw"]) == [-0.5, 0.5, -5, 5]


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_of_too_few_ratings_no_agreement_is_told(knowing, count):
    assert agreement(knowing, Examples(scores=rated(120).scores[:count])) is None


def test_without_a_judge_of_its_own_the_gate_says_so_and_asks_for_blind_pairs():
    gate = _judge_gate(Judge(ConstantReward(), lacks="25 ratings are too few to fit a judge apart from the reward"))
    assert (gate["gate"], gate["passed"], gate["value"]) == ("judge", False, None)
    assert gate["detail"].startswith("25 ratings are too few to fit a judge")
    assert "rate blind pairs of both versions in Review, and publish by hand" in gate["detail"]
    assert _judge_gate(Judge(ConstantReward()))["passed"], "a table was not fitted to anything"


# --- languages and support -------------------------------------------------------------------------------------------


def by_language(differences: list[float], languages: list[str], unsure: float = 0.0) -> dict[str, Interval]:
    return _by_language(differences, languages, lambda prompts: unsure)


def test_a_language_fails_beyond_the_interval_that_holds_for_all_of_them_together():
    falling = [-1.0, -0.2, -0.9, -0.1, -0.8]  # upper end: below 0 by itself, above it as one of eight
    assert mean_interval(falling).high < 0 < mean_interval(falling, 1 - 0.05 / 8).high
    alone = by_language(falling, ["sw"] * 5)
    assert not _language_gate(alone)["passed"]
    others = [value for _ in range(7) for value in (0.5, 0.6, 0.4, 0.5, 0.6)]
    languages = [*["sw"] * 5, *(language for language in LANGUAGES[:7] for _ in range(5))]
    gate = _language_gate(by_language([*falling, *others], languages))
    assert gate["passed"]
    assert "intervals for 8 languages at once" in gate["detail"]
    gate = _language_gate(by_language([*(value - 1 for value in falling), *others], languages))
    assert not gate["passed"]
    assert gate["value"] < 0


def test_chance_fails_a_language_no_more_often_than_it_should():
    generator = torch.Generator().manual_seed(0)
    languages = [language for language in LANGUAGES[:8] for _ in range(5)]
    failed = 0
    for _ in range(400):
        drawn = torch.randn(40, generator=generator).tolist()
        failed += not _language_gate(by_language(drawn, languages))["passed"]
    assert failed / 400 < 0.05


def test_what_the_judge_does_not_know_of_a_language_widens_its_interval():
    falling = [-1.0, -0.8, -0.9, -1.1, -0.8]
    assert not _language_gate(by_language(falling, ["sw"] * 5))["passed"]
    assert _language_gate(by_language(falling, ["sw"] * 5, unsure=1.0))["passed"]


def test_one_prompt_of_a_language_decides_nothing():
    gate = _language_gate(by_language([-5.0], ["sw"]))
    assert gate["passed"]
    assert gate["value"] is None


@pytest.mark.parametrize(("share", "passed"), [(0.0, True), (0.3, True), (0.4, False), (1.0, False)])
def test_answers_like_none_that_was_rated_are_refused_beyond_a_share(share, passed):
    asked = Prompt("p", "Why?", "en", "")
    said = [rollout(asked, [5, 6]) for _ in range(10)]
    after = Side(said, scores([0.0] * 10, [place < 10 * share for place in range(10)]))
    gate = _support_gate(Side(said, scores([0.0] * 10)), after, 0.3)
    assert (gate["passed"], gate["value"]) == (passed, pytest.approx(share))
    assert "(0% of its parent's); at most 30%" in gate["detail"]


# --- what a gain rests on --------------------------------------------------------------------------------------------

ASKED = [Prompt(f"p{n}", f"Why {n}?", LANGUAGES[n % 3], "") for n in range(20)]


def sides(reward, length_after, ended_after, seed: int = 0) -> tuple[Side, Side]:
    """Two answers a prompt before and after; `reward(tokens, ended, later)` with some noise is what a judge says."""
    chosen = random.Random(seed)

    def one(later: bool) -> Side:
        told = []
        for number, prompt in enumerate(prompt for prompt in ASKED for _ in range(2)):
            tokens = length_after(number) if later else 20 + number % 11
            ended = ended_after(number) if later else number % 4 == 0
            told.append((prompt, tokens, ended, reward(tokens, ended, later) + chosen.gauss(0, 0.1)))
        return side(told)

    return one(False), one(True)


def gain_of(before: Side, after: Side) -> Gain:
    return measure(Judge(ConstantReward()), before, after, 2)


def same_length(number: int) -> int:
    return 20 + number % 11


def test_a_gain_in_whatever_finished_answers_are_given_rests_on_finishing():
    before, after = sides(lambda tokens, ended, later: 2.0 * ended, same_length, lambda n: n % 4 != 0)
    found = gain_of(before, after)
    assert found.total.low > 0.5
    assert found.matched.high < 0.2
    assert found.rests_on == "finishing"


def test_a_gain_where_all_now_end_and_hardly_any_did_rests_on_finishing():
    before, after = sides(lambda tokens, ended, later: 2.0 * ended, same_length, lambda n: True)
    assert gain_of(before, after).rests_on == "finishing"


def test_a_gain_of_shorter_answers_where_shorter_is_better_rests_on_length():
    before, after = sides(lambda tokens, ended, later: -0.1 * tokens, lambda n: 10 + n % 9, lambda n: n % 4 == 0)
    found = gain_of(before, after)
    assert found.total.low > 0.5
    assert found.rests_on == "length"


def test_a_gain_of_what_is_said_rests_on_nothing_else():
    before, after = sides(lambda tokens, ended, later: 1.0 * later, lambda n: 16 + n % 13, lambda n: n % 3 == 0)
    found = gain_of(before, after)
    assert found.total.low > 0.5
    assert found.rests_on == ""


def test_no_gain_rests_on_anything():
    before, after = sides(lambda tokens, ended, later: -1.0 * later, same_length, lambda n: True)
    assert gain_of(before, after).rests_on == ""
    assert rests_on(Interval(1.0, -0.1, 2.1, 9), matched(before, after), None) == ""


def test_answers_of_one_length_leave_nothing_to_tell_by_length():
    before, after = sides(lambda tokens, ended, later: 1.0 * later, lambda n: 20, lambda n: n % 4 == 0)
    same = side([(one.prompt, 20, True, 0.0) for one in before.rollouts])
    assert at_equal_length(same, same) is None
    assert at_equal_length(before, after).mean == pytest.approx(1.0, abs=0.2)


def test_rewards_that_are_not_finite_end_in_no_crash_and_no_gain():
    for bad in (math.nan, math.inf, -math.inf):
        before, after = sides(lambda tokens, ended, later, bad=bad: bad if later else 0.0, same_length, lambda n: True)
        found = gain_of(before, after)
        assert not found.total.low > 0


def test_facts_and_answers_are_those_of_the_two_sides():
    before, after = sides(lambda tokens, ended, later: 1.0 * later, lambda n: 10, lambda n: True)
    found = facts(before, after)
    assert found["length_before"] == pytest.approx(sum(20 + n % 11 for n in range(40)) / 40)
    assert (found["length_after"], found["finished_before"], found["finished_after"]) == (10, 0.25, 1.0)
    assert (found["outside_support_before"], found["outside_support"]) == (0, 0)
    kept = shown(before, after, 2)
    assert len(kept) == 6
    assert [one["language"] for one in kept] == [*sorted(LANGUAGES[:3])] * 2, "languages in turn"
    assert len({one["prompt"] for one in kept}) == 6
    assert all((one["tokens_after"], one["finished_after"]) == (10, True) for one in kept)
    assert all(one["before"] and one["reward_before"] < one["reward_after"] for one in kept)


# --- shorter is better by accident -----------------------------------------------------------------------------------


def test_answers_far_shorter_than_the_rated_ones_gain_nothing_and_are_refused(backbone):
    """By accident every good answer ends in one token; a candidate that says that token alone is sure of its reward."""
    chosen = random.Random(3)
    rows = []
    for number in range(60):
        good = number % 2 == 0
        said = (*(chosen.randrange(60, 300) for _ in range(15)), 70 if good else 300)
        prompt = Prompt(f"p{number}", f"Why {number}?", "en", "")
        rows.append((Response(prompt, f"{number}", said, "v0"), 1.0 if good else -1.0))
    learned, others = rows[:40], rows[40:]
    examples = Examples(scores=[Scored(answer, value, "a") for answer, value in learned])
    model, _ = fitting.fit(backbone, examples, RewardConfig(rank=4, epochs=6, learning_rate=1e-2), 0)
    encoded = [(backbone.tokenizer.encode_prompt(answer.prompt.text), list(answer.token_ids)) for answer, _ in rows]
    model.normalise(*zip(*encoded, strict=True), ["en"] * len(encoded))
    rewards, deviations = model.score_with_uncertainty(*zip(*encoded, strict=True), ["en"] * len(encoded))
    from trainer.reward.support import Support

    model.support = Support.of([16] * 60, ["en"] * 60, rewards.tolist(), deviations[40:].tolist())
    model.caution = 1.0
    asked = [(answer.prompt, tokens) for (answer, _), (tokens, _) in zip(others, encoded[40:], strict=True)]
    usual = [rollout(prompt, [*range(60, 75), 300], asked=tokens) for prompt, tokens in asked]
    short = [rollout(prompt, [70, 2], asked=tokens) for prompt, tokens in asked]
    before, after = Side(usual, model.rate(usual)), Side(short, model.rate(short))
    found = measure(Judge(model), before, after, 1)
    gate = _support_gate(before, after, 0.3)
    assert not gate["passed"]
    assert gate["value"] == 1.0
    lost = before.scores.plain.mean() - before.scores.rewards.mean()
    assert after.scores.plain.mean() - after.scores.rewards.mean() > lost + 3, "two answers of a reward apart, at least"
    assert found.total.low <= 0
    good = [rollout(prompt, [*range(60, 75), 70], asked=tokens) for prompt, tokens in asked]
    better = Side(good, model.rate(good))
    assert measure(Judge(model), before, better, 1).total.mean > 0.5, "what was rated is still told apart"
    assert not better.outside
