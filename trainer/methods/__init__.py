"""Every way of learning: one file each, and one line here. The order is that in which they are shown."""

from __future__ import annotations

from trainer.config import RewardStage
from trainer.methods import bestof, dpo, grpo, hindsight, ilql, ppo, reinforce, reward, rloo, run, sft
from trainer.methods.method import Method

METHODS = {
    method.name: method
    for method in (
        run.METHOD,
        sft.METHOD,
        reward.METHOD,
        ppo.METHOD,
        rloo.METHOD,
        grpo.METHOD,
        reinforce.METHOD,
        dpo.METHOD,
        bestof.METHOD,
        ilql.METHOD,
        hindsight.METHOD,
    )
}


def method_of(config: RewardStage) -> Method:
    """A method with these settings; those that share a class of settings hold and show the same."""
    return next(method for method in METHODS.values() if method.settings is type(config))
