"""What the Train screen draws, read at one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from storage import jobs, metrics
from storage.database import Database
from storage.feedback import census
from storage.records import Job, Rollout
from storage.workspace import Workspace
from workbench.training.boards import BOARDS, Board, Key, board_of, with_parts
from workbench.training.curves import Curve, Series, seconds_left
from workbench.training.status import TrainerStatus, trainer_status

ROLLOUTS = 8
LOG_BYTES = 4000


@dataclass(frozen=True)
class TrainView:
    """Everything the Train screen draws, read at one moment."""

    job: Job | None
    status: TrainerStatus
    curves: dict[Key, Curve]
    latest: dict[Key, float | None]  # None where a figure could not be told
    rollouts: list[Rollout]
    log: str
    counts: list[tuple[str, str, int]]  # ratings by language and kind, but for judge models'
    judged: int  # ratings of judge models
    seconds_left: float | None

    @property
    def board(self) -> Board:
        """What is shown of the job."""
        found = board_of(self.job.kind, self.job.stage) if self.job is not None else board_of("", "")
        return with_parts(found, self.latest)

    @property
    def kl_target(self) -> float | None:
        """The KL that the controller steers towards, in nats a sequence."""
        recorded = self.latest.get(("objective/kl_target", None))
        configured = self.job.config.get("ppo", {}).get("kl_target") if self.job is not None else None
        return recorded if recorded is not None else configured


class History:
    """The figures of the newest job as far as they were read: each look reads only what has come since."""

    def __init__(self) -> None:
        self.job_id = ""
        self._forget("")

    def _forget(self, job_id: str) -> None:
        self.job_id, self.place = job_id, 0
        self.series: dict[Key, Series] = defaultdict(Series)
        self.latest: dict[Key, float | None] = {}

    def read(self, database: Database, job_id: str) -> None:
        """Go on with a job, or begin with another one."""
        if job_id != self.job_id:
            self._forget(job_id)
        figures, self.place = metrics.after(database, job_id, self.place)
        for name, language, step, value in figures:
            self.series[name, language].put(step, value)
            self.latest[name, language] = value

    def curves(self, names: Sequence[str], limit: int) -> dict[Key, Curve]:
        """The curves of some metrics, in every language, thinned to `limit` points."""
        return {key: series.thinned(limit) for key, series in self.series.items() if key[0] in names}


def train_view(database: Database, workspace: Workspace, history: History, width: int) -> TrainView:
    """The newest job as it stands; curves are thinned to about two points a column of `width`."""
    counts, judged = census.ratings_by_language_and_kind(database), census.judged(database)
    job = next(iter(jobs.every(database, 1)), None)
    if job is None:
        return TrainView(None, TrainerStatus(), {}, {}, [], "", counts, judged, None)
    history.read(database, job.id)
    latest = dict(history.latest)
    curves = history.curves(with_parts(board_of(job.kind, job.stage), latest).metrics, 2 * width)
    left = seconds_to_go(database, job)
    kl = latest.get(("objective/kl", None))
    status = trainer_status(job, alive=jobs.is_alive(job), kl=kl, seconds_left=left)
    said = metrics.recent_rollouts(database, job.id, ROLLOUTS)
    return TrainView(job, status, curves, latest, said, log_tail(workspace, job), counts, judged, left)


def seconds_to_go(database: Database, job: Job) -> float | None:
    """The time to the job's last step, from the pace of its latest ones; None where that cannot be told."""
    if not jobs.is_alive(job) or job.stage not in BOARDS:
        return None
    every_step = BOARDS[job.stage].charts[0].metric  # written once a step: its moments give the pace
    return seconds_left(metrics.moments(database, job.id, every_step, 12), job.step, job.steps)


def log_tail(workspace: Workspace, job: Job, size: int = LOG_BYTES) -> str:
    """The end of a job's log (raw text); empty when there is none yet."""
    if not job.log:
        return ""
    try:
        with (workspace.root / job.log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - size))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
