"""Every stage of the trainer, top to bottom: demonstrations -> reward model -> policy -> gate -> publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import msgspec

from storage import jobs, versions
from storage.errors import UsageError
from storage.records import Sampling, Version
from trainer import demonstrations as imitation
from trainer import outcomes as received
from trainer.algorithms.crossfit import learn_measured
from trainer.algorithms.hindsight import STAGE as HINDSIGHT
from trainer.algorithms.hindsight import relabelled_rows
from trainer.algorithms.ilql import Ilql
from trainer.algorithms.ppo import Ppo, reference_of
from trainer.algorithms.sft import STAGE as DEMONSTRATIONS
from trainer.algorithms.sft import demonstrated_rows, sft
from trainer.algorithms.supervised import SupervisedLearner
from trainer.algorithms.values import rated_answers
from trainer.checkpoints import whole_folder
from trainer.config import Control, HindsightStage, IlqlStage, PolicyStage, PpoStage, RewardStage, RunConfig, SftStage
from trainer.demonstrations import Demonstrations
from trainer.evaluation.gate import judge
from trainer.evaluation.intervals import Interval
from trainer.evaluation.seen import in_words
from trainer.evaluation.watch import Watch, held_out_rows
from trainer.examples import Examples
from trainer.job import HeldJob
from trainer.learner import Figures, PolicyLearner, StepReport
from trainer.policy import probe
from trainer.policy.full import Snapshot, read_version
from trainer.publishing import finish
from trainer.reward.model import RewardModel
from trainer.rewards import Rewards, fitted, obtain, reference_answers
from trainer.running import learn
from trainer.setting import Setting, set_up

Result = dict[str, Any]


def fit_reward(held: HeldJob, config: RewardStage) -> Result:
    """`trainer reward`: fit a reward model to the ratings, and nothing more; the result is its record."""
    setting = set_up(held, config)
    _, record = fitted(held, config, setting, setting.examples)
    assert record is not None, "this stage has no controls"
    _drop_checkpoints(held)
    return {"reward_model": record.name, **record.metrics}


def run(held: HeldJob, config: RunConfig) -> Result:
    """`trainer run`: the whole pipeline. Demonstrations are learned from first where there are enough of them."""
    return _once(held, lambda: _improve(held, config, config if config.demonstrations else None))


def improve(held: HeldJob, config: PpoStage) -> Result:
    """`trainer ppo`, `reinforce`, `rloo` and `grpo`: improve the policy against a reward."""
    return _once(held, lambda: _improve(held, config, None))


def imitate(held: HeldJob, config: SftStage) -> Result:
    """`trainer sft`: learn from demonstrations and edits."""

    def work() -> Result:
        setting = set_up(held, config)
        rewards = obtain(held, config, setting)
        found = _demonstrations(held, setting)
        if config.control != Control.NONE:
            found = found.shuffled(config.seed)
        rows = demonstrated_rows(setting.backbone, found, config.sft.minimum)
        _link(held, found.rating_ids)
        learner, gain = learn_measured(
            held, DEMONSTRATIONS, setting.backbone, rows, config.sft, config.seed, setting.start, needed=rewards is None
        )
        return _finish(held, config, setting, learner, rewards, _watch(held, config, setting, rewards), gain)

    return _once(held, work)


def look_back(held: HeldJob, config: HindsightStage) -> Result:
    """`trainer hindsight`: learn from all rated answers, told afterwards what became of them."""

    def work() -> Result:
        setting = set_up(held, config)
        rewards = obtain(held, config, setting)
        digest, begun = setting.base.base_digest, setting.begun
        # A control has nothing to say of outcomes in words, which cannot be permuted without telling another story.
        told = [] if config.control != Control.NONE else held.share(
            lambda: received.text_outcomes(held.database, digest, begun)
        )  # fmt: skip
        found = received.outcomes(_taught(config, setting, rewards))
        own, seed, start = config.hindsight, config.seed, setting.start
        rows = relabelled_rows(setting.backbone, found, told, own)
        _link(held, [*setting.examples.rating_ids, *(outcome.rating_id for outcome in told)])
        if rewards is None:
            learner, gain = learn_measured(held, HINDSIGHT, setting.backbone, rows, own, seed, start)
        else:
            learner, gain = SupervisedLearner(HINDSIGHT, setting.backbone, rows, own, seed, start, held.processes), None
            learn(held, learner, own.checkpoint_every)
        return _finish(held, config, setting, learner, rewards, _watch(held, config, setting, rewards), gain)

    return _once(held, work)


def learn_values(held: HeldJob, config: IlqlStage) -> Result:
    """`trainer ilql`: Q-learning from rated answers, offline."""

    def work() -> Result:
        setting = set_up(held, config)
        rewards = obtain(held, config, setting)
        if rewards is None:
            raise UsageError("nothing judges what is learned", "rate more answers, or fit a reward model first")
        found = received.outcomes(_taught(config, setting, rewards))
        learner = Ilql(setting.backbone, found, config.ilql, config.seed, setting.start, held.processes)
        _link(held, setting.examples.rating_ids)
        learn(held, learner, config.ilql.checkpoint_every)
        # Its decoding shifts the output head as well, which the watch does not see.
        return _finish(held, config, setting, learner, rewards, None)

    return _once(held, work)


def _once(held: HeldJob, work: Callable[[], Result]) -> Result:
    """The result of the work, or the version that an earlier attempt made just before it was ended."""

    def made() -> Version | None:
        return next((version for version in versions.every(held.database) if version.job_id == held.job.id), None)

    found = held.share(made)
    return _result(found, found.metrics) if found else work()


def _improve(held: HeldJob, config: PpoStage, first: RunConfig | None) -> Result:
    setting = set_up(held, config)
    rewards = obtain(held, config, setting)
    assert rewards is not None, "only `auto` finds none"
    start = setting.start if first is None else _imitated(held, first, setting)
    prompts = setting.split.practice
    own = msgspec.structs.replace(config.ppo, max_new_tokens=setting.answer_tokens)
    learner = Ppo(
        setting.backbone,
        rewards.optimised,
        prompts,
        own,
        config.seed,
        start,
        held.processes,
        reference=reference_of(own.reference, start, setting.start),
        rated=rated_answers(setting.backbone, rewards.taught),
    )
    watch = _watch(held, config, setting, rewards)

    def measure(report: StepReport) -> Figures:
        return watch.measure(learner.policy, [rollout for rollout, _, _ in report.rollouts]).figures()

    learn(held, learner, config.ppo.checkpoint_every, measure)
    remark = learner.remark()
    if remark:
        held.say(remark)
    result = _finish(held, config, setting, learner, rewards, watch)
    return result | ({"remark": remark} if remark else {})


def _imitated(held: HeldJob, config: RunConfig, setting: Setting) -> Snapshot | None:
    """What the policy starts from: trained on demonstrations where there are enough, else the parent version."""
    folder = held.folder / "imitation"
    if held.share(folder.exists):  # an earlier attempt got so far
        return read_version(next(folder.glob("*.safetensors")), setting.backbone.folder.path)
    found = _demonstrations(held, setting)
    if found.count() < config.sft.minimum:
        return setting.start
    if config.control != Control.NONE:
        found = found.shuffled(config.seed)
    ppo = config.ppo  # which goes on from here, so that it must be of the same shape
    shape = {"rank": ppo.rank, "alpha": ppo.alpha, "tuning": ppo.tuning, "policy_share": ppo.policy_share}
    # Nothing is judged by its loss here, so that none of the answers is kept back to measure it.
    own = msgspec.structs.replace(config.sft, held_out=0.0, **shape)
    learner = sft(setting.backbone, found, own, config.seed, setting.start, held.processes)
    _link(held, found.rating_ids)
    held.say(f"imitating {found.count()} demonstrations and edits first")
    learn(held, learner, config.sft.checkpoint_every)
    result = learner.result()

    def save() -> None:
        with whole_folder(folder) as partial:
            result.write(partial, setting.base.base_model)

    held.share(save)
    return result


def _demonstrations(held: HeldJob, setting: Setting) -> Demonstrations:
    digest, begun = setting.base.base_digest, setting.begun
    return held.share(lambda: imitation.demonstrations(held.database, digest, begun))


def _link(held: HeldJob, rating_ids: list[str]) -> None:
    held.share(lambda: jobs.link_ratings(held.database, held.job, rating_ids))


def _taught(config: PolicyStage, setting: Setting, rewards: Rewards | None) -> Examples:
    """The ratings that a method which learns from them directly may take: not those that the judge learned from.

    Raises:
        UsageError: the control that makes all ratings alike, from which such a method could learn nothing at all.
    """
    if config.control == Control.CONSTANT:
        raise UsageError(
            "this method learns from the differences between ratings, so that constant ones teach it nothing",
            "use --control shuffled",
        )
    return setting.examples if rewards is None else rewards.taught


def _watch(held: HeldJob, config: PolicyStage, setting: Setting, rewards: Rewards | None) -> Watch:
    """The over-optimisation watch, with rated answers to held-out prompts."""
    backbone, digest = setting.backbone, setting.base.base_digest
    rows = held.share(lambda: held_out_rows(held.database, digest, setting.begun))
    if rewards is None or not isinstance(rewards.optimised, RewardModel):
        return Watch(backbone, rows)
    return Watch(backbone, rows, rewards.optimised, reference_answers(setting, config.seed, 1))


def _finish(
    held: HeldJob,
    config: PolicyStage,
    setting: Setting,
    learner: PolicyLearner,
    rewards: Rewards | None,
    watch: Watch | None,
    loss_gain: Interval | None = None,
) -> Result:
    """Through the gate, and published or kept as rejected."""
    held.progress("gate", learner.step, learner.steps)
    sampling = Sampling(temperature=1.0, max_new_tokens=setting.answer_tokens)
    penalty = 0.0
    if isinstance(config, PpoStage):
        sampling = Sampling(temperature=config.ppo.temperature, max_new_tokens=setting.answer_tokens)
        penalty = config.ppo.missing_eos_penalty
    candidate = learner.result()
    report = judge(
        setting.backbone,
        rewards.judge if rewards else None,
        candidate,
        setting.start,
        setting.split.held_out,
        config.gate,
        sampling,
        loss_gain,
        watch.measure(learner.policy) if watch else None,
        control=config.control,
        penalty=penalty,
        check=held.check,
    )
    held.progress("publish", learner.step, learner.steps)
    # Where the weights are split among processes, all of them must put them together.
    answer = probe.take(setting.backbone.decoder(candidate), setting.backbone.tokenizer)
    version = held.share(lambda: finish(held, candidate, report, setting, learner.step, answer, publish=config.publish))
    _drop_checkpoints(held)
    for gate in report.gates:
        held.say(f"  {'passed' if gate['passed'] else 'FAILED'}  {gate['gate']}: {gate['detail']}")
    for shown in report.metrics().get("answers", ()):
        held.say(in_words(shown))
    held.say(f"{version.name} is {version.state}")
    return _result(version, report.metrics())


def _drop_checkpoints(held: HeldJob) -> None:
    """Nothing goes on from them any more: what was learned is stored."""
    held.share(lambda: shutil.rmtree(held.folder / "checkpoints", ignore_errors=True))


def _result(version: Version, figures: dict[str, Any]) -> Result:
    return {
        "version": version.name,
        "state": str(version.state),
        "parent": version.parent,
        "gates": version.gates,
        **figures,
    }
