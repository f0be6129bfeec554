"""How far raters agree: Krippendorff's alpha of what several of them judged, and what each two of them share.

A *unit* is an answer or a pair of answers, judged in one way (a kind of rating) and of one attribute; only units that
two raters judged tell anything. Values are ordinal: a score's place on its scale, bad and good, or which of a pair is
the better one with a tie between. Alpha (Krippendorff 2004; the package `krippendorff`) is 1 where raters say the same
and 0 where they agree as chance would; its interval is the middle 95% of a bootstrap over units. Where there is too
little to tell, there is no number and a reason. Judge models (`source = ai`) are left out: calibration.py sets them
beside people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import msgspec

from storage.database import Database
from storage.feedback.kinds import RatingKind, sql_list
from storage.wording import counted

FEWEST_UNITS = 10
RESAMPLES = 500
MOST_UNITS = 5_000  # the newest
COMPARED = (RatingKind.SCORE, RatingKind.LABEL, RatingKind.PAIR)
OVERALL = "overall"
Unit = Mapping[str, float]  # rater: value
Level = Literal["nominal", "ordinal", "interval", "ratio"]


class Agreement(msgspec.Struct, frozen=True):
    """How far raters agree in one way of judging, in one language (None is all) and of one attribute.

    Attributes:
        alpha, interval: None where `why` says why not.
        units: judged by two raters or more. raters: how many judged any of these.
    """

    language: str | None
    attribute: str
    kind: str
    alpha: float | None
    interval: tuple[float, float] | None
    units: int
    raters: int
    why: str = ""


class Shared(msgspec.Struct, frozen=True):
    """What two raters both judged: how many units, in what share they said the same, and their alpha."""

    rater: str
    other: str
    units: int
    same: float
    alpha: float | None


class Report(msgspec.Struct, frozen=True):
    """Agreement overall (of the way of judging with the most units), by language and attribute, and of each two."""

    overall: Agreement
    agreement: list[Agreement]
    matrix: list[Shared]


def measure(database: Database) -> Report:
    """How far the raters of a workspace agree today."""
    units = _read(database)
    groups: dict[tuple[str | None, str, str], list[Unit]] = defaultdict(list)
    for (_, _, kind, attribute), (language, values) in units.items():
        groups[None, attribute, kind].append(values)
        groups[language, attribute, kind].append(values)
    ordered = sorted(groups.items(), key=lambda one: (one[0][0] is not None, one[0][1] != OVERALL, *map(str, one[0])))
    rows = [_agreement(*key, values) for key, values in ordered]
    whole = [row for row in rows if row.language is None and row.attribute == OVERALL]
    nothing = Agreement(None, OVERALL, "", None, None, 0, 0, _too_few(0))
    return Report(max(whole, key=lambda row: row.units, default=nothing), rows, _matrix(units))


def alpha(units: Sequence[Unit], level: Level = "ordinal") -> float | None:
    """Krippendorff's alpha of some units; None where all said the same of all, or where no unit has two values."""
    import krippendorff

    counts, domain = _counted(units)
    told = counts[counts.sum(1) > 1]
    if (told.sum(0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=told, value_domain=domain, level_of_measurement=level))


def _agreement(language: str | None, attribute: str, kind: str, units: list[Unit]) -> Agreement:
    raters = len({rater for values in units for rater in values})
    if len(units) < FEWEST_UNITS:
        return Agreement(language, attribute, kind, None, None, len(units), raters, _too_few(len(units)))
    found = alpha(units)
    if found is None:
        return Agreement(language, attribute, kind, None, None, len(units), raters, "all raters said the same of all")
    return Agreement(language, attribute, kind, found, _interval(units), len(units), raters)


def _too_few(units: int) -> str:
    return f"too little overlap: {counted(units, 'unit')} of two raters, {FEWEST_UNITS} are needed"


def _interval(units: Sequence[Unit]) -> tuple[float, float] | None:
    """The middle 95% of alpha over units drawn anew."""
    import krippendorff
    import numpy

    counts, domain = _counted(units)
    chance = numpy.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = counts[chance.integers(0, len(counts), len(counts))]
        if (drawn.sum(0) > 0).sum() > 1:  # else they say nothing of chance
            found.append(krippendorff.alpha(value_counts=drawn, value_domain=domain, level_of_measurement="ordinal"))
    if not found:
        return None
    low, high = numpy.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def _counted(units: Sequence[Unit]) -> tuple[Any, list[float]]:
    """(N, V) how many raters gave each unit each value, an array of numpy; and the V values in order."""
    import numpy

    domain = sorted({value for values in units for value in values.values()})
    places = {value: place for place, value in enumerate(domain)}
    counts = numpy.zeros((len(units), len(domain)))
    for row, values in enumerate(units):
        for value in values.values():
            counts[row, places[value]] += 1
    return counts, domain


Units = dict[tuple[int, int, str, str], tuple[str, dict[str, float]]]


def _read(database: Database) -> Units:
    """The units that several judged: language, and what each rater said last."""
    rows = database.rows(
        f"""WITH shared AS (
                SELECT sample, other, kind, attribute FROM counted
                WHERE kind IN {sql_list(COMPARED)} AND source != 'ai' GROUP BY 1, 2, 3, 4
                HAVING min(rater) != max(rater) ORDER BY max(sequence) DESC LIMIT {MOST_UNITS})
            SELECT counted.sample, counted.other, counted.kind, counted.attribute, language, counted.rater, value,
                   scale_low, scale_high, choice, a.sequence = counted.sample AS in_order
            FROM shared CROSS JOIN counted USING (sample, other, kind, attribute)
            JOIN ratings ON ratings.sequence = counted.sequence JOIN samples AS a ON a.id = ratings.sample_id
            WHERE counted.source != 'ai' ORDER BY counted.sequence"""
    )
    found: Units = {}
    for row in rows:
        key = row["sample"], row["other"], row["kind"], row["attribute"]
        found.setdefault(key, (row["language"], {}))[1][row["rater"]] = value_of(row)
    return found


def value_of(row: Mapping[str, object]) -> float:
    """What a rating says, from 0 to 1: of a pair 1 where the answer of the lower sequence is the better one.

    Args:
        row: columns of `ratings`, and `in_order`: whether `sample_id` is that answer.
    """
    if row["kind"] == RatingKind.PAIR:
        first = {"a": 1.0, "b": 0.0}.get(str(row["choice"]), 0.5)
        return first if row["in_order"] else 1.0 - first
    value = float(row["value"])  # type: ignore[arg-type]
    if row["kind"] == RatingKind.LABEL:
        return value
    low, high = float(row["scale_low"]), float(row["scale_high"])  # type: ignore[arg-type]
    return round((value - low) / (high - low), 2)


def _matrix(units: Units) -> list[Shared]:
    """What each two raters share, those with the most units first."""
    together: dict[tuple[str, str], dict[str, list[Unit]]] = defaultdict(lambda: defaultdict(list))
    for (_, _, kind, _), (_, values) in units.items():
        for one, other in combinations(sorted(values), 2):
            together[one, other][kind].append({one: values[one], other: values[other]})
    found = []
    for (one, other), by_kind in together.items():
        everything = [unit for several in by_kind.values() for unit in several]
        most = max(by_kind.values(), key=len)
        same = sum(unit[one] == unit[other] for unit in everything) / len(everything)
        told = alpha(most) if len(most) >= FEWEST_UNITS else None
        found.append(Shared(one, other, len(everything), same, told))
    return sorted(found, key=lambda shared: (-shared.units, shared.rater, shared.other))
