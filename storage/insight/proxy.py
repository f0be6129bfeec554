"""Over-optimisation: what the reward model says that a version gained, beside what its raters say of its answers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from storage import versions
from storage.comparison import Figure as Measured
from storage.comparison import student
from storage.database import Database
from storage.feedback import winning
from storage.feedback.agreement import OVERALL
from storage.feedback.winning import WinRate
from storage.insight import gains
from storage.insight.figure import Cell, Figure, Found, Plot, Point, Series, Table, point
from storage.records import Source, Version

HEADER = ("version", "against", "state", "reward gained", "reward low", "reward high", "prompts", "figure", "by",
          "value", "low", "high", "n", "n against")  # fmt: skip
SCORE, WON = "mean score", "blind win rate less one half"
PEOPLE = (Source.HUMAN, Source.SIMULATED)  # each in a series of its own
Scores = dict[tuple[str, str], dict[int, float]]


class Liked(msgspec.Struct, frozen=True):
    """How much better the answers of a version are liked than its parent's, by one source; `beside` is the parent's
    number of units."""

    what: str
    by: str
    gain: Measured
    beside: int


def read(database: Database) -> Found:
    """A dot for each version and figure of raters: to the right its gain in reward, upwards that of the figure.
    At the lower right a version is liked better by the reward model alone."""
    measured = [(version, reward) for version in versions.every(database)
                if version.kind != "base" and (reward := gains.over_parent(version)).mean is not None]  # fmt: skip
    rates = winning.win_rates(database) if measured else []
    scores = _scores(database, {name for version, _ in measured for name in (version.name, version.parent) if name})
    dots: dict[str, list[Point]] = {}
    rows: list[tuple[Cell, ...]] = []
    notes: list[str] = []
    for version, reward in measured:
        assert reward.mean is not None
        proxy = (version.name, version.parent, gains.state_of(version), reward.mean, *(reward.interval or (None, None)),
                 reward.n or None)  # fmt: skip
        found = _liked(version, scores, rates)
        for one in found:
            value, (low, high) = one.gain.mean, one.gain.interval or (None, None)
            assert value is not None
            rows.append((*proxy, one.what, one.by, value, low, high, one.gain.n, one.beside))
            made = point(reward.mean, value, one.gain.interval, version.name, one.gain.n)
            if made is not None:
                dots.setdefault(f"{one.what}, {one.by}", []).append(made)
            notes += _note(version.name, reward, one)
        if not found:
            rows.append((*proxy, None, None, None, None, None, None, None))
    table = Table(HEADER, tuple(rows))
    if not dots:
        train = "" if rows else "train a version, then "
        return Found(None, table, (), f"{train}score answers of a version and of its parent, or review blind pairs")
    notes.append("Scores of a version and of its parent may be of different prompts; blind pairs are of the same.")
    series = [Series("parent", (Point(0.0, 0.0, label="parent"),))]
    series += [Series(name, tuple(points)) for name, points in sorted(dots.items())]
    plot = Plot("Reward beside what raters say", "reward gained over its parent, by the gate's judge",
                "raters' gain: share of the scale, or of pairs", tuple(series), 0.0)  # fmt: skip
    return Found(plot, table, tuple(notes))


def _liked(version: Version, scores: Scores, rates: Sequence[WinRate]) -> list[Liked]:
    """By mean scores where both are scored, and by blind pairs of both."""
    found = []
    for source in map(str, PEOPLE):
        new, old = (scores.get((str(name), source), {}) for name in (version.name, version.parent))
        if new and old:
            found.append(Liked(SCORE, source, difference([*new.values()], [*old.values()]), len(old)))
    for rate in rates:
        if (rate.version, rate.against, rate.part) == (version.name, version.parent, "all"):
            gain = Measured(rate.rate - 0.5, (rate.low - 0.5, rate.high - 0.5), rate.n, "pairs")
            found.append(Liked(WON, rate.source, gain, rate.n))
    return found


def difference(new: Sequence[float], old: Sequence[float]) -> Measured:
    """The difference of two means of independent values, with Welch's 95% interval (1947); none for single values."""
    mean = statistics.fmean(new) - statistics.fmean(old)
    if min(len(new), len(old)) < 2:
        return Measured(mean, None, len(new), "prompts")
    parts = [statistics.variance(side) / len(side) for side in (new, old)]
    total = sum(parts)
    if not total:
        return Measured(mean, None, len(new), "prompts", "all alike")
    degrees = total**2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, (new, old), strict=True))
    half = student(max(1, math.floor(degrees))) * math.sqrt(total)
    return Measured(mean, (mean - half, mean + half), len(new), "prompts")


def _scores(database: Database, names: set[str]) -> Scores:
    """Mean overall scores, from 0 to 1 on their scale, by version and source, of each prompt: scores of one prompt are
    not independent."""
    found: Scores = {}
    for version, source, prompt, mean in database.cursor(
        """SELECT samples.version, counted.source, counted.prompt,
                  avg((ratings.value - scale_low) / (scale_high - scale_low))
           FROM json_each(?) AS name CROSS JOIN samples ON samples.version = name.value
           CROSS JOIN counted ON counted.sample = samples.sequence
           CROSS JOIN ratings ON ratings.sequence = counted.sequence
           WHERE counted.kind = 'score' AND counted.attribute = ? AND counted.source IN (?, ?) GROUP BY 1, 2, 3""",
        (msgspec.json.encode(sorted(names)).decode(), OVERALL, *PEOPLE),
    ):
        found.setdefault((version, source), {})[prompt] = mean
    return found


def _note(name: str, reward: Measured, liked: Liked) -> list[str]:
    """What is to be said of a version that the reward model alone likes better."""
    assert reward.mean is not None
    assert liked.gain.mean is not None
    if reward.mean <= 0 or liked.gain.mean >= 0:
        return []
    sure = liked.gain.interval is not None and liked.gain.interval[1] < 0
    verdict = "is over-optimised" if sure else "may be over-optimised, or that is chance"
    return [f"{name} {verdict}: reward {reward}, but {liked.what} ({liked.by}) {liked.gain}."]


FIGURE = Figure(
    "proxy", "Reward beside raters",
    "Upper right of its parent, reward and raters agree that a version is better; lower right it earns more reward and "
    "is liked less, which is over-optimisation.",
    read,
)  # fmt: skip
