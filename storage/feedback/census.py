"""Counts of what the workspace holds, as `workbench stats` and the Insight screen tell them."""

from __future__ import annotations

import msgspec

from storage.database import Database

# Events that keep their place in the log but judge no answer.
NO_JUDGEMENT = ("skip", "cannot-judge", "note")


class LanguageCounts(msgspec.Struct, frozen=True):
    """How much there is in one language."""

    prompts: int = 0
    samples: int = 0
    ratings: int = 0


class Statistics(msgspec.Struct, frozen=True):
    """Counts of prompts, samples, and of the ratings that count today: not undone, not replaced, no skips, no notes.

    `kinds`, `sources` and `raters` divide the ratings; `splits` divides the prompts, `origins` the samples.
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


def summary(database: Database) -> Statistics:
    """The counts of this moment."""
    by_language = {
        "prompts": _counts(database, "SELECT language, count(*) FROM prompts GROUP BY 1"),
        "samples": _counts(
            database,
            "SELECT language, count(*) FROM samples JOIN prompts ON prompts.id = prompt_id GROUP BY 1",
        ),
        "ratings": ratings_by_language(database),
    }
    return Statistics(
        **{name: sum(counts.values()) for name, counts in by_language.items()},
        languages={
            language: LanguageCounts(**{name: counts.get(language, 0) for name, counts in by_language.items()})
            for language in sorted(set().union(*by_language.values()))
        },
        kinds=_ratings_by(database, "kind"),
        sources=_ratings_by(database, "source"),
        raters=_ratings_by(database, "rater"),
        splits=_counts(database, "SELECT split, count(*) FROM prompts GROUP BY 1"),
        origins=_counts(database, "SELECT origin, count(*) FROM samples GROUP BY 1"),
    )


def ratings_by_language(database: Database, rater: str | None = None) -> dict[str, int]:
    """How many ratings count today in each language; of one rater when given."""
    return _counts(
        database,
        f"""SELECT language, count(*) FROM effective_ratings AS rating
            JOIN samples ON samples.id = rating.sample_id JOIN prompts ON prompts.id = samples.prompt_id
            WHERE kind NOT IN {NO_JUDGEMENT} AND (:rater IS NULL OR rater = :rater) GROUP BY 1""",
        {"rater": rater},
    )


def ratings_by_language_and_kind(database: Database) -> list[tuple[str, str, int]]:
    """Ratings that count and teach, as (language, kind, number), over all raters, most first."""
    found = database.rows(
        """SELECT prompts.language AS language, kind, count(*) AS n FROM effective_ratings
           JOIN samples ON samples.id = effective_ratings.sample_id
           JOIN prompts ON prompts.id = samples.prompt_id
           WHERE kind IN ('score', 'label', 'pair', 'edit') GROUP BY language, kind ORDER BY n DESC"""
    )
    return [(row["language"], row["kind"], row["n"]) for row in found]


def _ratings_by(database: Database, column: str) -> dict[str, int]:
    return _counts(
        database, f"SELECT {column}, count(*) FROM effective_ratings WHERE kind NOT IN {NO_JUDGEMENT} GROUP BY 1"
    )


def _counts(database: Database, sql: str, parameters: dict[str, str | None] | tuple[()] = ()) -> dict[str, int]:
    """A query of two columns, key and count, as a dictionary."""
    return {key: count for key, count in map(dict.values, database.rows(sql, parameters))}  # noqa: C416
