"""From the database to news: what stands in it at one moment, and what two such moments tell.

Each look costs a few steps whatever the size of the workspace: the newest row of a table is the end of its tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from storage import jobs, metrics, unfinished, versions
from storage.database import Database
from storage.errors import WorkbenchError
from storage.feedback import census
from storage.records import Job, JobState, Version
from workbench.shell.messages import (
    AnswersChanged,
    Measured,
    News,
    RatingsChanged,
    TrainerMoved,
    TrainingDone,
    VersionsChanged,
)
from workbench.training.launcher import Trainers
from workbench.training.status import TrainerStatus, trainer_status
from workbench.training.view import seconds_to_go


@dataclass(frozen=True)
class Seen:
    """The workspace as it stood at one moment, as far as the header and the news need it."""

    version: int = -1  # `PRAGMA data_version`: moves when another connection commits
    ratings: int = -1
    answers: int = -1
    versions: tuple[int, ...] = ()
    measured: tuple[int, ...] = ()
    figures: tuple[int, ...] = ()
    rated: int | None = None  # how many ratings count today, by anyone; skips and notes are none
    job: Job | None = None
    trainer: TrainerStatus = field(default_factory=TrainerStatus)
    served: Version | None = None
    problem: WorkbenchError | None = None  # a trainer of ours that ended badly, told once


def look(database: Database, trainers: Trainers, seen: Seen, *, closely: bool) -> Seen:
    """How things stand; the same as `seen` where nothing has moved. `closely` also asks whether the trainer lives."""
    version = database.data_version()
    if version == seen.version and not closely:
        return replace(seen, problem=None)
    ratings = unfinished.newest(database, "ratings")
    job = next(iter(jobs.every(database, 1)), None)
    return Seen(
        version,
        ratings,
        unfinished.newest(database, "samples"),
        (_newest(database, "version_events"), *_known_of_versions(database)),
        (_newest(database, "reward_models"), database.scalar("SELECT max(rowid) FROM evaluations") or 0),
        (
            database.scalar("SELECT max(rowid) FROM metrics") or 0,
            database.scalar("SELECT max(rowid) FROM rollouts") or 0,
        ),
        seen.rated if ratings == seen.ratings else census.rated(database),
        job,
        _trainer(database, job),
        versions.served(database),
        trainers.reap(database),
    )


def told(before: Seen, now: Seen) -> list[News]:
    """What has changed from one moment to the other."""
    found: list[News] = []
    if now.ratings != before.ratings:
        found.append(RatingsChanged())
    if now.answers != before.answers:
        found.append(AnswersChanged())
    if now.versions != before.versions or now.served != before.served:
        found.append(VersionsChanged())
    if now.measured != before.measured:
        found.append(Measured())
    if (now.job, now.trainer, now.figures) != (before.job, before.trainer, before.figures):
        found.append(TrainerMoved())
    if before.trainer.state in ("training", "stopping") and now.job is not None and now.job.state is JobState.DONE:
        found.append(TrainingDone(now.job))
    return found


def _newest(database: Database, table: str) -> int:
    return database.scalar(f"SELECT max(sequence) FROM {table}") or 0


def _known_of_versions(database: Database) -> tuple[int, ...]:
    """Moves when there is another version, or a gate has told something of one."""
    row = database.row("SELECT count(*), total(length(gates)), total(length(metrics)) FROM versions")
    return tuple(int(value or 0) for value in row.values()) if row else ()


def _trainer(database: Database, job: Job | None) -> TrainerStatus:
    """What the header says of the trainer."""
    if job is None or job.state is JobState.DONE:
        return TrainerStatus()
    kl = metrics.newest(database, job.id, "objective/kl")
    return trainer_status(job, alive=jobs.is_alive(job), kl=kl, seconds_left=seconds_to_go(database, job))
