"""Reward models: what was fitted, from which ratings, and how well it agrees with ratings it never saw."""

from __future__ import annotations

from typing import Any

from storage import clock
from storage.database import Database
from storage.records import Begun, RewardModel, Version


def add(
    database: Database,
    *,
    base: Version,
    file: str,
    sha256: str,
    data_digest: str,
    job_id: str | None,
    metrics: dict[str, Any],
) -> RewardModel:
    """Record a finished, synced and hashed reward model under the next name: rm1, rm2, ..."""
    with database.transaction():
        count = database.scalar("SELECT count(*) FROM reward_models")
        created = RewardModel(
            clock.new_id(), f"rm{count + 1}", base.base_model, base.base_digest, file, sha256, data_digest,
            clock.now(), job_id, metrics,
        )  # fmt: skip
        database.insert("reward_models", created)
    return created


def find(
    database: Database, base_digest: str, name: str | None = None, begun: Begun | None = None
) -> RewardModel | None:
    """The reward model of that name, or the newest, of a base model.

    Args:
        begun: leaves out what was fitted after a job had begun.
    """
    at = begun and begun.reward_models
    return database.record(
        RewardModel,
        """SELECT * FROM reward_models WHERE base_digest = ? AND (? IS NULL OR name = ?)
           AND (? IS NULL OR sequence <= ?) ORDER BY sequence DESC LIMIT 1""",
        (base_digest, name, name, at, at),
    )


def named(database: Database, name: str) -> RewardModel | None:
    """The reward model of that name, of whatever base model."""
    return database.record(RewardModel, "SELECT * FROM reward_models WHERE name = ?", (name,))


def of_job(database: Database, job_id: str) -> RewardModel | None:
    """The reward model that a job has fitted, if it got so far."""
    return database.record(RewardModel, "SELECT * FROM reward_models WHERE job_id = ?", (job_id,))
