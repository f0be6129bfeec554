"""Where the trainer stands, as frozen facts and as the words of the header."""

from __future__ import annotations

from dataclasses import dataclass

from storage.records import Job, JobState


@dataclass(frozen=True)
class TrainerStatus:
    """Where the trainer stands. `state` is idle, waiting, training, stopping, stalled, paused or failed."""

    state: str = "idle"
    stage: str = ""
    step: int = 0
    steps: int = 0
    kl: float | None = None
    minutes_left: float | None = None


def trainer_status(
    job: Job | None, *, alive: bool, kl: float | None = None, seconds_left: float | None = None
) -> TrainerStatus:
    """The state of the newest job; `alive` says whether its worker still renews its lease."""
    if job is None or job.state is JobState.DONE:
        return TrainerStatus()
    state = {JobState.QUEUED: "waiting", JobState.PAUSED: "paused", JobState.FAILED: "failed"}.get(job.state, "")
    if job.state is JobState.RUNNING:
        state = "stalled" if not alive else "stopping" if job.cancel_requested else "training"
    left = None if seconds_left is None or state != "training" else seconds_left / 60
    return TrainerStatus(state, job.stage or job.kind, job.step, job.steps, kl, left)


TRAINER_DOTS = {
    "idle": "△", "waiting": "◌", "training": "▲", "stopping": "▽", "stalled": "✕", "paused": "Ⅱ", "failed": "✕",
}  # fmt: skip


def trainer_words(status: TrainerStatus) -> tuple[str, str, str]:
    """The trainer's part of the header: full, short and shortest."""
    dot = TRAINER_DOTS[status.state]
    if status.state == "idle":
        return f"{dot} trainer idle", f"{dot} idle", dot
    word = "" if status.state == "training" else f" {status.state}"
    where = f" {status.step}/{status.steps}" if status.steps else ""
    kl = "" if status.kl is None else f" · KL {status.kl:.1f}"
    left = "" if status.minutes_left is None else f" · {time_left(60 * status.minutes_left)}"
    return (
        f"{dot}{word} {status.stage}{where}{kl}{left}",
        f"{dot}{word} {status.stage}{where}{kl}",
        f"{dot}{word}{where}",
    )


def time_left(seconds: float) -> str:
    """A duration still to go, in the words of the header."""
    if seconds < 60:
        return "under 1 min left"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left"
