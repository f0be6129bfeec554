"""The reward model alone, to be looked at before anything learns from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.config import RewardConfig, RewardStage
from trainer.lazily import lazily
from trainer.methods.method import Ask, Method, Recipe, Result, Supply

if TYPE_CHECKING:
    from trainer import acquiring, rewards, setting
    from trainer.job import HeldJob
    from trainer.reward import mixture
else:
    acquiring, mixture = lazily("trainer.acquiring"), lazily("trainer.reward.mixture")
    rewards, setting = lazily("trainer.rewards"), lazily("trainer.setting")


def work(held: HeldJob, config: RewardStage) -> Result:
    """Fit a reward model to the ratings, and nothing more; the result is its record."""
    begun = setting.set_up(held, config)
    fitted, record = rewards.fitted(held, config, begun, begun.examples)
    assert record is not None, "this stage has no controls"
    acquiring.ask_to_compare(held, begun, mixture.model_of(fitted.optimised), config.seed)
    held.drop_checkpoints()
    return {"reward_model": record.name, **record.metrics}


METHOD = Method(
    name="reward",
    summary="you want to look at the reward model before anything learns from it",
    manual="""Fit a reward model to today's ratings, and nothing more.

    Scores, labels, pairs, edits and tags are learned from jointly, with each rater's habits taken out. Beside it a
    judge for the gate is fitted to other prompts (--held-out of them), and each is measured on the ratings of the
    other. They are used by the next `trainer ppo`, `reinforce`, `rloo` or `grpo`, and by the gate of the other stages.

    \b
      trainer reward --kind adapter --epochs 4 --json
    """,
    settings=RewardStage,
    own="reward",
    work=work,
    board="reward",
    recipes=(
        Recipe(
            "m", "reward model",
            "Fit a reward model and a judge to different ratings, and see how well each foretells the other's; the "
            "model you talk to stays as it is.",
            (
                Ask("reward.kind"),
                Ask("reward.epochs", hint="passes, of an adapter"),
                Ask("reward.batch", hint="ratings an update, of an adapter"),
                Ask("reward.learning_rate", hint="of an adapter, falls to 0"),
                Ask("seed", hint="the same seed, the same run"),
            ),
            ((Supply.RATINGS, RewardConfig().minimum),),
        ),
    ),
)  # fmt: skip
