"""The open workspace as the screens use it. Loaded after the first paint, because the database layer is slow to import.

Every write here has committed, and is synced to disk, when it returns: only then does a screen say "saved".
"""

from __future__ import annotations

from typing import Any

from storage import comparison, conversations, jobs, metrics, versions
from storage.comparison import Comparison, Curves
from storage.database import Database, open_database
from storage.feedback import census, log, queue
from storage.feedback.queue import ReviewItem
from storage.feedback.stock import Stock, take_stock
from storage.records import Choice, Job, JobState, Prompt, Rating, Sample, Version
from storage.workspace import Workspace
from workbench.engine.recording import store_answers
from workbench.screens.prompt.conversation import Exchange
from workbench.training.boards import BOARDS, board_of, with_parts
from workbench.training.curves import points_of, seconds_left
from workbench.training.status import TrainerStatus, trainer_status
from workbench.training.view import TrainView

PATIENCE_MS = 3000  # a write waits this long for another process: an app that stands still is worse than a message


class Store:
    """One connection to the workspace, for the app's event loop."""

    def __init__(self, workspace: Workspace, database: Database, rater: str) -> None:
        self.workspace = workspace
        self.database = database
        self.rater = rater

    @classmethod
    def open(cls, workspace: Workspace, rater: str) -> Store:
        """Open the workspace's database. Raises WorkbenchError as `open_database`."""
        database = open_database(workspace)
        database.execute(f"PRAGMA busy_timeout = {PATIENCE_MS}")
        return cls(workspace, database, rater)

    # Prompts and answers

    def remember_prompt(self, text: str, language: str, system: str) -> Prompt:
        """Store what is asked, as typed."""
        return conversations.add(self.database, text, language=language, system=system)

    def remember_answers(self, exchange: Exchange) -> list[Sample]:
        """Store the answers of a finished exchange, in one transaction, in the order they stand on screen."""
        asked = exchange.ask.generate
        answers = list(exchange.answers.values())
        return store_answers(self.database, exchange.ask.prompt.id, answers, asked.sampling, asked.request)

    def history(self, search: str = "", limit: int = 200) -> list[Prompt]:
        """Earlier prompts, newest first."""
        return conversations.recent(self.database, limit, search)

    # Ratings

    def rate(self, rating: Rating) -> Rating:
        """Append one event; committed and synced when this returns."""
        return log.append(self.database, rating)

    def score(self, sample: Sample, value: int, **more: Any) -> Rating:
        return self.rate(log.score(sample.id, value, self.rater, **more))

    def label(self, sample: Sample, good: bool, **more: Any) -> Rating:
        return self.rate(log.label(sample.id, good, self.rater, **more))

    def pair(self, a: Sample, b: Sample, choice: Choice, **more: Any) -> Rating:
        return self.rate(log.pair(a.id, b.id, choice, self.rater, **more))

    def prefer(self, best: Sample, others: list[Sample], **more: Any) -> list[Rating]:
        """The best of several, as one preference against each of the others."""
        return log.append_all(
            self.database, [log.pair(best.id, other.id, Choice.A, self.rater, **more) for other in others]
        )

    def tie(self, answers: list[Sample], **more: Any) -> list[Rating]:
        """No difference between any two of the answers."""
        pairs = [(a, b) for n, a in enumerate(answers) for b in answers[n + 1 :]]
        return log.append_all(self.database, [log.pair(a.id, b.id, Choice.TIE, self.rater, **more) for a, b in pairs])

    def edit(self, sample: Sample, text: str, **more: Any) -> Rating:
        return self.rate(log.edit(sample.id, text, self.rater, **more))

    def note(self, sample: Sample, text: str, **more: Any) -> Rating:
        return self.rate(log.note(sample.id, text, self.rater, **more))

    def skip(self, sample: Sample, *, cannot_judge: bool = False, **more: Any) -> Rating:
        return self.rate(log.skip(sample.id, self.rater, cannot_judge=cannot_judge, **more))

    def undo(self) -> Rating | None:
        return log.undo(self.database, self.rater)

    def redo(self) -> Rating | None:
        return log.redo(self.database, self.rater)

    def ratings_of(self, sample: Sample) -> list[Rating]:
        """What this rater says of a sample today."""
        return log.effective(self.database, rater=self.rater, sample_id=sample.id)

    def rated(self) -> int:
        """How many ratings count today, by anyone; skips and notes are none."""
        return census.rated(self.database)

    def rated_by_language(self) -> list[tuple[str, int]]:
        """This rater's ratings by language, most first."""
        found = census.ratings_by_language(self.database, self.rater)
        return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))

    def position(self) -> int:
        """The newest event of the log: what comes later has a higher number."""
        return log.position(self.database)

    def next_items(self, limit: int, session_start: int) -> list[ReviewItem]:
        """What this rater should review next, best first."""
        return queue.next_items(self.database, self.rater, limit, session_start=session_start)

    def counts(self) -> list[tuple[str, str, int]]:
        """Ratings that count, as (language, kind, number), over all raters."""
        return census.ratings_by_language_and_kind(self.database)

    # Training

    def stock(self, version: str) -> Stock:
        """What there is to train on, for the base model of a version (by default, of the served one)."""
        of = versions.find(self.database, version) or versions.served(self.database)
        return take_stock(self.database, of.base_digest if of else "")

    def newest_job(self) -> Job | None:
        found = jobs.every(self.database, 1)
        return found[0] if found else None

    def jobs(self, limit: int = 200) -> list[Job]:
        """The newest jobs, newest first."""
        return jobs.every(self.database, limit)

    def compared(self, job_ids: list[str]) -> tuple[Comparison, Curves]:
        """Runs beside each other, and their curves."""
        found = comparison.compare(self.database, job_ids)
        return found, comparison.curves(self.database, found.runs)

    def is_alive(self, job: Job) -> bool:
        return jobs.is_alive(job)

    def trainer(self) -> TrainerStatus:
        """What the header says of the trainer."""
        job = self.newest_job()
        if job is None or job.state is JobState.DONE:
            return TrainerStatus()
        kl = metrics.latest(self.database, job.id).get(("objective/kl", None))
        return trainer_status(
            job, alive=jobs.is_alive(job), kl=kl.value if kl else None, seconds_left=self._seconds_left(job)
        )

    def train_view(self, width: int) -> TrainView:
        """The newest job as it stands; curves are thinned to about two points a column of `width`."""
        job = self.newest_job()
        if job is None:
            return TrainView(None, TrainerStatus(), {}, {}, [], "", self.counts(), None)
        latest = {key: metric.value for key, metric in metrics.latest(self.database, job.id).items()}
        curves = {
            (name, language): points_of(metrics.series(self.database, job.id, name, language), 2 * width)
            for name in with_parts(board_of(job.kind, job.stage), latest).metrics
            for language in (None, *metrics.languages(self.database, job.id, name))
        }
        return TrainView(
            job, self.trainer(), curves, latest, metrics.recent_rollouts(self.database, job.id, 8),
            self.log_tail(job), self.counts(), self._seconds_left(job),
        )  # fmt: skip

    def log_tail(self, job: Job, size: int = 4000) -> str:
        """The end of a job's log (raw text); empty when there is none yet."""
        if not job.log:
            return ""
        try:
            with (self.workspace.root / job.log).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - size))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    def _seconds_left(self, job: Job) -> float | None:
        if not jobs.is_alive(job) or job.stage not in BOARDS:
            return None
        every_step = BOARDS[job.stage].charts[0].metric  # written once a step: its moments give the pace
        found = self.database.rows(
            """SELECT step, created_at AS at FROM metrics WHERE job_id = ? AND name = ? AND language IS NULL
               ORDER BY step DESC LIMIT 12""",
            (job.id, every_step),
        )
        return seconds_left([(row["step"], row["at"]) for row in reversed(found)], job.step, job.steps)

    # Versions

    def served(self) -> Version | None:
        return versions.served(self.database)

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        return versions.every(self.database)

    def find_version(self, name: str) -> Version | None:
        return versions.find(self.database, name)

    def publish(self, name: str) -> Version:
        return versions.publish(self.database, self.workspace, name, f"published by {self.rater}")

    def rollback(self) -> Version:
        return versions.rollback(self.database, self.workspace, f"rolled back by {self.rater}")

    # The rest

    def changed(self) -> int:
        """A number that moves when another process has written."""
        return self.database.data_version()

    def close(self) -> None:
        self.database.close()
