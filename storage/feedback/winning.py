"""Whether a person likes a version better than the one before: win rates of blind pairs of an old against a new answer.

A win counts 1, a tie or "both bad" one half, a loss 0; the interval holds whenever one looks (see
:mod:`storage.feedback.betting`), so that one may stop as soon as it says something. Only pairs judged here and blind
count: neither imported ones nor a judge model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from storage import versions
from storage.database import Database
from storage.errors import UsageError
from storage.feedback.betting import interval, more_needed
from storage.records import Version
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


def win_rates(database: Database) -> list[WinRate]:
    """Of each version against each older one that it was compared with: overall, on held-out prompts, by language.

    Newest versions first, and the one it was compared with most often; the parts in the order that `WinRate` names.
    """
    seen: dict[tuple[str, str, str], list[tuple[str, str, float]]] = {}
    order = {row["name"]: row["sequence"] for row in database.rows("SELECT name, sequence FROM versions")}
    for row in database.rows(
        """SELECT counted.language, counted.split, counted.source, ratings.choice,
                  one.version AS one, two.version AS two
           FROM counted JOIN ratings ON ratings.sequence = counted.sequence
           JOIN samples AS one ON one.id = ratings.sample_id JOIN samples AS two ON two.id = ratings.other_sample_id
           WHERE counted.kind = 'pair' AND counted.source IN ('human', 'simulated') AND counted.attribute = 'overall'
           AND ratings.blind = 1 AND one.version != two.version
           ORDER BY counted.sequence"""
    ):
        if not {row["one"], row["two"]} <= order.keys():
            continue
        new_is_one = order[row["one"]] > order[row["two"]]
        new, old = (row["one"], row["two"]) if new_is_one else (row["two"], row["one"])
        worth = 0.5 if row["choice"] in ("tie", "both-bad") else float((row["choice"] == "a") == new_is_one)
        seen.setdefault((new, old, row["source"]), []).append((row["language"], row["split"], worth))
    found = []
    for (new, old, source), pairs in sorted(
        seen.items(), key=lambda entry: (-order[entry[0][0]], entry[0][2] != "human", -len(entry[1]))
    ):
        found.append(_rate(new, old, source, "all", None, [worth for *_, worth in pairs]))
        if held_out := [worth for _, split, worth in pairs if split == "held-out"]:
            found.append(_rate(new, old, source, "held-out", None, held_out))
        for language in sorted({language for language, *_ in pairs}):
            worths = [worth for name, _, worth in pairs if name == language]
            found.append(_rate(new, old, source, "language", language, worths))
    return found


def headline(rates: Iterable[WinRate], version: Version) -> WinRate | None:
    """The one figure of a version: over all its pairs, against its parent and by people where there are such."""
    own = [rate for rate in rates if rate.version == version.name and rate.part == "all"]
    return min(own, key=lambda rate: (rate.against != version.parent, rate.source != "human"), default=None)


def require(database: Database, version: Version, rate: float) -> None:
    """Refuse a version that did not surely win more than that share of its pairs against its parent; of one that did,
    its gate `win rate` has passed from now on.

    Raises:
        UsageError: it did not, or nobody has compared it.
    """
    found = headline(win_rates(database), version)
    compare = f"review blind pairs of {version.name} against {version.parent} first"
    if found is None or found.against != version.parent:
        raise UsageError(f"no blind pair of {version.name} against {version.parent} is judged yet", compare)
    if found.low <= rate:
        raise UsageError(f"{version.name} is {found.told}: not surely above {rate:.0%}", compare)
    passed = {"gate": GATE, "passed": True, "value": found.rate, "bound": rate, "detail": found.told}
    versions.record_gates(database, version.name, [*(g for g in version.gates if g["gate"] != GATE), passed], {})


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
