"""Intervals over seeds and prompts at once, against answers that are known."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from benchmarks.crossed import crossed_interval
from trainer.evaluation.intervals import mean_interval


def over(values: np.ndarray):
    """The interval of the mean of values by seed and prompt."""
    return crossed_interval(
        range(values.shape[0]),
        range(values.shape[1]),
        lambda seeds, prompts: float(values[np.ix_(seeds, prompts)].mean()),
    )


def test_of_one_seed_it_is_students_interval_over_prompts():
    values = np.random.default_rng(0).normal(size=(1, 9))
    found, known = over(values), mean_interval(values[0].tolist())
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((known.mean, known.low, known.high, 9))


def test_where_seeds_alone_differ_it_is_students_interval_over_seeds():
    seeds = [0.1, 0.4, 1.0]
    found, known = over(np.tile(np.array(seeds)[:, None], (1, 50))), mean_interval(seeds)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


def test_it_holds_the_mean_of_all_seeds_and_prompts_as_often_as_it_says():
    generator = np.random.default_rng(1)
    held = []
    for _ in range(600):
        values = generator.normal(0, 0.3, (3, 1)) + generator.normal(0, 0.6, (1, 30)) + generator.normal(0, 1, (3, 30))
        found = over(values)
        held.append(found.low <= 0 <= found.high)
    assert 0.93 <= statistics.fmean(held) <= 0.995


def test_what_cannot_be_told_has_no_interval():
    assert crossed_interval([0], [0, 1], lambda seeds, prompts: None) is None
    alone = crossed_interval([0, 1], [0], lambda seeds, prompts: 1.0)
    assert alone.mean == 1.0
    assert alone.bounds is None
    fewer = crossed_interval([0, 1], [0, 1], lambda seeds, prompts: 1.0 if len(seeds) == 2 else None)
    assert math.isinf(fewer.high)
    assert over(np.ones((2, 3))).bounds == (1.0, 1.0)
