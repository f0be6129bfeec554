"""What the Train screen draws, read at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from storage.records import Job, Rollout
from workbench.training.boards import Board, board_of, with_parts
from workbench.training.curves import Curve
from workbench.training.status import TrainerStatus


@dataclass(frozen=True)
class TrainView:
    """Everything the Train screen draws, read at one moment."""

    job: Job | None
    status: TrainerStatus
    curves: dict[tuple[str, str | None], Curve]
    latest: dict[tuple[str, str | None], float | None]  # None where a figure could not be told
    rollouts: list[Rollout]
    log: str
    counts: list[tuple[str, str, int]]
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
