"""Holding a job while it is worked on: lease, heartbeat, cancellation, metrics, progress and the way it ends."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from storage import faults, jobs, metrics
from storage.database import Database, DatabaseError, open_database
from storage.errors import LeaseLostError, WorkbenchError
from storage.records import Job, JobState, Rollout
from storage.troubles import is_known, kindly
from storage.workspace import Workspace
from trainer.processes import Processes, in_touch

HEARTBEAT_SECONDS = 5.0
# A terminal's Ctrl-C reaches each process once, and again through their launcher: so soon, that is the same wish.
SAME_WISH_SECONDS = 2.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class CancelledError(WorkbenchError):
    """Somebody asked the job to stop; a checkpoint was left and `trainer resume` goes on from it."""

    exit_code = 130


class HeldJob:
    """A claimed job. One connection works; a second one, on its own thread, keeps the lease alive.

    Where several processes work on it, each has one of these, and only the main one's touches the database: whatever
    reads or writes it goes through :meth:`share`.
    """

    def __init__(
        self,
        workspace: Workspace,
        database: Database,
        job: Job,
        *,
        quiet: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.workspace = workspace
        self.database = database
        self.job = job
        self.processes = processes or Processes()
        self.share = self.processes.share
        self.quiet = quiet or not self.processes.main
        self._cancelled = threading.Event()
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True)
        self._bar: tqdm | None = None
        self._stage = ""
        self._shown = 0.0
        self._wished = -SAME_WISH_SECONDS

    @property
    def folder(self) -> Path:
        """Working files and checkpoints of the job."""
        return self.workspace.jobs / self.job.id

    @property
    def resuming(self) -> bool:
        """Whether an earlier attempt worked on this job."""
        return self.job.attempts > 1

    def drop_checkpoints(self) -> None:
        """Nothing goes on from them any more: what was learned is stored."""
        self.share(lambda: shutil.rmtree(self.folder / "checkpoints", ignore_errors=True))

    def check(self) -> None:
        """Raise, in all processes, when the job must stop now.

        Raises:
            CancelledError: a cancel was requested, or Ctrl-C pressed.
            LeaseLostError: another worker has taken over.
        """
        self.share(self._check)

    def _check(self) -> None:
        if self._lost.is_set():
            raise LeaseLostError(f"job {self.job.id} was taken over by another worker", "this process stops")
        if self._cancelled.is_set():
            raise CancelledError(f"job {self.job.id} was cancelled", f"go on with `trainer resume {self.job.id}`")

    def progress(self, stage: str, step: int, steps: int, at_once: bool = False, /, **figures: float) -> None:
        """Say where the job stands: in the database (at most twice a second within a stage, or
        `at_once`: the next step may take long) and on the bar."""
        if not self.processes.main:
            return
        now = time.monotonic()
        if at_once or stage != self._stage or step == steps or now - self._shown > 0.5:
            jobs.progress(self.database, self.job, stage=stage, step=step, steps=steps)
            self._shown = now
        if stage != self._stage:
            self._stage = stage
            self._close_bar()
            if not self.quiet:
                self._bar = tqdm(total=steps, desc=stage, file=sys.stderr, dynamic_ncols=True, mininterval=0.5)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if figures:
                self._bar.set_postfix({name: f"{value:.3g}" for name, value in figures.items()})

    def record(self, step: int, figures: dict[tuple[str, str | None], float], rollouts: Sequence[Rollout] = ()) -> None:
        """Store the metrics of a step. Raises LeaseLostError, storing nothing, when another worker has taken over."""

        def write() -> None:
            with self.database.transaction():
                jobs.check(self.database, self.job)
                metrics.record(self.database, self.job.id, step, figures)
                metrics.add_rollouts(self.database, rollouts)

        self.share(write)

    def say(self, text: str) -> None:
        """A line of narration on standard error, which is the job's log when it runs in the background."""
        if not self.processes.main:
            return
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)

    def run(self, work: Callable[[HeldJob], dict[str, Any]]) -> dict[str, Any]:
        """Do the work and record how it ended; the result is what `work` returned."""
        # The main process is told to stop, and stops the others: whoever leaves before it breaks its work off.
        handler = self._on_signal if self.processes.main else signal.SIG_IGN
        earlier = {number: signal.signal(number, handler) for number in SIGNALS}
        try:
            if self.processes.main:
                return self._run(work)
            with in_touch():
                return work(self)
        finally:
            for number, former in earlier.items():
                signal.signal(number, former)

    def _run(self, work: Callable[[HeldJob], dict[str, Any]]) -> dict[str, Any]:
        self._keeper.start()
        try:
            with in_touch():
                result = work(self)
            jobs.finish(self.database, self.job, result)
        except (CancelledError, KeyboardInterrupt):
            jobs.pause(self.database, self.job)
            raise
        except LeaseLostError:
            raise
        except WorkbenchError as error:
            jobs.fail(self.database, self.job, error.message, error.hint)
            raise
        except Exception as error:
            # Where the database is the trouble it may not take this either: then the lease runs out, and the job can
            # be resumed.
            with suppress(DatabaseError, WorkbenchError):
                jobs.fail(self.database, self.job, *self._in_words(error))
            raise
        finally:
            self._ended.set()
            self._close_bar()
            self._keeper.join()
        return result

    def _in_words(self, error: Exception) -> tuple[str, str]:
        """What the job's row says of a failure, and its hint."""
        if is_known(error):
            told = kindly(error, folder=self.workspace.root)
            return told.message, told.hint
        return f"{type(error).__name__}: {error}", f"the details are in the log {self.workspace.logs / faults.NAME}"

    def _keep_alive(self) -> None:
        with ExitStack() as opened:
            database: Database | None = None
            while not self._ended.wait(HEARTBEAT_SECONDS):
                try:
                    if database is None:
                        database = opened.enter_context(open_database(self.workspace, create=False))
                    if jobs.heartbeat(database, self.job):
                        self._cancelled.set()
                except LeaseLostError:
                    if not self._ended.is_set():
                        self._lost.set()
                    return
                except (DatabaseError, WorkbenchError):
                    continue  # locked, or a disk that fails: the next beat may come in time

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.processes.count > 1 and now - self._wished < SAME_WISH_SECONDS:
            return
        if self._cancelled.is_set():
            raise KeyboardInterrupt
        self._cancelled.set()
        self._wished = now
        self.say("stopping after this step; press again to stop at once")

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def claim(database: Database, job_id: str | None) -> Job | None:
    """Claim a job for this process, as :func:`storage.jobs.claim`."""
    return jobs.claim(database, jobs.worker_name(), job_id=job_id, pid=os.getpid())


def summary(database: Database, job_id: str, version: str | None) -> dict[str, Any]:
    """What a trainer stage prints: job, state, version, steps, metrics and, where there is one, the error."""
    job = jobs.get(database, job_id)
    latest = metrics.latest(database, job_id)
    rounds = latest.get(("objective/kl", None))
    return {
        "job": job.id,
        "state": str(job.state),
        "version": version,
        "steps": rounds.step if rounds else 0,
        "metrics": {
            name: metric.value for (name, language), metric in sorted(latest.items(), key=str) if language is None
        },
        "result": job.result if job.state == JobState.DONE else None,
        "error": job.error,
    }
