"""The job queue: who trains what, and whether they are still alive.

A worker claims a job under a lease and renews it with heartbeats. Each claim raises the job's fence; every write of a
worker names its fence, so that one that was stopped past its lease (and whose job another has taken over) changes
nothing any more. The lease of a worker on this host ends with its process; that of one elsewhere must run out.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from storage import clock, unfinished
from storage.database import Database
from storage.errors import LeaseLostError, UsageError, WorkbenchError
from storage.records import Begun, Job, JobState
from storage.wording import counted

LEASE_SECONDS = 60.0
RATINGS_AT_A_TIME = 10_000


def enqueue(database: Database, kind: str, config: dict[str, Any], *, steps: int = 0, log: str | None = None) -> Job:
    """Add a job to the queue."""
    created = Job(clock.new_id(), kind, config, JobState.QUEUED, clock.now(), steps=steps, log=log)
    with database.transaction():
        database.insert("jobs", created)
    return created


def claim(
    database: Database, worker: str, *, job_id: str | None = None, pid: int | None = None, lease: float = LEASE_SECONDS
) -> Job | None:
    """Take a job: the one named, else the oldest that waits or whose worker died. None when there is none to take.

    Raises:
        UsageError: the named job does not exist, has ended, or a living worker holds it.
    """
    unfinished.sweep_after_the_dead(database)
    with database.transaction():
        _end_leases_of_the_dead(database)
        moment = clock.now()
        found = database.record(
            Job,
            """SELECT * FROM jobs WHERE (:id IS NULL OR id = :id)
               AND (state = 'queued' OR (:id IS NOT NULL AND state IN ('paused', 'failed'))
                    OR (state = 'running' AND lease_until < :moment AND (:id IS NOT NULL OR NOT cancel_requested)))
               ORDER BY sequence LIMIT 1""",
            {"id": job_id and get(database, job_id).id, "moment": moment},
        )
        if found is None:
            if job_id is None:
                return None
            job = get(database, job_id)
            reason = "is running in another process" if job.state == JobState.RUNNING else f"is {job.state} already"
            raise UsageError(f"job {job_id} {reason}", "`trainer jobs` lists all jobs and their states")
        database.execute(
            """UPDATE jobs SET state = 'running', worker = ?, pid = ?, lease_until = ?, heartbeat_at = ?,
               fence = fence + 1, attempts = attempts + 1, cancel_requested = 0, error = NULL, hint = NULL,
               started_at = ifnull(started_at, ?), begun = ifnull(begun, ?), finished_at = NULL WHERE id = ?""",
            (worker, pid, clock.after(lease), moment, moment, msgspec.json.encode(now(database)).decode(), found.id),
        )
        return get(database, found.id)


def now(database: Database) -> Begun:
    """Where the workspace stands: a job that begins at this moment learns from what is there by now."""
    newest = {
        table: database.scalar(f"SELECT ifnull(max(sequence), 0) FROM main.{table}")
        for table in ("ratings", "prompts", "samples", "version_events", "reward_models")
    }
    # What an import is storing now comes into view later: to a job it is as what comes after its beginning.
    hidden = unfinished.first_hidden(database)
    return Begun(**{table: min(sequence, hidden.get(table, sequence + 1) - 1) for table, sequence in newest.items()})


def heartbeat(
    database: Database, job: Job, lease: float = LEASE_SECONDS, *, place: tuple[str, int, int] | None = None
) -> bool:
    """Renew the lease, and say how far the job's stage is (`place`: stage, step, steps), unless it is further by now.
    Returns whether a cancel was requested. Raises LeaseLostError when another worker took over."""
    with database.transaction():
        _update(database, job, "lease_until = ?, heartbeat_at = ?", (clock.after(lease), clock.now()))
        if place is not None:
            stage, step, steps = place
            database.execute(
                "UPDATE jobs SET step = ?, steps = ? WHERE id = ? AND stage = ? AND step < ?",
                (step, steps, job.id, stage, step),
            )
        return bool(database.scalar("SELECT cancel_requested FROM jobs WHERE id = ?", (job.id,)))


def progress(database: Database, job: Job, *, stage: str, step: int, steps: int) -> None:
    """Say where the job stands. Raises LeaseLostError when another worker took over."""
    with database.transaction():
        _update(database, job, "stage = ?, step = ?, steps = ?", (stage, step, steps))


def set_checkpoint(database: Database, job: Job, checkpoint: str) -> None:
    """Name the folder (relative to the workspace) from which the job can go on."""
    with database.transaction():
        _update(database, job, "checkpoint = ?", (checkpoint,))


def set_config(database: Database, job_id: str, config: dict[str, Any]) -> None:
    """Go on with other settings than a job began with."""
    with database.transaction():
        database.execute("UPDATE jobs SET config = ? WHERE id = ?", (msgspec.json.encode(config).decode(), job_id))


def set_log(database: Database, job_id: str, log: str) -> None:
    """Name the log file (relative to the workspace)."""
    with database.transaction():
        database.execute("UPDATE jobs SET log = ? WHERE id = ?", (log, job_id))


def finish(database: Database, job: Job, result: dict[str, Any]) -> None:
    """The job is done."""
    _end(database, job, JobState.DONE, result=result)


def pause(database: Database, job: Job) -> None:
    """The job stopped on request and can be resumed from its checkpoint."""
    _end(database, job, JobState.PAUSED)


def fail(database: Database, job: Job, error: str, hint: str = "") -> None:
    """The job failed; `error` says what happened, `hint` what to do."""
    _end(database, job, JobState.FAILED, error=error, hint=hint)


def check(database: Database, job: Job) -> None:
    """Raise LeaseLostError unless this worker still holds the job. Call inside the transaction that writes."""
    _update(database, job, "fence = fence", ())


def request_cancel(database: Database, job_id: str) -> Job:
    """Ask the worker to stop at the next step, leaving a checkpoint; a job without a living worker pauses at once."""
    with database.transaction():
        job = get(database, job_id)
        if job.state in (JobState.DONE, JobState.FAILED, JobState.PAUSED):
            raise UsageError(f"job {job_id} is {job.state} already", "there is nothing to cancel")
        waiting = not is_alive(job)
        database.execute(
            "UPDATE jobs SET cancel_requested = 1, state = ? WHERE id = ?",
            (JobState.PAUSED if waiting else job.state, job.id),
        )
    return get(database, job.id)


def get(database: Database, job_id: str) -> Job:
    """One job by its key or an unambiguous beginning or ending of it. Raises UsageError when there is none."""
    wanted = job_id.strip().lower()
    found = database.records(Job, "SELECT * FROM jobs WHERE id = ?", (job_id,)) or database.records(
        Job,
        "SELECT * FROM jobs WHERE substr(id, 1, length(?1)) = ?1 OR substr(id, -length(?1)) = ?1",
        (wanted,),
    )
    if len(found) != 1 or not wanted:
        what = "there is no job" if not found else f"{len(found)} jobs answer to"
        raise UsageError(f"{what} {job_id!r}", "`trainer jobs` lists all jobs")
    return found[0]


def every(database: Database, limit: int = 1000) -> list[Job]:
    """All jobs, newest first."""
    return database.records(Job, "SELECT * FROM jobs ORDER BY sequence DESC LIMIT ?", (limit,))


def is_alive(job: Job) -> bool:
    """Whether a running job's worker has renewed its lease in time, and is not known to be dead."""
    in_time = job.state == JobState.RUNNING and job.lease_until is not None and job.lease_until >= clock.now()
    return in_time and not _has_died(job)


