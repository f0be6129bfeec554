"""Anytime-valid intervals for the mean of bounded observations: one may look after each and stop when one likes.

One gambler bets on each observation, before it is seen, that the mean is above m, another that it is below. Under a
mean of m the capital of neither grows in expectation, so that it ever reaches 2/alpha with a probability of at most
alpha/2. The interval is all m at which neither got that far.

Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting (JRSS B, 2024): the hedged
capital with predictable plug-in bets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ALPHA = 0.05
_MOST = 0.5  # the share of the capital that is staked at most
_STEPS = 40  # halvings of the interval in which a bound is looked for


@dataclass(frozen=True)
class Bounded:
    """The mean of observations in [0, 1] and its interval; with no observation it is 0.5 in [0, 1]."""

    mean: float
    low: float
    high: float
    n: int


def interval(observations: Sequence[float], alpha: float = ALPHA) -> Bounded:
    """The confidence sequence at its present length: its coverage holds for all lengths at once.

    Raises:
        ValueError: an observation outside [0, 1].
    """
    if any(not 0 <= one <= 1 for one in observations):
        raise ValueError("observations must lie in [0, 1]")
    if not observations:
        return Bounded(0.5, 0.0, 1.0, 0)
    bets = _bets(observations, alpha)
    mean = sum(observations) / len(observations)
    low = _edge(observations, bets, alpha)
    mirrored = [1 - one for one in observations]
    return Bounded(mean, low, 1 - _edge(mirrored, bets, alpha), len(observations))


def more_needed(
    found: Bounded, observations: Sequence[float], against: float = 0.5, alpha: float = ALPHA
) -> int | None:
    """How many more observations would settle on which side of `against` the mean is, if they come as those so far.

    It is what a gambler of the best constant bet would need, and so rather few than many. None where they say nothing:
    their mean is `against`, or there are fewer than ten.
    """
    if found.n < 10 or found.mean == against:
        return None
    gains = [one - against if found.mean > against else against - one for one in observations]

    def growth(stake: float) -> float:
        return sum(math.log1p(stake * gain) for gain in gains) / len(gains)

    best = max(growth(step / 100 * 0.99 / max(against, 1 - against)) for step in range(1, 101))
    return max(0, math.ceil(math.log(2 / alpha) / best) - found.n) if best > 0 else None


def _bets(observations: Sequence[float], alpha: float) -> list[float]:
    """What is staked on each observation, by those before it: more the less they vary and the fewer they are."""
    made, total, spread = [], 0.5, 0.25
    for before, one in enumerate(observations):
        variance = spread / (before + 1)
        made.append(math.sqrt(2 * math.log(2 / alpha) / (variance * (before + 1) * math.log(before + 2))))
        total += one
        spread += (one - total / (before + 2)) ** 2
    return made


def _edge(observations: Sequence[float], bets: Sequence[float], alpha: float) -> float:
    """The lower bound: the largest m at which betting on more than m has won 2/alpha. It wins less the larger m is."""

    def won(mean: float) -> bool:
        capital = 0.0
        for one, bet in zip(observations, bets, strict=True):
            capital += math.log1p(min(bet, _MOST / mean if mean else math.inf) * (one - mean))
        return capital >= math.log(2 / alpha)

    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if won(middle) else (low, middle)
    return low
