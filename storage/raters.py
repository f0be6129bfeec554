"""Raters: who they are, which languages they read, and whose word is taken for right.

Whoever rates without having been introduced is a rater all the same: human, and a reader of every language.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from storage import clock
from storage.database import Database
from storage.errors import UsageError
from storage.feedback.kinds import JUDGING, sql_list
from storage.records import Source

JUDGE = "ai:"  # the names of judge models begin so
RaterKind = Literal["human", "ai", "simulated"]
KINDS: tuple[RaterKind, ...] = get_args(RaterKind)


class Rater(msgspec.Struct, frozen=True):
    """One who rates.

    Attributes:
        languages: tags of what they read; none is every language. `es` covers `es-AR`, but not the other way round.
        gold: what they say is right: others are asked the same, and measured by it.
    """

    name: str
    kind: RaterKind = "human"
    languages: tuple[str, ...] = ()
    gold: bool = False
    created_at: str = ""

    def reads(self, language: str) -> bool:
        """Whether they read a language."""
        return not self.languages or any(language == own or language.startswith(f"{own}-") for own in self.languages)


def of_a_person(name: str) -> str:
    """A name that a person may rate by, without the blanks around it.

    Raises:
        UsageError: it is none, or one of a judge model: what a person said would pass for what a model said.
    """
    if not name.strip():
        raise UsageError("a rater needs a name", "for example: amina")
    if name.strip().startswith(JUDGE):
        raise UsageError(f"{name.strip()!r} is the name of a judge model", f"names of people do not begin with {JUDGE}")
    return name.strip()


def find(database: Database, name: str) -> Rater:
    """A rater by name, whether introduced or not."""
    known = database.record(Rater, "SELECT * FROM raters WHERE name = ?", (name,))
    return known or Rater(name, _kind_by_ratings(database, name))


def put(
    database: Database,
    name: str,
    *,
    kind: RaterKind | None = None,
    languages: Sequence[str] | None = None,
    gold: bool | None = None,
) -> Rater:
    """Introduce a rater, or change what is known of one; None leaves it as it is.

    Args:
        languages: tags in their normal form (:func:`storage.languages.normal`).

    Raises:
        UsageError: there is no such kind, or no name.
    """
    if not name.strip():
        raise UsageError("a rater needs a name", "for example: workbench raters add amina --languages sw,en")
    if kind is not None and kind not in KINDS:
        raise UsageError(f"a rater is no {kind!r}", f"one of: {', '.join(KINDS)}")
    with database.transaction():
        before = find(database, name)
        now = Rater(
            name,
            before.kind if kind is None else kind,
            before.languages if languages is None else tuple(dict.fromkeys(languages)),
            before.gold if gold is None else gold,
            before.created_at or clock.now(),
        )
        if now.kind != "ai":
            of_a_person(name)
        if before.created_at:
            database.execute("DELETE FROM raters WHERE name = ?", (name,))
        database.insert("raters", now)
    return now


def every(database: Database) -> list[tuple[Rater, int]]:
    """All raters, each with the number of their ratings that count, most first."""
    counts = {
        row["rater"]: row["n"]
        for row in database.rows(
            f"""SELECT rater, sum(ratings) AS n FROM tally_of_raters
                WHERE kind IN {sql_list(JUDGING)} GROUP BY rater HAVING n > 0"""
        )
    }
    names = {row["name"] for row in database.rows("SELECT name FROM raters")} | counts.keys()
    found = [(find(database, name), counts.get(name, 0)) for name in names]
    return sorted(found, key=lambda one: (-one[1], one[0].name))


def of_gold(database: Database) -> list[str]:
    """The names of those whose word is taken for right."""
    return [row["name"] for row in database.rows("SELECT name FROM raters WHERE gold ORDER BY name")]


def _kind_by_ratings(database: Database, name: str) -> RaterKind:
    source = database.scalar("SELECT source FROM counted WHERE rater = ? LIMIT 1", (name,))
    return source if source in (Source.AI, Source.SIMULATED) else "human"
