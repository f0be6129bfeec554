"""The reward model alone, to be looked at before anything learns from it."""

from __future__ import annotations

from trainer.config import RewardConfig, RewardStage
from trainer.methods.method import Ask, Method, Recipe, Supply

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
    learn=None,
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
