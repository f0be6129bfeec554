"""The trainer of the crash benchmark: short jobs one after another, and what must hold of a job that went on."""

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
Check = Callable[[str, object, object], None]
Figures = dict[tuple[str, str | None, int], float | None]


class Trainer:
    """`trainer run` again and again on one workspace."""

    def __init__(self, workspace: Workspace, model: Path) -> None:
        self.workspace = workspace
        self.model = model
        self.done = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.log = workspace.logs / "crash-trainer.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def tend(self, check: Check) -> None:
        """Start a job when none is under way; check the one that ended."""
        if not self.is_running:
            self.settle(check)
            self._start("run", "--model", str(self.model), *map(str, OPTIONS))

    def settle(self, check: Check) -> None:
        """Check how a process ended that was not stopped."""
        if self.process is None:
            return
        job, figures = self._look()
        ended = self.process.returncode == 0 and job.state is JobState.DONE
        check("trainer ends well", ended, self.log.read_text(encoding="utf-8")[-2000:])
        for what, holds, detail in self.compare(job.id, figures):
            check(what, holds, detail)
        self.done += ended
        self.process = None

    def works(self, check: Check, stage: str = "") -> bool:
        """Whether the process holds a job and, where a stage is named, works on that stage of it."""
        self.tend(check)
        assert self.process is not None
        with open_database(self.workspace) as database:
            newest = jobs.every(database, 1)
        held = bool(newest) and newest[0].state is JobState.RUNNING and newest[0].pid == self.process.pid
        return held and newest[0].stage.startswith(stage)

    def kill(self) -> tuple[Job, Figures]:
        """SIGKILL; returns the job as it was left, and its figures."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        return self._look()

    def interrupt(self) -> tuple[Job, Figures]:
        """Ctrl-C, once; returns the job as it was left, and its figures."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.process = None
        return self._look()

    def resume(self, job: Job) -> None:
        self._start("resume", job.id)

    def has_passed(self, job: Job, before: Figures) -> bool:
        """Whether a job has gone beyond the step that an earlier worker left it at. Raises AssertionError when the
        process that resumed it has failed."""
        code = self.process.poll() if self.process is not None else None
        assert code in (None, 0), self.log.read_text(encoding="utf-8")[-2000:]
        now, after = self._look()
        return now.attempts > job.attempts and (now.state is JobState.DONE or _last(after) > _last(before))

    def compare(self, job_id: str, before: Figures) -> Iterator[tuple[str, bool, object]]:
        """What must hold of a job's figures after it went on: `(what, whether it does, detail)`."""
        with open_database(self.workspace) as database:
            job = jobs.get(database, job_id)
            after = _figures(database, job_id)
            rows = database.scalar("SELECT count(*) FROM metrics WHERE job_id = ?", (job_id,))
            made = [version.name for version in versions.every(database) if version.job_id == job_id]
        names = {name for name, language, step in after if language is None and (name, None, 1) in after}
        for name in sorted(names & {EVERY_STEP, "loss/reward", "objective/scores"}):
            steps = sorted(step for found, language, step in after if (found, language) == (name, None) and step)
            yield "metrics have no gap", steps == list(range(1, len(steps) + 1)), (name, steps)
        yield "metrics have no doubles", rows == len(after), (rows, len(after))
        other = {key: (value, after.get(key)) for key, value in before.items() if not _same(key, value, after.get(key))}
        yield "steps done again give the same figures", not other, dict(list(other.items())[:4])
        if job.state is JobState.DONE:
            yield "one version a job", len(made) == 1, made

    def close(self) -> None:
        if self.is_running and self.process is not None:
            self.process.kill()
            self.process.wait()

    def _start(self, *arguments: str) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer", *arguments, "--workspace", str(self.workspace.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def _look(self) -> tuple[Job, Figures]:
        """The newest job and its figures."""
        with open_database(self.workspace) as database:
            job = jobs.every(database, 1)[0]
            return job, _figures(database, job.id)


def _figures(database: Database, job_id: str) -> Figures:
    found = database.rows("SELECT name, language, step, value FROM metrics WHERE job_id = ?", (job_id,))
    return {(row["name"], row["language"], row["step"]): row["value"] for row in found}


def _last(figures: Figures) -> int:
    """The last step of the policy; 0 before the first."""
    return max((step for name, language, step in figures if name == EVERY_STEP), default=0)


def _same(key: tuple[str, str | None, int], one: float | None, other: float | None) -> bool:
    if key[0].startswith(DIFFER) or one is other:
        return True
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-6)
