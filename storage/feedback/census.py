"""Every number of what the workspace holds, on screen and in `stats`: sums that are kept as rows are stored, so that
what it costs to read them does not grow with what was stored.

A *rating* is one that counts today (not undone, not replaced) and judges an answer: of a kind that says how good it is,
not a skip, nor a note. Those of judge models (source `ai`) are told apart wherever people's are counted.
"""

from __future__ import annotations

import msgspec

from storage.database import Database
from storage.feedback.kinds import JUDGING, sql_list
from storage.records import Source

_JUDGES = f"kind IN {sql_list(JUDGING)}"
_BY_PEOPLE, _BY_AI = f"source != '{Source.AI}'", f"source = '{Source.AI}'"


class LanguageCounts(msgspec.Struct, frozen=True):
    """How much there is in one language."""

    prompts: int = 0
    samples: int = 0
    ratings: int = 0


class SourceCounts(msgspec.Struct, frozen=True):
    """The ratings of one source, in all, by language and by kind."""

    ratings: int
    languages: dict[str, int]
    kinds: dict[str, int]


class Statistics(msgspec.Struct, frozen=True):
    """Counts of prompts, samples and ratings.

    `kinds`, `sources` and `raters` divide the ratings, whoever gave them, and `by_source` divides them by all three;
    `splits` divides the prompts, `origins` the samples.
    """

    prompts: int
    samples: int
    ratings: int
    languages: dict[str, LanguageCounts]
    kinds: dict[str, int]
    sources: dict[str, int]
    raters: dict[str, int]
    splits: dict[str, int]
    origins: dict[str, int]
    by_source: dict[str, SourceCounts] = {}


def summary(database: Database) -> Statistics:
    """The counts of this moment."""
    by_language = {
        "prompts": _sums(database, "prompts", "language"),
        "samples": _sums(database, "samples", "language"),
        "ratings": ratings_by_language(database),
    }
    sources = _sums(database, "ratings", "source", _JUDGES)
    return Statistics(
        **{name: sum(counts.values()) for name, counts in by_language.items()},
        languages={
            language: LanguageCounts(**{name: counts.get(language, 0) for name, counts in by_language.items()})
            for language in sorted(set().union(*by_language.values()))
        },
        kinds=_sums(database, "ratings", "kind", _JUDGES),
        sources=sources,
        raters=_sums(database, "raters", "rater", _JUDGES),
        splits=_sums(database, "prompts", "split"),
        origins=_sums(database, "samples", "origin"),
        by_source={
            source: SourceCounts(
                ratings,
                *(
                    _sums(database, "ratings", by, f"{_JUDGES} AND source = ?", (source,))
                    for by in ("language", "kind")
                ),
            )
            for source, ratings in sources.items()
        },
    )


def rated(database: Database) -> int:
    """How many ratings there are, those of judge models aside."""
    return database.scalar(f"SELECT ifnull(sum(ratings), 0) FROM tally_of_ratings WHERE {_JUDGES} AND {_BY_PEOPLE}")


def judged(database: Database) -> int:
    """How many ratings of judge models there are."""
    return database.scalar(f"SELECT ifnull(sum(ratings), 0) FROM tally_of_ratings WHERE {_JUDGES} AND {_BY_AI}")


def ratings_by_language(database: Database, rater: str | None = None) -> dict[str, int]:
    """How many ratings there are in each language; of one rater when given."""
    if rater is None:
        return _sums(database, "ratings", "language", _JUDGES)
    return _sums(database, "raters", "language", f"{_JUDGES} AND rater = ?", (rater,))


def ratings_by_language_and_kind(database: Database) -> list[tuple[str, str, int]]:
    """How many ratings there are, those of judge models aside, as (language, kind, number), most first."""
    found = database.rows(
        f"""SELECT language, kind, sum(ratings) AS n FROM tally_of_ratings WHERE {_JUDGES} AND {_BY_PEOPLE}
            GROUP BY language, kind HAVING n > 0 ORDER BY n DESC, language, kind"""
    )
    return [(row["language"], row["kind"], row["n"]) for row in found]


def _sums(
    database: Database, what: str, column: str, condition: str = "1", parameters: tuple[str, ...] = ()
) -> dict[str, int]:
    """What there is for each value of a column of a tally: of prompts, samples, ratings, or ratings of raters."""
    summed = "ratings" if what == "raters" else what
    rows = database.rows(
        f"""SELECT {column} AS name, sum({summed}) AS n FROM tally_of_{what} WHERE {condition}
            GROUP BY 1 HAVING n > 0 ORDER BY 1""",
        parameters,
    )
    return {row["name"]: row["n"] for row in rows}
