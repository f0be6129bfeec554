"""How many labels a side needs, on curves whose answer is known."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.acquisition import POINTS, compared, labels_for, needed_share


def curve(values: list[float]) -> list[dict]:
    return [{"labels": labels, "accuracy": value, "gain": value} for labels, value in zip(POINTS, values, strict=True)]


def logarithmic(quicker: float, noise: float = 0.0, seed: int = 0) -> list[dict]:
    """Accuracy that grows with the logarithm of the labels; `quicker` times fewer of them give the same."""
    chance = random.Random(seed)
    return curve([0.5 + 0.05 * math.log(labels * quicker) + chance.gauss(0, noise) for labels in POINTS])


def test_between_two_measurements_the_logarithm_of_the_labels_is_interpolated():
    points = logarithmic(1)
    assert labels_for(points, "accuracy", points[2]["accuracy"]) == POINTS[2]
    assert labels_for(points, "accuracy", 0.5 + 0.05 * math.log(60)) == pytest.approx(60)
    assert labels_for(points, "accuracy", 2.0) is None


def test_a_fall_after_a_rise_is_noise():
    points = curve([0.5, 0.6, 0.55, 0.6, 0.7, 0.7, 0.7, 0.7])
    assert labels_for(points, "accuracy", 0.6) == pytest.approx(POINTS[1])


@pytest.mark.parametrize("quicker", [1.0, 1.5])
def test_a_side_that_is_quicker_needs_its_share(quicker):
    runs = [{"random": logarithmic(1), "acquisition": logarithmic(quicker)}]
    share, there = needed_share(runs, "accuracy", 108)
    assert (share, there) == (pytest.approx(1 / quicker), True)


def test_a_side_that_never_gets_there_is_told_of():
    runs = [{"random": logarithmic(1), "acquisition": curve([0.5] * len(POINTS))}]
    assert needed_share(runs, "accuracy", 108) == (pytest.approx(POINTS[-1] / 108), False)


def test_the_interval_over_seeds_holds_the_truth():
    runs = [
        {"random": logarithmic(1, 0.01, seed), "acquisition": logarithmic(1.5, 0.01, 99 + seed)} for seed in range(10)
    ]
    found = compared(runs, "accuracy", 108)
    assert found["low"] < 1 / 1.5 < found["high"]
    assert found["there"]
