"""How each rater rates: what they say how often, how fast, whether they say the same again, prefer what stands left, or
like what is long; and what the newest reward model made of it.

Shares have Wilson's interval (1927). Where at least :data:`ENOUGH` ratings came from the random slice of the queue,
balance and length are of those alone: what the queue chooses must not move them; `of` says which.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec

from storage import raters
from storage.database import Database
from storage.feedback.agreement import COMPARED, OVERALL, value_of
from storage.feedback.kinds import RatingKind, sql_list
from storage.records import Source

NEWEST = 50_000  # ratings that are looked at
ENOUGH = 20
_Z = 1.959964


class Share(msgspec.Struct, frozen=True):
    """A share of n, with its 95% interval; None of nothing."""

    share: float | None
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, yes: float, n: int) -> Share:
        if not n:
            return cls(None, None, None, 0)
        share, wide = yes / n, 1 + _Z**2 / n
        middle = (share + _Z**2 / (2 * n)) / wide
        half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / wide
        return cls(share, max(0.0, middle - half), min(1.0, middle + half), n)


class Length(msgspec.Struct, frozen=True):
    """How scores go with the length of answers in a language: Spearman's rank correlation over n, with its interval."""

    language: str
    correlation: float | None
    low: float | None
    high: float | None
    n: int
    of: str


class Habits(msgspec.Struct, frozen=True):
    """How one rater rates.

    Attributes:
        again: the share of what was asked once more (the slice `repeat`) of which they said the same.
        left: the share of decided pairs in which they preferred what stood left.
        right: the share of gold items of which they said what is right.
        seconds: the median time of a judgement; None where no time is known. timed: how many have one.
        balance: how often they said what, by kind. of: "random" or "everything".
        effects: offset, gain, leniency and side of the newest reward model; empty where it knows none.
    """

    rater: str
    kind: str
    ratings: int
    again: Share
    left: Share
    right: Share
    seconds: float | None
    timed: int
    balance: dict[str, dict[str, int]]
    of: str
    effects: dict[str, float | None]


def measure(database: Database) -> tuple[list[Habits], list[Length], str | None]:
    """The habits of all raters, length against score by language, and the name of the reward model asked."""
    rows = newest(database)
    name, effects = _effects(database)
    again, right = _again(database), _right(database)
    by_rater: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_rater[row["rater"]].append(row)
    found = []
    for rater, count in raters.every(database):
        own = by_rater[rater.name]
        told, of = unbiased(own)
        times = [row["duration_ms"] / 1000 for row in own if row["duration_ms"]]
        found.append(
            Habits(
                rater.name, rater.kind, count, again.get(rater.name, Share.of(0, 0)), left_preferred(own),
                right.get(rater.name, Share.of(0, 0)), statistics.median(times) if times else None, len(times),
                _balance(told), of, effects.get(rater.name, {}),
            )
        )  # fmt: skip
    return found, _lengths(rows), name


def newest(database: Database) -> list[dict[str, Any]]:
    """The newest overall ratings, newest first: who said what of which language, and how long the answers are (of a
    pair `length` is that of the first, `other_length` of the second)."""
    return database.rows(
        f"""SELECT counted.rater, counted.kind, counted.language, ratings.value, scale_low, scale_high, choice,
                   shown_order, duration_ms, slice, counted.source, 1 AS in_order,
                   CASE WHEN counted.kind != 'label' THEN length(samples.text) END AS length,
                   length(other.text) AS other_length
            FROM counted JOIN ratings ON ratings.sequence = counted.sequence
            JOIN samples ON samples.id = ratings.sample_id
            LEFT JOIN samples AS other ON other.id = ratings.other_sample_id
            WHERE counted.attribute = '{OVERALL}'
              AND counted.kind IN {sql_list(COMPARED)}
            ORDER BY counted.sequence DESC LIMIT {NEWEST}"""
    )


