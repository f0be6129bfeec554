"""Starting the trainer from the app: the command a person would type, detached and at low priority.

The job is in the database before the process starts, so that closing the app at any moment loses nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from storage import clock, jobs
from storage.database import Database
from storage.errors import WorkbenchError
from storage.records import Job, JobState
from storage.workspace import Workspace

NICENESS = 10


class Trainers:
    """The trainer processes that this app has started. They live on when the app ends."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def enqueue(self, database: Database, stage: str, config: dict[str, Any], steps: int) -> Job:
        """Queue a job for a stage of the trainer (say, `run`) with its configuration, and name its log."""
        with database.transaction():
            return self.log_anew(database, jobs.enqueue(database, stage, config, steps=steps))

    def log_anew(self, database: Database, job: Job) -> Job:
        """Name the log of the worker that is about to be started."""
        jobs.set_log(database, job.id, f"logs/trainer-{clock.now()[:10]}-{job.id[-8:]}.log")
        return jobs.get(database, job.id)

    def spawn(self, job: Job) -> None:
        """Start a worker for a job that is queued, was paused, has failed or was abandoned.

        Raises:
            WorkbenchError: the process could not be started; the job stays as it is.
        """
        command = [sys.executable, "-m", "trainer", job.kind, "--workspace", str(self.workspace.root), "--job", job.id]
        try:
            with (self.workspace.root / (job.log or os.devnull)).open("ab") as output:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    env=environment(os.environ), start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise WorkbenchError(
                f"the trainer could not be started: {error}", f"try it by hand: {' '.join(command)}"
            ) from error
        try:
            lower_priority(process.pid)
        except ProcessLookupError:
            pass  # it has ended already; `reap` says why
        self.started[job.id] = process

    def reap(self, database: Database) -> WorkbenchError | None:
        """Collect workers that ended; returns a failure of one that ended without saying why in its job."""
        for job_id, process in list(self.started.items()):
            code = process.poll()
            if code is None:
                continue
            del self.started[job_id]
            job = jobs.get(database, job_id)
            unexplained = job.state is JobState.QUEUED or (job.state is JobState.RUNNING and job.pid == process.pid)
            if code != 0 and unexplained:
                return WorkbenchError(
                    f"the trainer ended with exit code {code}", f"its log is {self.workspace.root / (job.log or '')}"
                )
            if job.state is JobState.FAILED:
                log = f"log: {self.workspace.root / (job.log or '')}"
                return WorkbenchError(f"{job.kind} failed: {job.error}", f"{job.hint}\n{log}" if job.hint else log)
        return None


def lower_priority(pid: int) -> None:
    """Let everything else go first. Raises ProcessLookupError when the process has ended.

    Where Linux schedules by session (autogroup), niceness counts within a session only, and the trainer has one of its
    own: the whole session is then made nice as well.
    """
    os.setpriority(os.PRIO_PROCESS, pid, NICENESS)
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS), encoding="ascii")
    except (FileNotFoundError, PermissionError, BlockingIOError):
        pass  # no autogroup here


def environment(outer: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """The trainer's environment: all cores but one, unless the user has set a number of threads."""
    threads = str(max(1, (os.cpu_count() or 2) - 1))
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **outer, "PYTHONUNBUFFERED": "1"}
