"""Evaluations: figures of versions on suites, kept so that a later version is read beside an earlier one."""

from __future__ import annotations

from collections.abc import Iterable

from storage.database import Database
from storage.records import Evaluation


def add(database: Database, measured: Iterable[Evaluation]) -> None:
    """Store figures that were measured together, all or none."""
    with database.transaction():
        database.insert_many("evaluations", measured)


def of(database: Database, version: str) -> list[Evaluation]:
    """Every figure of a version, in the order in which they were measured."""
    return database.records(Evaluation, "SELECT * FROM evaluations WHERE version = ? ORDER BY rowid", (version,))
