"""How well predictions agree with what people said, as pure functions on plain sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

BINS = 10


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float:
    """Spearman's rank correlation (ties share a rank); 0 when either side is constant."""
    one, other = stats.rankdata(left), stats.rankdata(right)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def area_under_curve(scores: Sequence[float], good: Sequence[bool]) -> float:
    """How often a good one scores above a bad one, a tie counting half; 0.5 when all are good or all are bad."""
    positive = np.asarray(good, dtype=bool)
    count, rest = int(positive.sum()), int((~positive).sum())
    if not count or not rest:
        return 0.5
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * rest))


def slope(predicted: Sequence[float], observed: Sequence[float]) -> float:
    """Least-squares slope of the observed on the predicted: 1 is calibrated, below 1 overconfident; 0 on a constant."""
    x, y = np.asarray(predicted, dtype=float), np.asarray(observed, dtype=float)
    spread = x - x.mean()
    variance = float((spread**2).sum())
    return float((spread * (y - y.mean())).sum() / variance) if variance > 0 else 0.0


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


def calibration(probabilities: Sequence[float], outcomes: Sequence[float]) -> Calibration:
    """Compare at least one probability with its outcome (0 or 1), in ten bins of equal width."""
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
