"""What a method works with: its job and settings, what there is to learn from, and what all methods do alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from storage import jobs
from storage.errors import UsageError
from trainer import demonstrations as imitation
from trainer import running
from trainer.config import Control, PolicyStage
from trainer.demonstrations import Demonstrations
from trainer.evaluation.watch import Watch, held_out_rows
from trainer.examples import Examples
from trainer.job import HeldJob
from trainer.learner import Figures, Learner, StepReport
from trainer.reward.mixture import model_of
from trainer.rewards import Rewards, reference_answers
from trainer.setting import Setting

Stage = TypeVar("Stage", bound=PolicyStage, covariant=True)


@dataclass(frozen=True)
class Task(Generic[Stage]):
    """One job of a method.

    Attributes:
        setting: what it starts from.
        rewards: what answers are judged by; None where nothing judges them.
    """

    held: HeldJob
    config: Stage
    setting: Setting
    rewards: Rewards | None

    def learn(
        self, learner: Learner, checkpoint_every: int, measure: Callable[[StepReport], Figures] | None = None
    ) -> None:
        """Take the steps that are left: see :func:`trainer.running.learn`."""
        running.learn(self.held, learner, checkpoint_every, measure)

    def link(self, rating_ids: list[str]) -> None:
        """Remember that the job learned from these ratings."""
        self.held.share(lambda: jobs.link_ratings(self.held.database, self.held.job, rating_ids))

    @property
    def taught(self) -> Examples:
        """The ratings that a method which learns from them directly may take: not those that the judge learned from.

        Raises:
            UsageError: the control that makes all ratings alike, from which such a method could learn nothing at all.
        """
        if self.config.control == Control.CONSTANT:
            raise UsageError(
                "this method learns from the differences between ratings, so that constant ones teach it nothing",
                "use --control shuffled",
            )
        return self.setting.examples if self.rewards is None else self.rewards.taught

    @cached_property
    def demonstrations(self) -> Demonstrations:
        """Demonstrations and edits of training prompts; those of a control belong to other prompts."""
        digest, begun = self.setting.base.base_digest, self.setting.begun
        found = self.held.share(lambda: imitation.demonstrations(self.held.database, digest, begun))
        return found if self.config.control == Control.NONE else found.shuffled(self.config.seed)

    @cached_property
    def watch(self) -> Watch:
        """The over-optimisation watch, with rated answers to held-out prompts."""
        held, setting, rewards = self.held, self.setting, self.rewards
        rows = held.share(lambda: held_out_rows(held.database, setting.base.base_digest, setting.begun))
        model = model_of(rewards.optimised) if rewards is not None else None
        if model is None:
            return Watch(setting.backbone, rows)
        return Watch(setting.backbone, rows, model, reference_answers(setting, self.config.seed, 1))
