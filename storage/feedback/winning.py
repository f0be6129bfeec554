"""Whether a person likes a version better than the one before: win rates of blind pairs of an old against a new answer.

A win counts 1, a tie or "both bad" one half, a loss 0; the interval holds whenever one looks (see
:mod:`storage.feedback.betting`), so that one may stop as soon as it says something. Only pairs judged here and blind
count: neither imported ones nor a judge model's. The queue draws them by lot (:mod:`storage.feedback.streams`); a pair
that came by another way, since others judged it or since its right answer is known, does not count, and a pair that
several people judged, or one twice, counts once, as was said first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from storage import versions
from storage.database import Database
from storage.errors import UsageError
from storage.feedback.betting import interval, more_needed
from storage.records import Version, VersionState
from storage.wording import counted

GATE = "win rate"
EQUIVALENT_WITHIN = 0.1  # a win rate that is surely within 40 to 60% is no difference that matters


class Verdict(StrEnum):
    """What the pairs say so far; all but the last are reasons to stop."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


class WinRate(msgspec.Struct, frozen=True):
    """How often the answers of `version` were preferred to those of `against`.

    Attributes:
        part: `all`, `held-out` (prompts that nothing is trained on) or `language`.
        language: of a part by language; each has an interval of its own, so that of twenty one may be wrong by chance.
        source: human or simulated; they are never mixed.
        low, high: the anytime-valid 95% interval of `rate`.
        more: how many more pairs would decide, if they come as those so far; None where that cannot be told.
    """

    version: str
    against: str
    part: str
    language: str | None
    source: str
    rate: float
    low: float
    high: float
    n: int
    wins: int
    ties: int
    losses: int
    verdict: Verdict
    more: int | None

    @property
    def short(self) -> str:
        """`63% [54, 72] of 84`."""
        return f"{self.rate:.0%} [{100 * self.low:.0f}, {100 * self.high:.0f}] of {self.n}"

    @property
    def told(self) -> str:
        """In words."""
        pairs = counted(self.n, "blind pair")
        figure = f"{self.rate:.0%} [{self.low:.0%}, {self.high:.0%}] of {pairs} against {self.against}"
        if self.verdict != Verdict.UNDECIDED:
            return f"{self.verdict}: won {figure}"
        more = "" if self.more is None else f"; some {max(1, self.more)} more would tell, if they come like these"
        return f"undecided: won {figure}{more}"


def against(database: Database) -> dict[str, str | None]:
    """What each version is measured against: the served one against what was served before it, others against their
    parents."""
    found = {version.name: version.parent for version in versions.every(database)}
    served, before = versions.served(database), versions.served_before(database)
    if served is not None and before is not None:
        found[served.name] = before.name
    return found


def comparisons(database: Database) -> list[tuple[int, int]]:
    """Pairs of versions, a newer and an older one, by their sequences, in the order in which raters are asked: the
    newest that is served or may be leads, and what it is measured against."""
    order = _order(database)
    rival = against(database)
    every = versions.every(database)
    found = []
    for version in sorted(every, key=lambda one: one.state in (VersionState.REJECTED, VersionState.ROLLED_BACK)):
        older = [one.name for one in every if order[one.name] < order[version.name]]
        older.sort(key=lambda name: name != rival[version.name])
        found += [(order[version.name], order[name]) for name in older]
    return found