def worker_name() -> str:
    """This process as a worker: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def link_ratings(database: Database, job: Job, rating_ids: Sequence[str]) -> None:
    """Record which ratings a job learns from, some thousands at a time: nobody else waits long for the database.

    Raises:
        LeaseLostError: another worker took over.
        WorkbenchError: a rating is of a prompt that is not for training, so that no job may learn from it; none is
            recorded, unless it was held out while they were being recorded.
    """
    _refuse_apart(database, rating_ids)
    for start in range(0, max(1, len(rating_ids)), RATINGS_AT_A_TIME):
        some = rating_ids[start : start + RATINGS_AT_A_TIME]
        with database.transaction():
            check(database, job)
            _refuse_apart(database, some)
            database.execute(
                "INSERT OR IGNORE INTO job_ratings SELECT ?, value FROM json_each(?)",
                (job.id, msgspec.json.encode(list(some)).decode()),
            )


def _refuse_apart(database: Database, rating_ids: Sequence[str]) -> None:
    apart = database.scalar(
        """SELECT count(DISTINCT ratings.id) FROM json_each(?) AS wanted JOIN ratings ON ratings.id = wanted.value
           JOIN samples ON samples.id IN (ratings.sample_id, ratings.other_sample_id)
           JOIN prompts ON prompts.id = samples.prompt_id WHERE prompts.split != 'train'""",
        (msgspec.json.encode(list(rating_ids)).decode(),),
    )
    if apart:
        raise WorkbenchError(
            f"{apart} of {counted(len(rating_ids), 'rating')} to learn from are of held-out or ethics prompts",
            "nothing was learned from them; if a prompt was held out just now, start the job again",
        )


def ratings_of(database: Database, job_id: str) -> list[str]:
    """The keys of the ratings that a job learned from."""
    return [row["rating_id"] for row in database.rows("SELECT rating_id FROM job_ratings WHERE job_id = ?", (job_id,))]


def _has_died(job: Job) -> bool:
    """Whether the worker ran on this host and its process is gone. (A number taken by another process looks alive: then
    the lease decides.)"""
    if job.pid is None or job.worker != f"{socket.gethostname()}:{job.pid}":
        return False
    import psutil

    try:
        return psutil.Process(job.pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _end_leases_of_the_dead(database: Database) -> None:
    """Whatever the clock said when they last renewed them: an empty text comes before every moment."""
    for job in database.records(Job, "SELECT * FROM jobs WHERE state = 'running' AND lease_until != ''"):
        if _has_died(job):
            database.execute("UPDATE jobs SET lease_until = '' WHERE id = ?", (job.id,))


def _end(
    database: Database,
    job: Job,
    state: JobState,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
    hint: str | None = None,
) -> None:
    encoded = None if result is None else msgspec.json.encode(result).decode()
    with database.transaction():
        _update(
            database, job, "state = ?, result = ?, error = ?, hint = ?, lease_until = NULL, finished_at = ?",
            (state, encoded, error, hint, clock.now()),
        )  # fmt: skip


def _update(database: Database, job: Job, assignments: str, values: tuple[Any, ...]) -> None:
    changed = database.execute(
        f"UPDATE jobs SET {assignments} WHERE id = ? AND fence = ? AND state = 'running'", (*values, job.id, job.fence)
    )
    if changed != 1:
        raise LeaseLostError(
            f"job {job.id} was taken over by another worker", "this process stops; the other one goes on with the job"
        )
