"""A gain with finishing taken out: answers that ended are compared with answers that ended, cut ones with cut ones.

A policy that learns to finish gains in whatever a rater likes about finished answers, even where the ratings were
shuffled: the penalty for a missing end pays for it. What is left within the strata no such habit explains. Only numpy
is imported, so that both rooms may ask.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from storage.wording import counted

DRAWS = 2000
# A stratum with fewer answers on one side says nothing about its own spread, and is left out.
FEWEST = 5
# By the truth value of `ended`.
STRATA = ("cut off", "ended")
VERBS = ("were cut off", "ended")
WHEN = ("before", "after")


@dataclass(frozen=True)
class Matched:
    """A gain between answers alike in whether they ended, with the bounds of its 95% interval.

    Attributes:
        mean: in the unit of the values; None, as are the bounds, where no stratum has answers on both sides.
        low: the lower bound; minus infinity with fewer than two units.
        n: independent units (prompts) in all.
        reason: what was left out and why; None where both strata count, or where all answers are of one.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The interval, for documents; None where there is none."""
        if self.low is None or self.high is None or not math.isfinite(self.high - self.low):
            return None
        return self.low, self.high

    def __str__(self) -> str:
        if self.mean is None:
            return self.reason or "unknown"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def matched_gain(
    units: Sequence[Hashable],
    ended_before: Sequence[bool],
    values_before: Sequence[float],
    ended_after: Sequence[bool],
    values_after: Sequence[float],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    fewest: int = FEWEST,
) -> Matched:
    """The mean difference after less before within each stratum (ended, cut off), weighted by the stratum's share.

    This is direct standardisation: both sides are given the same mix of ended and cut answers, that of all of them
    together. The interval is a bootstrap that draws whole units and keeps the weights as they were found; its
    percentiles lie further out than 2.5 and 97.5 where units are few (the expanded percentile interval of Hesterberg
    2015, without which 12 prompts would err in a tenth of all cases).

    Args:
        units: what row i belongs to, before and after alike: its prompt. Rows of one unit are not independent.
        ended_before: whether answer i ended by itself rather than being cut off.
        values_before: what answer i is worth, such as a reward.
        fewest: a stratum counts where each side has this many answers in it.

    Returns:
        The gain. Where a stratum is left out, the other alone decides, and `reason` says so.
    """
    members = {unit: place for place, unit in enumerate(dict.fromkeys(units))}
    rows = np.array([members[unit] for unit in units], dtype=int)
    # (units, side, stratum)
    counts, sums = np.zeros((len(members), 2, 2)), np.zeros((len(members), 2, 2))
    for side, (ended, values) in enumerate(((ended_before, values_before), (ended_after, values_after))):
        strata = np.asarray(ended, dtype=int)
        np.add.at(counts[:, side], (rows, strata), 1.0)
        np.add.at(sums[:, side], (rows, strata), np.asarray(values, dtype=float))
    total = counts.sum(0)
    shared = total.min(0) >= max(1, fewest)
    reason = _left_out(total, shared)
    if not shared.any():
        return Matched(None, None, None, len(members), reason)
    weights = np.where(shared, total.sum(0), 0.0) / total.sum(0)[shared].sum()
    mean = float(_gain(total, sums.sum(0), weights))
    if len(members) < 2:
        return Matched(mean, -np.inf, np.inf, len(members), reason)
    generator = np.random.default_rng(seed)
    chosen = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    drawn = _gain(np.tensordot(chosen, counts, 1), np.tensordot(chosen, sums, 1), weights)
    out = 100 * tail(len(members))
    low, high = np.nanpercentile(drawn, [out, 100 - out])
    return Matched(mean, float(low), float(high), len(members), reason)


def _gain(counts: np.ndarray, sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(...) from (..., side, stratum); a stratum that a draw missed gives its weight to the other."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums / counts
        differences = means[..., 1, :] - means[..., 0, :]
        known = np.where(counts.min(-2) > 0, weights, 0.0)
        return np.where(known > 0, differences * known, 0.0).sum(-1) / known.sum(-1)


def tail(n: int, level: float = 0.95) -> float:
    """The share of bootstrap draws to leave out at each end, for 95% of a mean of n units by Student's t.

    The quantile of t is by its series in 1 / (n - 1) (Abramowitz and Stegun 26.7.5), which is good from 4 units on.
    """
    z, freedom = NormalDist().inv_cdf((1 + level) / 2), n - 1
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return NormalDist().cdf(-t * math.sqrt(n / freedom))


def _left_out(total: np.ndarray, shared: np.ndarray) -> str | None:
    """Which strata do not count, in words; a stratum that nobody is in is not missed."""
    missing = [place for place in range(2) if total[:, place].sum() and not shared[place]]
    if not missing:
        return None
    told = [
        f"{STRATA[place]}: "
        + " and ".join(f"{counted(int(total[side, place]), 'answer')} {WHEN[side]}" for side in range(2))
        for place in missing
    ]
    kept = [place for place in range(2) if shared[place]]
    rest = f"only answers that {VERBS[kept[0]]} are compared" if kept else "nothing can be compared"
    return f"{rest} (too few {'; '.join(told)})"