def win_rates(database: Database) -> list[WinRate]:
    """Of each version against each older one that it was compared with: overall, on held-out prompts, by language.

    Newest versions first, of each those against what it is measured against (:func:`against`), and then against what
    it was compared with most often; the parts in the order that `WinRate` names.
    """
    seen: dict[tuple[str, str, str], dict[tuple[int, int], tuple[str, str, float]]] = {}
    order, rival = _order(database), against(database)
    for row in database.rows(
        """SELECT counted.language, counted.split, counted.source, counted.sample, counted.other,
                  ifnull(repeated.choice, ratings.choice) AS choice,
                  one.version AS one, two.version AS two
           FROM counted JOIN ratings ON ratings.sequence = counted.sequence
           JOIN samples AS one ON one.id = ratings.sample_id JOIN samples AS two ON two.id = ratings.other_sample_id
           LEFT JOIN ratings AS repeated ON repeated.id = ratings.supersedes AND ratings.slice = 'repeat'
           WHERE counted.kind = 'pair' AND counted.source IN ('human', 'simulated') AND counted.attribute = 'overall'
           AND ratings.blind = 1 AND one.version != two.version
           AND ifnull(iif(repeated.id IS NULL, ratings.slice, repeated.slice), 'versions') = 'versions'
           ORDER BY ifnull(repeated.sequence, counted.sequence)"""
    ):
        if not {row["one"], row["two"]} <= order.keys():
            continue
        new_is_one = order[row["one"]] > order[row["two"]]
        new, old = (row["one"], row["two"]) if new_is_one else (row["two"], row["one"])
        worth = 0.5 if row["choice"] in ("tie", "both-bad") else float((row["choice"] == "a") == new_is_one)
        drawn = seen.setdefault((new, old, row["source"]), {})
        drawn.setdefault((row["sample"], row["other"]), (row["language"], row["split"], worth))
    found = []
    for (new, old, source), drawn in sorted(
        seen.items(),
        key=lambda entry: (
            -order[entry[0][0]], entry[0][1] != rival[entry[0][0]], entry[0][2] != "human", -len(entry[1])
        ),
    ):  # fmt: skip
        pairs = list(drawn.values())
        found.append(_rate(new, old, source, "all", None, [worth for *_, worth in pairs]))
        if held_out := [worth for _, split, worth in pairs if split == "held-out"]:
            found.append(_rate(new, old, source, "held-out", None, held_out))
        for language in sorted({language for language, *_ in pairs}):
            worths = [worth for name, _, worth in pairs if name == language]
            found.append(_rate(new, old, source, "language", language, worths))
    return found


def headline(rates: Iterable[WinRate], version: Version) -> WinRate | None:
    """The one figure of a version: over all its pairs, against what it is measured against and by people, where there
    are such. `rates` are in the order of :func:`win_rates`."""
    return next((rate for rate in rates if rate.version == version.name and rate.part == "all"), None)


def lost(rates: Iterable[WinRate], served: Version | None, before: Version | None) -> WinRate | None:
    """The figure by which the served version is surely worse than the one served before it, where it is."""
    found = None if served is None or before is None else headline(rates, served)
    return found if found and before and (found.against, found.verdict) == (before.name, Verdict.WORSE) else None


def require(database: Database, version: Version, rate: float) -> None:
    """Refuse a version that did not surely win more than that share of its pairs against its parent; of one that did,
    its gate `win rate` has passed from now on.

    Raises:
        UsageError: it did not, or nobody has compared it.
    """
    found = headline((one for one in win_rates(database) if one.against == version.parent), version)
    compare = f"review blind pairs of {version.name} against {version.parent} first"
    if found is None:
        raise UsageError(f"no blind pair of {version.name} against {version.parent} is judged yet", compare)
    if found.low <= rate:
        raise UsageError(f"{version.name} is {found.told}: not surely above {rate:.0%}", compare)
    passed = {"gate": GATE, "passed": True, "value": found.rate, "bound": rate, "detail": found.told}
    versions.record_gates(database, version.name, [*(g for g in version.gates if g["gate"] != GATE), passed], {})


def _order(database: Database) -> dict[str, int]:
    return {row["name"]: row["sequence"] for row in database.rows("SELECT name, sequence FROM versions")}


def _rate(version: str, against: str, source: str, part: str, language: str | None, worths: Sequence[float]) -> WinRate:
    found = interval(worths)
    if found.low > 0.5:
        verdict = Verdict.BETTER
    elif found.high < 0.5:
        verdict = Verdict.WORSE
    elif found.low > 0.5 - EQUIVALENT_WITHIN and found.high < 0.5 + EQUIVALENT_WITHIN:
        verdict = Verdict.EQUIVALENT
    else:
        verdict = Verdict.UNDECIDED
    more = more_needed(found, worths) if verdict == Verdict.UNDECIDED else None
    return WinRate(
        version, against, part, language, source, found.mean, found.low, found.high, found.n,
        worths.count(1.0), worths.count(0.5), worths.count(0.0), verdict, more,
    )  # fmt: skip
