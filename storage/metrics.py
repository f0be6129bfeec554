"""Training metrics and rollouts: what the plots draw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from storage import clock
from storage.database import Database
from storage.records import Metric, Rollout


def record(database: Database, job_id: str, step: int, values: Mapping[tuple[str, str | None], float]) -> None:
    """Store the figures of one step, keyed `(name, language or None)`; a step written again (after a resume) replaces.

    Values that are not finite are stored as null, so that a plot can show the gap.
    """
    moment = clock.now()
    with database.transaction():
        for (name, language), value in values.items():
            database.execute(
                "INSERT OR REPLACE INTO metrics (job_id, name, language, step, value, created_at) VALUES (?,?,?,?,?,?)",
                (job_id, name, language, step, float(value) if math.isfinite(value) else None, moment),
            )


def series(database: Database, job_id: str, name: str, language: str | None = None) -> list[tuple[int, float | None]]:
    """One curve: `(step, value)` in step order; `language` None is the figure over all languages."""
    found = database.rows(
        "SELECT step, value FROM metrics WHERE job_id = ? AND name = ? AND language IS ? ORDER BY step",
        (job_id, name, language),
    )
    return [(row["step"], row["value"]) for row in found]


def after(database: Database, job_id: str, place: int) -> tuple[list[tuple[str, str | None, int, float | None]], int]:
    """What was recorded of a job after a place in the table (0 is its beginning), and the place to go on from.

    Each is `(name, language, step, value)`, in the order in which they were recorded; a step that was written again
    (after a resume) comes again. What it costs does not grow with what was read before.
    """
    table = "metrics" if place else "metrics INDEXED BY metrics_once"
    found = database.connection.execute(
        f"""SELECT name, language, step, value, rowid FROM {table} WHERE job_id = ? AND rowid > ?
            {"ORDER BY rowid" if place else "ORDER BY name, ifnull(language, ''), step"}""",
        (job_id, place),
    ).fetchall()
    return [row[:4] for row in found], max((row[4] for row in found), default=place)


def newest(database: Database, job_id: str, name: str) -> float | None:
    """The newest figure of the curve over all languages; None where there is none, or it was not finite."""
    return database.scalar(
        """SELECT value FROM metrics WHERE job_id = ? AND name = ? AND ifnull(language, '') = ''
           ORDER BY step DESC LIMIT 1""",
        (job_id, name),
    )


def moments(database: Database, job_id: str, name: str, limit: int) -> list[tuple[int, str]]:
    """When the newest steps of a curve were recorded: `(step, timestamp)` in step order."""
    found = database.rows(
        """SELECT step, created_at FROM metrics WHERE job_id = ? AND name = ? AND ifnull(language, '') = ''
           ORDER BY step DESC LIMIT ?""",
        (job_id, name, limit),
    )
    return [(row["step"], row["created_at"]) for row in reversed(found)]


def languages(database: Database, job_id: str, name: str) -> list[str]:
    """The languages for which a metric was recorded."""
    found = database.rows(
        "SELECT DISTINCT language FROM metrics WHERE job_id = ? AND name = ? AND language NOT NULL ORDER BY language",
        (job_id, name),
    )
    return [row["language"] for row in found]


def names(database: Database, job_id: str) -> list[str]:
    """The names of what was recorded."""
    found = database.rows("SELECT DISTINCT name FROM metrics WHERE job_id = ? ORDER BY name", (job_id,))
    return [row["name"] for row in found]


def every(database: Database, job_id: str) -> list[Metric]:
    """All that was recorded, by step, name and language; the figure over all languages comes first."""
    return database.records(
        Metric,
        "SELECT step, name, value, language FROM metrics WHERE job_id = ? ORDER BY step, name, language",
        (job_id,),
    )


def latest(database: Database, job_id: str) -> dict[tuple[str, str | None], Metric]:
    """The newest figure of every curve, keyed `(name, language or None)`."""
    found = database.records(
        Metric,
        """SELECT name, language, max(step) AS step, value FROM metrics WHERE job_id = ?
           GROUP BY name, language""",
        (job_id,),
    )
    return {(metric.name, metric.language): metric for metric in found}


def add_rollouts(database: Database, rollouts: Iterable[Rollout]) -> None:
    """Keep some of what the policy said at a step; a step written again (after a resume) replaces."""
    rollouts = list(rollouts)
    with database.transaction():
        for job_id, step in {(rollout.job_id, rollout.step) for rollout in rollouts}:
            database.execute("DELETE FROM rollouts WHERE job_id = ? AND step = ?", (job_id, step))
        for rollout in rollouts:
            database.insert("rollouts", rollout)


def recent_rollouts(database: Database, job_id: str, limit: int = 20) -> list[Rollout]:
    """What the policy said most recently, newest step first."""
    return database.records(
        Rollout, "SELECT * FROM rollouts WHERE job_id = ? ORDER BY step DESC, rowid DESC LIMIT ?", (job_id, limit)
    )


def new_rollout(
    job_id: str, step: int, prompt: str, language: str, text: str, reward: float, kl: float, tokens: int
) -> Rollout:
    """A rollout with a fresh key, not stored yet."""
    return Rollout(clock.new_id(), job_id, step, prompt, language, text, reward, kl, tokens)
