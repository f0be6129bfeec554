"""The trainer of the chaos run: short jobs one after another, and what must hold of a job that went on."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from storage import jobs, versions
from storage.database import Database, open_database
from storage.records import Job, JobState
from storage.workspace import Workspace

STEPS = 24
OPTIONS = (
    "--steps", STEPS, "--max-new-tokens", 12, "--checkpoint-every", 3, "--reward-epochs", 1, "--reward-batch", 32,
    # What is tested is the way to a version and not its worth: every candidate passes the gate.
    "--gate-min-gain", -1e9, "--gate-max-kl", 1e9,
)  # fmt: skip
EVERY_STEP = "objective/kl"
DIFFER = ("timing/", "throughput/", "memory/")  # figures that no two runs share
PATIENCE = 3  # how often a job is resumed in vain, without a fault in force, before another is begun
Figures = dict[tuple[str, str | None, int], float | None]
Tell = Callable[[str, str], None]


class Trainer:
    """`trainer run` again and again on one workspace; a job that was stopped is resumed until it is done."""

    def __init__(self, workspace: Workspace, model: Path, environment: dict[str, str], tell: Tell) -> None:
        self.workspace = workspace
        self.model = model
        self.environment = {**os.environ, **environment}
        self.tell = tell
        self.process: subprocess.Popen[bytes] | None = None
        self.log = workspace.logs / "chaos-trainer.log"
        self.done = 0
        self._in_vain = 0
        self._seen: dict[str, Figures] = {}  # of jobs that were killed, as they were left

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tend(self, *, faulted: bool = False) -> None:
        """See to it that a process works: on the newest job until that is done, then on another."""
        if self.is_running:
            return
        job = self.newest()
        if self.process is not None:
            self._settle(job, faulted)
        if job is None or job.state is JobState.DONE or self._in_vain >= PATIENCE:
            self._in_vain = 0
            self._start("run", "--model", str(self.model), *map(str, OPTIONS))
        else:
            self._start("resume", job.id)

    def holds_a_job(self) -> bool:
        """Whether the process has claimed its job."""
        job = self.newest()
        return self.is_running and job is not None and job.pid == self.process.pid  # type: ignore[union-attr]

    def kill(self) -> str:
        """SIGKILL at work; what it was doing, or nothing where it had ended already."""
        process, job = self.process, self.newest()
        if process is None or process.poll() is not None:
            return ""
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.process = None
        if job is None:
            return "starting"
        self._seen.setdefault(job.id, {}).update(self._figures(job))
        return job.stage or "preparing"

    def newest(self) -> Job | None:
        """The job that was stored last, whatever the clock said."""
        with open_database(self.workspace) as database:
            key = database.scalar("SELECT id FROM jobs ORDER BY rowid DESC LIMIT 1")
            return jobs.get(database, key) if key else None

    def close(self) -> None:
        if self.is_running and self.process is not None:
            self.process.kill()
            self.process.wait()

    def _start(self, *arguments: str) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer", *arguments, "--workspace", str(self.workspace.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
            )  # fmt: skip

    def _settle(self, job: Job | None, faulted: bool) -> None:
        """Look at how a process ended that was not killed."""
        assert self.process is not None
        code, self.process = self.process.returncode, None
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if "Traceback" in said:
            self.tell("traceback", f"trainer:\n{said[-6000:]}")
        if code == 0 and job is not None and job.state is JobState.DONE:
            self.done += 1
            self._in_vain = 0
            for promise in self._broken(job):
                self.tell("broken promise", f"trainer: {promise}")
            self._seen.pop(job.id, None)
        elif not faulted:
            self._in_vain += 1
            self.tell("broken promise", f"trainer ended with exit code {code} and no fault in force:\n{said[-3000:]}")

    def _broken(self, job: Job) -> Iterator[str]:
        """What does not hold of a job that is done."""
        now, before = self._figures(job), self._seen.get(job.id, {})
        with open_database(self.workspace) as database:
            rows = database.scalar("SELECT count(*) FROM metrics WHERE job_id = ?", (job.id,))
            made = [version.name for version in versions.every(database) if version.job_id == job.id]
        steps = sorted(step for name, language, step in now if (name, language) == (EVERY_STEP, None))
        if steps != list(range(1, len(steps) + 1)):
            yield f"metrics have a gap: {steps}"
        if rows != len(now):
            yield f"metrics have doubles: {rows} rows, {len(now)} figures"
        if other := {
            key: (value, now.get(key)) for key, value in before.items() if not _same(key, value, now.get(key))
        }:
            yield f"steps done again give other figures: {dict(list(other.items())[:4])}"
        if len(made) != 1:
            yield f"one job made the versions {made}"

    def _figures(self, job: Job) -> Figures:
        with open_database(self.workspace) as database:
            return _figures(database, job.id)


def _figures(database: Database, job_id: str) -> Figures:
    found = database.rows("SELECT name, language, step, value FROM metrics WHERE job_id = ?", (job_id,))
    return {(row["name"], row["language"], row["step"]): row["value"] for row in found}


def _same(key: tuple[str, str | None, int], one: float | None, other: float | None) -> bool:
    if key[0].startswith(DIFFER) or one is other:
        return True
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
