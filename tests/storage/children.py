"""What other processes do in these tests: `python children.py NAME WORKSPACE ...`, talking through stdin and stdout."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from storage import database as storage_database
from storage import jobs, settings, unfinished
from storage.database import open_database
from storage.errors import LeaseLostError
from storage.exchange import importing
from storage.exchange.layouts.entries import Entry
from storage.feedback import log
from storage.schema.migrations import CURRENT, MIGRATIONS, Migration
from storage.workspace import Workspace

NEXT_MIGRATION = Migration(
    CURRENT + 1, "a step of tomorrow",
    "CREATE TABLE moods (id TEXT PRIMARY KEY) STRICT;\nINSERT INTO moods VALUES ('calm');\n"
    "ALTER TABLE prompts ADD COLUMN mood TEXT REFERENCES moods (id);\nDROP TABLE settings;\n",
)  # fmt: skip


def say(text: str) -> None:
    print(text, flush=True)


def rate_for_ever(workspace: Workspace, sample_id: str) -> None:
    """Print the key of each rating once it is committed."""
    with open_database(workspace) as database:
        while True:
            say(log.append(database, log.score(sample_id, 3, f"rater of {os.getpid()}")).id)


def hammer(workspace: Workspace, sample_id: str, count: str) -> None:
    """Read and write in one transaction, as fast as it goes."""
    with open_database(workspace) as database:
        say("ready")
        sys.stdin.readline()
        for turn in range(int(count)):
            with database.transaction():
                counter = settings.get(database, "counter", 0)
                log.append(database, log.note(sample_id, f"turn {turn}", f"rater of {os.getpid()}"))
                settings.put(database, "counter", counter + 1)
    say("done")


def claim_all(workspace: Workspace) -> None:
    """Claim jobs until none is left, and print each."""
    with open_database(workspace) as database:
        say("ready")
        sys.stdin.readline()
        while job := jobs.claim(database, f"worker {os.getpid()}"):
            say(job.id)


def hold(workspace: Workspace) -> None:
    """Claim a job as a trainer does, and hold it for ever."""
    with open_database(workspace) as database:
        assert jobs.claim(database, jobs.worker_name(), pid=os.getpid()) is not None
        say("claimed")
        sys.stdin.readline()


def finish_when_told(workspace: Workspace, lease: str) -> None:
    """Claim the job, and finish it after a line on stdin."""
    with open_database(workspace) as database:
        job = jobs.claim(database, "the stopped one", lease=float(lease))
        assert job is not None
        say("claimed")
        sys.stdin.readline()
        for write in (
            lambda: jobs.heartbeat(database, job),
            lambda: jobs.progress(database, job, stage="ppo", step=1, steps=2),
            lambda: jobs.finish(database, job, {"version": "v1"}),
        ):
            try:
                write()
                say("wrote")
            except LeaseLostError:
                say("lease lost")


def die_while_migrating(workspace: Workspace, after: str) -> None:
    """Start the next migration and be killed after so many of its statements."""

    def some_statements(script: str) -> Iterator[str]:
        for number, statement in enumerate(every_statement(script)):
            if number == int(after):
                os.kill(os.getpid(), signal.SIGKILL)
            yield statement

    every_statement = storage_database._statements
    storage_database._statements = some_statements
    storage_database.MIGRATIONS = (*MIGRATIONS, NEXT_MIGRATION)
    storage_database.CURRENT = NEXT_MIGRATION.number
    open_database(workspace)


def open_only(workspace: Workspace) -> None:
    """Open the database when told, as the app and the trainer do at the same moment."""
    say("ready")
    sys.stdin.readline()
    with open_database(workspace) as database:
        say(database.journal_mode)


def import_some(workspace: Workspace, file: str, after: str) -> None:
    """Import a file and be killed after so many of its transactions."""
    stored = 0

    class Killed(importing._Storing):
        def store(self, entries: list[Entry]) -> None:
            nonlocal stored
            super().store(entries)
            stored += 1
            if stored == int(after):
                os.kill(os.getpid(), signal.SIGKILL)

    importing._Storing = Killed
    unfinished.MOST_ROWS = 50  # however fast the machine is, there are more transactions than that
    with open_database(workspace) as database:
        importing.import_file(database, file)
    say("imported")


def write_all_along(workspace: Workspace) -> None:
    """Write settings until a line on stdin; prints how many, and the longest that one took in seconds."""
    with open_database(workspace) as database:
        count, longest = 0, 0.0
        say("ready")
        while not select.select([sys.stdin], [], [], 0.001)[0]:
            began = time.monotonic()
            settings.put(database, "counter", count)
            longest, count = max(longest, time.monotonic() - began), count + 1
    say(f"{count} {longest}")


if __name__ == "__main__":
    _, name, folder, *arguments = sys.argv
    globals()[name](Workspace(Path(folder)), *arguments)
