"""The gain with finishing taken out, on made-up answers whose gain is known."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from trainer.evaluation.matched import matched_gain

PROMPTS, ANSWERS = 50, 4
UNITS = [f"prompt {place // ANSWERS}" for place in range(PROMPTS * ANSWERS)]


def side(generator, finishing: float, shift: float = 0.0, bonus: float = 1.0):
    """(ended, values) of answers of which so many end; ending is worth `bonus`, and all is `shift` better."""
    ended = generator.random(len(UNITS)) < finishing
    return ended, shift + bonus * ended + generator.normal(0, 0.3, len(UNITS))


def test_answers_that_only_finish_more_often_gain_nothing():
    generator = np.random.default_rng(0)
    found = matched_gain(UNITS, *side(generator, 0.22), *side(generator, 0.8))
    assert found.mean == pytest.approx(0, abs=0.12)
    assert found.low <= 0 <= found.high
    assert found.n == PROMPTS
    assert found.reason is None


def test_a_gain_within_the_strata_is_recovered_whatever_finishing_does():
    generator = np.random.default_rng(1)
    found = matched_gain(UNITS, *side(generator, 0.3), *side(generator, 0.7, shift=0.5))
    assert found.mean == pytest.approx(0.5, abs=0.1)
    assert 0 < found.low < 0.5 < found.high


def test_unequal_gains_are_weighted_by_the_share_of_each_stratum():
    units = list(range(8))
    ended = [True] * 2 + [False] * 6
    found = matched_gain(units, ended, [0.0] * 8, ended, [4.0] * 2 + [1.0] * 6, fewest=1)
    assert found.mean == pytest.approx(0.25 * 4 + 0.75 * 1)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(2)
    runs = 200
    units = [place // 4 for place in range(48)]
    missed = 0
    for run in range(runs):
        ended = [generator.random(48) < share for share in (0.3, 0.6)]
        habits = np.repeat(generator.normal(0, 0.3, 12), 4)
        values = [habits + one + generator.normal(0, 0.7, 48) for one in ended]
        found = matched_gain(units, ended[0], values[0], ended[1], values[1], draws=300, seed=run)
        missed += not found.low <= 0 <= found.high
    assert missed / runs < 0.10


def test_a_stratum_on_one_side_alone_is_left_out_and_told():
    generator = np.random.default_rng(3)
    found = matched_gain(UNITS, *side(generator, 0.4), np.ones(len(UNITS), bool), np.full(len(UNITS), 2.0))
    assert found.mean == pytest.approx(1.0, abs=0.1)
    assert "only answers that ended are compared" in found.reason
    assert "0 answers after" in found.reason


def test_nothing_is_told_where_all_ended_on_one_side_and_none_on_the_other():
    found = matched_gain([1, 2], [False, False], [1.0, 1.0], [True, True], [2.0, 2.0], fewest=1)
    assert (found.mean, found.low, found.high) == (None, None, None)
    assert "nothing can be compared" in found.reason
    assert str(found) == found.reason


def test_answers_of_one_kind_alone_need_no_excuse():
    found = matched_gain([1, 2, 3], [True] * 3, [1.0] * 3, [True] * 3, [1.5] * 3, fewest=1)
    assert (found.mean, found.low, found.high, found.reason) == (0.5, 0.5, 0.5, None)


def test_one_prompt_gives_no_bound():
    found = matched_gain(["a", "a"], [True] * 2, [1.0, 1.0], [True] * 2, [2.0, 2.0], fewest=1)
    assert (found.mean, found.low, found.high, found.n) == (1.0, -np.inf, np.inf, 1)


def test_no_draw_is_heavier_than_numpy():
    code = "import trainer.evaluation.matched, sys; assert not {'torch', 'scipy', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
