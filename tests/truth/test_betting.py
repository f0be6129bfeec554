"""Intervals that hold however often one looks: their coverage, their power, and what they say where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from storage.feedback import betting
from storage.feedback.betting import interval, more_needed

RATERS, LOOKS = 2000, 200


def ever_wrong(values: np.ndarray, mean: float, alpha: float = betting.ALPHA) -> np.ndarray:
    """For each row of observations, whether the interval missed `mean` at any length: computed apart, at that mean."""
    log = np.zeros((2, len(values)))
    missed = np.zeros(len(values), dtype=bool)
    total, spread = np.full(len(values), 0.5), np.full(len(values), 0.25)
    for before in range(values.shape[1]):
        one = values[:, before]
        bet = np.sqrt(2 * math.log(2 / alpha) / (spread / (before + 1) * (before + 1) * math.log(before + 2)))
        log[0] += np.log1p(np.minimum(bet, 0.5 / mean) * (one - mean))
        log[1] += np.log1p(np.minimum(bet, 0.5 / (1 - mean)) * (mean - one))
        missed |= log.max(0) >= math.log(2 / alpha)
        total = total + one
        spread = spread + (one - total / (before + 2)) ** 2
    return missed


@pytest.mark.parametrize(("mean", "ties"), [(0.5, 0.0), (0.5, 0.4), (0.62, 0.0), (0.2, 0.1)])
def test_raters_who_look_after_every_pair_are_misled_less_often_than_stated(mean: float, ties: float):
    generator = np.random.default_rng(7)
    drawn = generator.random((RATERS, LOOKS))
    win = mean - ties / 2
    values = np.where(drawn < win, 1.0, np.where(drawn < win + ties, 0.5, 0.0))
    assert ever_wrong(values, mean).mean() < betting.ALPHA


def test_the_interval_is_where_neither_gambler_has_won():
    generator = np.random.default_rng(3)
    for _ in range(20):
        values = generator.choice([0.0, 0.5, 1.0], size=40, p=[0.2, 0.2, 0.6])
        found = interval(list(values))
        for mean in np.linspace(0.01, 0.99, 99):
            misses = bool(_missed_now(values, float(mean)))
            assert misses == (not found.low < mean < found.high)


def _missed_now(values: np.ndarray, mean: float) -> bool:
    bets = betting._bets(list(values), betting.ALPHA)
    up = sum(math.log1p(min(bet, 0.5 / mean) * (one - mean)) for one, bet in zip(values, bets, strict=True))
    down = sum(math.log1p(min(bet, 0.5 / (1 - mean)) * (mean - one)) for one, bet in zip(values, bets, strict=True))
    return max(up, down) >= math.log(2 / betting.ALPHA)


def test_a_clear_preference_is_found_soon_and_a_slight_one_later():
    """Power: the median number of pairs until the interval leaves one half, over 200 simulated raters."""
    generator = np.random.default_rng(11)
    medians = {}
    for rate in (0.65, 0.75, 0.9):
        values = (generator.random((200, 400)) < rate).astype(float)
        stopped = [
            next((n for n in range(5, 401, 5) if ever_wrong(row[None, :n], 0.5)[0]), math.inf) for row in values[:60]
        ]
        medians[rate] = float(np.median(stopped))
    assert medians[0.9] <= 20
    assert medians[0.75] <= 50
    assert medians[0.65] <= 150
    assert medians[0.9] < medians[0.75] < medians[0.65]


def test_what_cannot_be_told_is_not_told():
    nothing = interval([])
    assert (nothing.low, nothing.high, nothing.n) == (0.0, 1.0, 0)
    assert more_needed(interval([1.0] * 5), [1.0] * 5) is None
    even = [1.0, 0.0] * 10
    assert more_needed(interval(even), even) is None
    with pytest.raises(ValueError, match="must lie in"):
        interval([1.5])


def test_how_many_more_is_about_what_it_takes():
    generator = np.random.default_rng(2)
    values = list((generator.random(600) < 0.62).astype(float))
    first = values[:60]
    more = more_needed(interval(first), first)
    taken = next(n for n in range(60, 600) if interval(values[:n]).low > 0.5)
    assert more is not None
    assert 0.2 * (taken - 60) <= more <= 5 * max(10, taken - 60)


def test_all_wins_reach_what_the_bets_allow():
    found = interval([1.0] * 100)
    assert found.high == pytest.approx(1.0, abs=1e-6)
    assert found.low > 0.9
    assert found.mean == 1.0
