"""Every kind of job, which is mostly a way of learning: one file each, and one line here. The order is that in which
they are shown: those that improve a policy by ratings as `benchmarks.methods` found them at equal time, those it has
not measured after them.
"""

from __future__ import annotations

from trainer.config import RewardStage
from trainer.methods import bestof, dpo, grpo, hindsight, ilql, judge, ppo, reinforce, reward, rloo, run, sft
from trainer.methods.method import Method

METHODS = {
    method.name: method
    for method in (
        run.METHOD,
        sft.METHOD,
        reward.METHOD,
        ppo.METHOD,
        rloo.METHOD,
        bestof.METHOD,
        dpo.METHOD,
        grpo.METHOD,
        reinforce.METHOD,
        ilql.METHOD,
        hindsight.METHOD,
        judge.METHOD,
    )
}


def method_of(config: RewardStage) -> Method:
    """A method with these settings; those that share a class of settings hold and show the same."""
    return next(method for method in METHODS.values() if method.settings is type(config))