def unbiased(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Those of the random slice where there are enough, else all; and which they are."""
    drawn = [row for row in rows if row["slice"] == "random"]
    return (drawn, "random") if len(drawn) >= ENOUGH else (rows, "everything")


def left_preferred(rows: Sequence[dict[str, Any]]) -> Share:
    """In what share of the decided pairs among some ratings what stood left was preferred."""
    decided = [row for row in rows if row["choice"] in ("a", "b") and row["shown_order"]]
    return Share.of(sum((row["choice"] == "a") == (row["shown_order"] == "ab") for row in decided), len(decided))


def longer_preferred(rows: Sequence[dict[str, Any]]) -> Share:
    """In what share of the decided pairs of unequal length among some ratings the longer answer was preferred."""
    decided = [row for row in rows if row["choice"] in ("a", "b") and row["length"] != row["other_length"]]
    longer = sum((row["choice"] == "a") == (row["length"] > row["other_length"]) for row in decided)
    return Share.of(longer, len(decided))


def _balance(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How often what was said, by kind."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        match row["kind"]:
            case RatingKind.PAIR:
                said = row["choice"]
            case RatingKind.LABEL:
                said = "good" if row["value"] else "bad"
            case _:
                value = round(row["value"]) if row["source"] == Source.AI else row["value"]  # a judge's are soft
                said = f"{value:g}/{row['scale_high']:g}"
        found[row["kind"]][said] += 1
    return {kind: dict(sorted(said.items())) for kind, said in sorted(found.items())}


def _lengths(rows: Sequence[dict[str, Any]]) -> list[Length]:
    by_language: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["kind"] == RatingKind.SCORE and row["source"] != Source.AI:  # a judge's taste is in its own row
            by_language[row["language"]].append(row)
    return [length_of(language, own) for language, own in sorted(by_language.items())]


def length_of(language: str, rows: list[dict[str, Any]]) -> Length:
    """How some scores go with length."""
    told, of = unbiased(rows)
    rank = spearman([value_of(row) for row in told], [row["length"] for row in told])
    low, high = (None, None) if rank is None else rank_interval(rank, len(told))
    return Length(language, rank, low, high, len(told), of)


def rank_interval(rank: float, n: int) -> tuple[float, float]:
    """The 95% interval of a rank correlation over more than three: Fisher's transformation, with the variance of ranks
    (Bonett and Wright 2000)."""
    wide = _Z * math.sqrt((1 + rank**2 / 2) / (n - 3))
    turned = math.atanh(max(-0.999999, min(0.999999, rank)))
    return math.tanh(turned - wide), math.tanh(turned + wide)


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The rank correlation; None of fewer than ten, or where one of the two is always the same."""
    if len(one) < 10 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    from scipy import stats

    return float(stats.spearmanr(one, other).statistic)


# What a rating says, so that two of them can be compared: the better answer of a pair, else a value.
_SAID = """iif({0}.kind = 'pair', CASE {0}.choice WHEN 'a' THEN {0}.sample_id WHEN 'b' THEN {0}.other_sample_id
                                ELSE {0}.choice END, {0}.value)"""


def _again(database: Database) -> dict[str, Share]:
    """Of what raters were asked once more: in what share they said the same."""
    return _shares(
        database,
        f"""SELECT counted.rater, {_SAID.format("again")} = {_SAID.format("earlier")} AS same
            FROM ratings AS again CROSS JOIN counted ON counted.sequence = again.sequence
            JOIN ratings AS earlier ON earlier.id = again.supersedes
            WHERE again.slice = 'repeat' AND again.kind IN {sql_list(COMPARED)}""",
    )


def _right(database: Database) -> dict[str, Share]:
    """Of what is known to be right: in what share raters said it."""
    return _shares(
        database,
        f"""SELECT mine.rater, {_SAID.format("a")} = {_SAID.format("b")} AS same
            FROM raters JOIN counted AS gold ON gold.rater = raters.name
            JOIN counted AS mine ON mine.sample = gold.sample AND mine.other = gold.other AND mine.kind = gold.kind
                 AND mine.attribute = gold.attribute AND mine.rater != gold.rater
            JOIN ratings AS a ON a.sequence = mine.sequence JOIN ratings AS b ON b.sequence = gold.sequence
            WHERE raters.gold AND gold.attribute = '{OVERALL}' AND gold.kind IN {sql_list(COMPARED)}""",
    )


def _shares(database: Database, sql: str) -> dict[str, Share]:
    """Rows of a rater and whether it was so, as a share of each rater."""
    yes: Counter[str] = Counter()
    n: Counter[str] = Counter()
    for row in database.rows(sql):
        n[row["rater"]] += 1
        yes[row["rater"]] += bool(row["same"])
    return {rater: Share.of(yes[rater], many) for rater, many in n.items()}


def _effects(database: Database) -> tuple[str | None, dict[str, dict[str, float | None]]]:
    """What the newest reward model made of each rater's habits, and its name."""
    newest = database.row("SELECT name, metrics FROM reward_models ORDER BY sequence DESC LIMIT 1")
    if newest is None:
        return None, {}
    found = msgspec.json.decode(newest["metrics"]).get("raters") or {}
    names = ("offset", "gain", "leniency", "side")
    return newest["name"], {rater: {name: one.get(name) for name in names} for rater, one in found.items()}
