"""PPO, and what its kin share with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from trainer.config import PpoStage
from trainer.lazily import lazily
from trainer.methods.method import GATED, Ask, Learned, Method, Need, Recipe, Supply
from trainer.policy_config import Advantage, Reference

if TYPE_CHECKING:
    from trainer.algorithms import critics, values
    from trainer.algorithms import ppo as algorithm
    from trainer.learner import Figures, StepReport
    from trainer.policy.full import Snapshot
    from trainer.reward import function
    from trainer.task import Task
else:
    algorithm, values = lazily("trainer.algorithms.ppo"), lazily("trainer.algorithms.values")
    function = lazily("trainer.reward.function")
    critics = lazily("trainer.algorithms.critics")


def learn(task: Task[PpoStage]) -> Learned:
    """Improve the policy against the reward, from the parent version."""
    return improve(task, task.setting.start)


def improve(task: Task[PpoStage], start: Snapshot | None) -> Learned:
    """Improve the policy against the reward.

    Args:
        start: what the policy to begin with changes in the base model.
    """
    setting, config = task.setting, task.config
    assert task.rewards is not None, "only `auto` finds none"
    own = msgspec.structs.replace(config.ppo, max_new_tokens=setting.answer_tokens)
    learner = algorithm.Ppo(
        setting.backbone,
        task.rewards.optimised,
        setting.split.practice,
        own,
        config.seed,
        start,
        task.held.processes,
        reference=reference_of(own.reference, start, setting.start),
        rated=values.rated_answers(setting.backbone, task.rewards.taught),
    )
    watch = task.watch

    def measure(report: StepReport) -> Figures:
        return watch.measure(learner.policy, [rollout for rollout, _, _ in report.rollouts]).figures()

    task.learn(learner, config.ppo.checkpoint_every, measure)
    return Learned(learner, remark=learner.remark(), critic=critics.of_ppo(learner))


def with_files(config: PpoStage, changed: bool) -> PpoStage:
    """A configuration that names the files of its reward functions from everywhere, and as they are.

    Raises:
        UsageError: a file cannot be used, or is not the one that the job began with.
    """
    if not config.reward_function:
        return config
    functions = function.read_all(config.reward_function, config.reward_function_sha256, changed=changed)
    return msgspec.structs.replace(
        config,
        reward_function=tuple(one.spelled for one in functions),
        reward_function_sha256=tuple(one.sha256 for one in functions),
    )


def memory(config: PpoStage, whole: Need, sampled_tokens: int) -> Need:
    """What a round of rollouts and updates holds."""
    own = config.ppo
    return replace(
        whole,
        rows=own.batch,
        minibatch=own.minibatch // own.accumulation,
        response_tokens=sampled_tokens,
        rank=own.rank,
        tuning=own.tuning,
        value=own.advantage == Advantage.GAE and own.value_adapter,
        optimised=True,
        reference=own.reference != Reference.BASE,
    )


ROUNDS = Ask("ppo.steps", hint="rounds of rollouts")
KL_TARGET = Ask("ppo.kl_target", hint="nats a response")
BATCH = Ask("ppo.batch", hint="answers a round")
ANSWERS = Ask("ppo.answers", hint="to a prompt; divides the batch")
LENGTH = Ask("ppo.max_new_tokens", "longest answer", "0: as long as the rated answers")
SEED = Ask("seed", hint="the same seed, the same run")
CONTROL = Ask("control")
POLICY = (LENGTH, SEED, CONTROL)
PRICED = (
    "A reward counts as far as answers like those were rated, with the caution that its model was fitted with, and "
    "the judge fitted beside it says at the gate what was gained. Nothing is taken for a missing end unless "
    "--missing-eos-penalty says so."
)
NEEDS = ((Supply.REWARD_MODEL, 1),)

METHOD = Method(
    name="ppo",
    summary="improve the policy against a reward, with a learned value",
    manual=f"""Improve the policy by PPO on the latest reward model.

    Advantages come from a learned value of every token. {PRICED} {GATED}

    \b
      trainer ppo --steps 40 --reward-model rm2
      trainer ppo --reward-model table
    """,
    settings=PpoStage,
    own="ppo",
    learn=learn,
    memory=memory,
    ready=with_files,
    recipes=(
        Recipe(
            "p", "PPO", "Improve the policy on the latest reward model, with a learned value of every token.",
            (ROUNDS, KL_TARGET, BATCH, *POLICY), NEEDS,
        ),
    ),
)  # fmt: skip


def reference_of(chosen: Reference, start: Snapshot | None, parent: Snapshot | None) -> Snapshot | None:
    """What a policy is held near, as a change in the base model; None is the base model itself."""
    match chosen:
        case Reference.BASE:
            return None
        case Reference.START:
            return start
        case Reference.PARENT:
            return parent
