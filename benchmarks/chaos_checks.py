"""What must hold of the workspace whatever is killed: every rating that was acknowledged is there, and all is sound."""

from __future__ import annotations

from typing import Any

from benchmarks.chaos_app import ANY, ITEM, Rated
from storage import unfinished
from storage.database import Database
from storage.feedback import log


def stored(database: Database) -> list[Rated]:
    """Every rating by hand in the database, as the screen would acknowledge it."""
    found = database.rows(
        """SELECT rating.kind, rating.value, rating.choice, rating.shown_order, prompts.text AS prompt,
                  about.kind AS taken_back
           FROM ratings AS rating LEFT JOIN ratings AS about ON rating.kind = 'undo' AND about.id = rating.supersedes
           LEFT JOIN samples ON samples.id = rating.sample_id LEFT JOIN prompts ON prompts.id = samples.prompt_id
           WHERE rating.source = 'human'"""
    )
    return [_as_shown(row) for row in found]


def anywhere(rated: Rated) -> Rated:
    """It, whichever item it is of."""
    return rated._replace(item=ANY)


def _as_shown(row: dict[str, Any]) -> Rated:
    if row["kind"] == "undo":
        return Rated("", "undo", row["taken_back"])
    number = ITEM.match(row["prompt"] or "")
    item = number[1] if number else ""
    if row["choice"] in ("a", "b"):
        return Rated(item, row["kind"], "left" if row["choice"] == (row["shown_order"] or "ab")[0] else "right")
    return Rated(item, row["kind"], row["choice"] or f"{row['value'] or 0:g}")


def unsound(database: Database) -> list[str]:
    """What is wrong with the database at one moment; nothing where it is sound."""
    database.execute("BEGIN")  # others go on writing
    found = [row["integrity_check"] for row in database.rows("PRAGMA integrity_check(5)")]
    problems = [f"integrity_check: {one}" for one in found if one != "ok"]
    problems += [f"foreign key: {row}" for row in database.rows("PRAGMA foreign_key_check")]
    if unfinished.find(database) is None and (differ := log.effects_differ(database)):
        problems.append(f"{differ} events count otherwise than by the log")
    database.execute("COMMIT")
    return problems
