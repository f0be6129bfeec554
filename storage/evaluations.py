"""Evaluations: figures of versions on suites, kept so that a later version is read beside an earlier one."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from storage.database import Database
from storage.records import Evaluation

GAIN = "/gain"  # of the name of a figure: how much better it is than in the other version
FAILURES = ("refused", "incoherent", "wrong_language", "cut")
# The figures of each suite that a gate asks about, by the last part of their names.
LEADING = {"accuracy", "answered", "unkind", "stereotyped"}
LEADING_OF = {"bias": {"ambiguous/bias"}}


class Beside(msgspec.Struct, frozen=True):
    """One figure of a version; and of the other one that was measured with it, with what was gained over that.

    Attributes:
        then, gain: None where it was measured alone. A gain above 0 is better, whichever way the figure goes.
    """

    now: Evaluation
    then: Evaluation | None = None
    gain: Evaluation | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it is a failure that no version has."""
        sides = [one for one in (self.now, self.then) if one is not None]
        return self.now.metric.rsplit("/", 1)[-1] in FAILURES and not any(one.value for one in sides)


def add(database: Database, measured: Iterable[Evaluation]) -> None:
    """Store figures that were measured together, all or none."""
    with database.transaction():
        database.insert_many("evaluations", measured)


def of(database: Database, version: str) -> list[Evaluation]:
    """Every figure of a version, in the order in which they were measured."""
    return database.records(Evaluation, "SELECT * FROM evaluations WHERE version = ? ORDER BY rowid", (version,))


def newest(database: Database) -> list[Beside]:
    """The newest figures of the version that was last measured beside another; where none was, of the last at all."""
    last = database.scalar("SELECT version FROM evaluations ORDER BY against IS NULL, rowid DESC LIMIT 1")
    return [] if last is None else measured(database, last)


def measured(database: Database, version: str) -> list[Beside]:
    """The newest figures of a version, with what was measured with them."""
    rows = database.records(
        Evaluation,
        """SELECT * FROM evaluations WHERE version = ?1
           OR version IN (SELECT against FROM evaluations WHERE version = ?1) ORDER BY rowid""",
        (version,),
    )
    return [one for one in beside(rows) if one.now.version == version]


def beside(rows: Iterable[Evaluation]) -> list[Beside]:
    """Figures with what was measured with them, from rows in the order in which they were measured: of each figure of
    each version the newest, though one that was measured alone takes the place of no comparison."""
    seen: dict[tuple[str, ...], Evaluation] = {}
    found: dict[tuple[str, ...], Beside] = {}
    for row in rows:
        key = (row.suite, row.metric.removesuffix(GAIN), row.language or "")
        own = (row.version, *key)
        if row.against is None:
            seen[own] = row
            if own not in found or found[own].gain is None:
                found[own] = Beside(row)
        elif own in seen:
            found[own] = Beside(seen[own], seen.get((row.against, *key)), row)
    return list(found.values())


def leads(suite: str, metric: str) -> bool:
    """Whether a gate asks about a figure."""
    return metric in LEADING_OF[suite] if suite in LEADING_OF else metric.rsplit("/", 1)[-1] in LEADING
