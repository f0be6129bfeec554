"""The report of a fit: every figure by hand on a few ratings, and what is said where there are too few."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from storage.records import Prompt
from trainer.evaluation.intervals import bootstrap_interval, mean_interval
from trainer.evaluation.measures import area_under_curve, calibration, rank_correlation, slope
from trainer.examples import Habit, Labelled, Pair, Response, Scored
from trainer.reward.effects import RatingEffects
from trainer.reward.measure import measure

LANGUAGES = ("es", "ar", "zh")


# --- measures --------------------------------------------------------------------------------------------------------


def test_rank_correlation_is_spearmans():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 40, 400]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24).
    assert rank_correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)
    # Ties share a rank: 1.5 1.5 3 and 1 2 3.
    assert rank_correlation([0, 0, 1], [1, 2, 3]) == pytest.approx(math.sqrt(3) / 2)


def test_the_area_under_the_curve_counts_pairs_in_order():
    assert area_under_curve([0.1, 0.4, 0.35, 0.8], [False, False, True, True]) == pytest.approx(3 / 4)
    assert area_under_curve([1, 1], [True, False]) == 0.5


def test_calibration_compares_what_was_said_with_what_came():
    # Nine of ten at 0.9 come true, and of ten at 0.35 two do.
    found = calibration([0.9] * 10 + [0.35] * 10, [1] * 9 + [0] + [1] * 2 + [0] * 8)
    assert [(part.low, part.n) for part in found.bins] == [(0.3, 10), (0.9, 10)]
    assert found.bins[0].observed == pytest.approx(0.2)
    assert found.expected_error == pytest.approx((0 + 0.15) / 2)
    assert found.brier == pytest.approx((9 * 0.01 + 0.81 + 2 * 0.65**2 + 8 * 0.35**2) / 20)
    assert found.n == 20
    assert calibration([1.0], [1]).bins[0].high == 1


def test_the_slope_tells_overconfidence():
    assert slope([-2, 0, 2], [-1, 0, 1]) == pytest.approx(0.5)


def test_the_bootstrap_of_a_mean_is_about_students_and_draws_whole_units():
    values = torch.randn(80, generator=torch.Generator().manual_seed(0)).tolist()
    plain = bootstrap_interval(range(80), lambda rows: sum(values[row] for row in rows) / len(rows))
    exact = mean_interval(values)
    assert (plain.low, plain.high) == pytest.approx((exact.low, exact.high), abs=0.06)
    fourfold = [value for value in values for _ in range(4)]  # says nothing that the 80 did not say
    units = [unit for unit in range(80) for _ in range(4)]
    grouped = bootstrap_interval(units, lambda rows: sum(fourfold[row] for row in rows) / len(rows))
    assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high), abs=1e-9)
    assert grouped.n == 80
    assert bootstrap_interval(["p", "p"], lambda rows: 0.5).high == math.inf


# --- the report ------------------------------------------------------------------------------------------------------


def response(number: int, text: str = "") -> Response:
    language = LANGUAGES[number % 3]
    return Response(Prompt(f"p{number}", f"¿{number}?", language, ""), text or f"respuesta {number}", None, None)


def reported(kept, rewards, effects=None, tokens=None, learned=()):
    effects = effects or RatingEffects.of(kept, 10)
    return measure(learned, kept, rewards, tokens or dict.fromkeys(rewards, 5), effects, 0.5)


def test_scores_are_told_with_correlation_slope_and_noise():
    answers = [response(number) for number in range(12)]
    kept = [Scored(answer, float(number), "amina") for number, answer in enumerate(answers)]
    found = reported(kept, {answer: 2.0 * number for number, answer in enumerate(answers)})
    assert (found.spearman, found.spearman_n) == (pytest.approx(1), 12)
    assert found.spearman_interval == pytest.approx((1, 1))
    assert found.score_slope == pytest.approx(0.5), "rewards are twice too far apart"
    assert found.score_noise == pytest.approx(sum(number**2 for number in range(12)) / 12)
    assert found.languages["es"].agreement.spearman is None, "four scores are too few"
    assert found.languages["es"].agreement.spearman_n == 4
    assert found.pair_accuracy is found.label_auc is found.pair_calibration is None


def test_pairs_are_told_with_accuracy_and_calibration_that_knows_side_and_length():
    pairs, rewards = [], {}
    for number in range(8):
        one, other = response(number, "primera"), response(number, "otra")
        rewards |= {one: 1.0 if number < 6 else -1.0, other: 0.0}
        pairs.append(Pair(one, other, 1.0, "juma", first_left=True))
    pairs.append(Pair(response(0, "primera"), response(0, "otra"), 0.5, "juma"))
    effects = RatingEffects([Habit("juma")], 10)
    with torch.no_grad():
        effects.side[0], effects.bend[0] = 0.5, math.log(2)
        effects.gamma.fill_(0.25)
    tokens = {answer: 8 if answer.text == "primera" else 4 for answer in rewards}
    found = reported(pairs, rewards, effects, tokens, pairs)
    assert (found.pair_accuracy, found.pair_n) == (6 / 8, 8), "a tie is neither right nor wrong"
    low, high = found.pair_accuracy_interval
    assert 0.3 < low < 0.75 < high <= 1
    likely, unlikely = (1 / (1 + math.exp(-(2 * sign + 0.5 + 0.25 * math.log(2)))) for sign in (1, -1))
    assert found.pair_calibration.brier == pytest.approx((6 * (1 - likely) ** 2 + 2 * (1 - unlikely) ** 2) / 8)
    assert found.pair_calibration.n == 8
    assert found.gamma == pytest.approx(0.25)
    assert found.length_n == 16
    assert found.length_correlation > 0.3
    juma = found.raters["juma"]
    assert (juma.gain, juma.side, juma.learned) == (pytest.approx(2), 0.5, 9)
    assert (juma.agreement.pair_accuracy, juma.agreement.pair_n) == (6 / 8, 8)


def test_labels_are_told_with_the_raters_leniency_and_area():
    answers = [response(number) for number in range(10)]
    kept = [Labelled(answer, number >= 2, 1.0, "lenient") for number, answer in enumerate(answers)]
    effects = RatingEffects([Habit("lenient")], 10)
    with torch.no_grad():
        effects.leniency[0] = 3.5
    found = reported(kept, {answer: number - 5.0 for number, answer in enumerate(answers)}, effects)
    assert (found.label_accuracy, found.label_n) == (1, 10)
    assert found.label_auc == 1
    assert found.label_calibration.n == 10
    assert "label accuracy 100% [100%, 100%] (n 10)" in found.sentence()


def test_languages_are_compared_by_reward_and_agreement():
    answers = [response(number) for number in range(15)]
    rewards = {answer: float(number % 3) + number / 100 for number, answer in enumerate(answers)}
    kept = [Scored(answer, rewards[answer], "amina") for answer in answers]
    found = reported(kept, rewards)
    assert {language: part.answers for language, part in found.languages.items()} == dict.fromkeys(LANGUAGES, 5)
    assert found.languages["zh"].reward == pytest.approx(2.08)
    assert found.languages["ar"].agreement.spearman == pytest.approx(1)
    assert found.language_spread == pytest.approx(math.sqrt(2 / 3), abs=0.01)


def test_other_attributes_count_for_their_raters_alone():
    answers = [response(number) for number in range(6)]
    rewards = {answer: float(number) for number, answer in enumerate(answers)}
    kept = [Scored(answer, rewards[answer], "amina") for answer in answers]
    kept += [Scored(answer, -rewards[answer], "amina", "polite") for answer in answers]
    found = reported(kept, rewards, learned=kept[:8])
    assert (found.spearman, found.spearman_n, found.held_out) == (pytest.approx(1), 6, 12)
    assert found.raters["amina (polite)"].agreement.spearman == pytest.approx(-1)
    assert (found.raters["amina"].learned, found.raters["amina (polite)"].learned) == (6, 2)


def test_answers_to_a_prompt_are_compared_where_one_rater_tells_them_apart():
    """Two prompts: amina scores a > b = c and juma b > a of one; of the other a pair and two labels."""
    first, second = Prompt("p1", "¿1?", "es", ""), Prompt("p2", "¿2?", "es", "")
    a, b, c = (Response(first, text, None, None) for text in "abc")
    d, e = (Response(second, text, None, None) for text in "de")
    kept = [Scored(a, 2.0, "amina"), Scored(b, 0.0, "amina"), Scored(c, 0.0, "amina"), Scored(b, 1.0, "juma")]
    kept += [Scored(a, 0.5, "juma"), Pair(d, e, 1.0, "amina"), Pair(d, e, 0.5, "juma")]
    kept += [Labelled(d, True, 1.0, "juma"), Labelled(e, False, 1.0, "juma"), Scored(c, 9.0, "amina", "polite")]
    found = reported(kept, {a: 3.0, b: 1.0, c: 3.0, d: 0.0, e: -1.0})
    # amina: a over b is right, a over c equal; juma: b over a is wrong; the pair and the labels are right.
    assert (found.within_prompt_accuracy, found.within_prompt_n) == (pytest.approx(3.5 / 5), 5)
    assert found.within_prompt_prompts == 2
    assert found.sentence().startswith("learned from 0, held out 10, better of two answers to a prompt 70%")


def test_levels_of_prompts_are_compared_within_their_language():
    rewards, kept = {}, []
    for number in range(12):
        language, level = ("es", number) if number < 6 else ("sw", 100 + number)
        prompt = Prompt(f"p{number}", f"{number}?", language, "")
        for answer in range(2):
            response = Response(prompt, f"{answer}", None, None)
            rewards[response] = -float(number) + answer  # languages apart, and within them the other way round
            kept.append(Scored(response, level + 10.0 * answer, "amina"))
    kept.append(Scored(Response(Prompt("alone", "?", "hi", ""), "", None, None), 50.0, "amina"))
    rewards[kept[-1].response] = -50.0
    found = reported(kept, rewards)
    assert (found.between_prompts_spearman, found.between_prompts_n) == (pytest.approx(-1), 12)
    assert found.within_prompt_accuracy == 1
    assert found.between_prompts_spearman_interval == pytest.approx((-1, -1))


def test_with_nothing_held_out_nothing_is_claimed():
    found = measure([Scored(response(0), 1.0, "amina")], [], {}, {}, RatingEffects([Habit("amina")], 1), 0.25)
    assert found.sentence() == "learned from 1, held out 0"
    assert found.spearman is found.language_spread is found.length_correlation is None
    assert found.score_noise is found.gamma is None
    assert found.reasons["score_noise"] == "0 scores were held out, 10 are needed"
    assert found.reasons["gamma"] == "no pair was learned from"
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_one_prompt_gives_no_interval():
    prompt = Prompt("p", "为什么？", "zh", "")
    answers = [Response(prompt, f"{number}", None, None) for number in range(6)]
    rewards = {answer: float(number) for number, answer in enumerate(answers)}
    found = reported([Scored(answer, rewards[answer], "amina") for answer in answers], rewards)
    assert (found.spearman, found.spearman_interval) == (pytest.approx(1), None)
    assert found.sentence().endswith("rank correlation +1.00 (n 6, no interval: 1 prompt)")
    json.dumps(dataclasses.asdict(found), allow_nan=False)
