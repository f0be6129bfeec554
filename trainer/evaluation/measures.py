"""How well predictions agree with what people said, as pure functions on plain sequences.

A figure that its inputs do not determine (of nothing, of one, of values that are all alike) is None, never a number
that looks like one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BINS = 10


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's rank correlation (ties share a rank); None when either side is constant or not finite."""
    if len(left) < 2 or not np.isfinite(left).all() or not np.isfinite(right).all():
        return None
    one, other = stats.rankdata(left), stats.rankdata(right)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(np.corrcoef(one, other)[0, 1])


def area_under_curve(scores: Sequence[float], good: Sequence[bool]) -> float | None:
    """How often a good one scores above a bad one, a tie counting half; None when all are good or all are bad."""
    positive = np.asarray(good, dtype=bool)
    count, rest = int(positive.sum()), int((~positive).sum())
    if not count or not rest:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * rest))


def slope(predicted: Sequence[float], observed: Sequence[float]) -> float | None:
    """Least-squares slope of the observed on the predicted: 1 is calibrated, below 1 overconfident.

    None where the predictions are all alike, or something is not finite.
    """
    x, y = np.asarray(predicted, dtype=float), np.asarray(observed, dtype=float)
    if len(x) < 2 or not np.isfinite([x, y]).all() or np.ptp(x) == 0:  # (a variance may be rounded away from 0)
        return None
    spread = x - x.mean()
    found = float((spread * (y - y.mean())).sum() / (spread**2).sum())
    return found if math.isfinite(found) else None


@dataclass(frozen=True)
class Bin:
    """Predictions between two probabilities: how many, their mean, and how often it came true."""

    low: float
    high: float
    n: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say, over `n` predictions.

    Attributes:
        brier: mean squared error of the probabilities; 0.25 is what always saying 0.5 gives.
        expected_error: expected calibration error, `sum(n_bin / n * |predicted - observed|)` (Naeini et al. 2015).
        bins: those that hold a prediction.
    """

    brier: float
    expected_error: float
    n: int
    bins: list[Bin]


def calibration(probabilities: Sequence[float], outcomes: Sequence[float]) -> Calibration | None:
    """Compare probabilities with their outcomes (0 or 1), in ten bins of equal width; None where there are none."""
    if not len(probabilities):
        return None
    p, y = np.asarray(probabilities, dtype=float), np.asarray(outcomes, dtype=float)
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    bins = []
    for number in range(BINS):
        chosen = place == number
        if chosen.any():
            found = float(p[chosen].mean()), float(y[chosen].mean())
            bins.append(Bin(number / BINS, (number + 1) / BINS, int(chosen.sum()), *found))
    error = sum(part.n * abs(part.predicted - part.observed) for part in bins) / len(p)
    return Calibration(float(((p - y) ** 2).mean()), error, len(p), bins)
