"""Where a job's reward comes from: a model fitted now, one fitted earlier, or the scores themselves as a table; and
what judges at the gate, which is another model, of other prompts.
"""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import Any

from storage import jobs, reward_models, versions
from storage.errors import EarlierReleaseError, UsageError
from storage.records import RewardModel as RewardModelRecord
from storage.records import Sampling
from storage.wording import counted
from trainer import heap
from trainer.algorithms.rollouts import PromptSampler, Rollout, collect, round_seed
from trainer.checkpoints import whole_folder
from trainer.config import Control, PolicyStage, PpoStage, RewardKind, RewardStage
from trainer.evaluation.intervals import Interval
from trainer.evaluation.judging import Judge, agreement
from trainer.examples import Examples, Response, check_enough
from trainer.job import HeldJob
from trainer.reward.batches import encode, responses_of
from trainer.reward.fitting import RewardFit
from trainer.reward.folds import controlled, folds, to_measure, without
from trainer.reward.function import read_all
from trainer.reward.linear_fit import LinearFit
from trainer.reward.mixture import Mixture
from trainer.reward.model import RewardModel
from trainer.reward.protocol import ConstantReward, Reward
from trainer.reward.support import Support
from trainer.reward.table import TableReward
from trainer.running import learn
from trainer.setting import Setting

# Folders of a job, and the file in each.
REWARD, JUDGE = "reward", "judge"
FILES = {REWARD: "reward.safetensors", JUDGE: "judge.safetensors"}
CHECKPOINT_EVERY = 10  # updates
# The reference policy's answers on which rewards get mean 0 and deviation 1.
REFERENCE_PROMPTS, REFERENCE_ANSWERS = 32, 2
LANGUAGE_BALANCE = 0.4
NEW, LATEST, TABLE, AUTO, NONE = "new", "latest", "table", "auto", "none"


@dataclass(frozen=True)
class Rewards:
    """What a job learns from and is judged by.

    Attributes:
        optimised: the reward that a policy is improved against.
        judge: what judges at the gate.
        taught: the examples that a method which learns from ratings themselves may take: none of the judge's prompts.
    """

    optimised: Reward
    judge: Judge
    taught: Examples


def obtain(held: HeldJob, config: PolicyStage, setting: Setting) -> Rewards | None:
    """The reward that a configuration names, with its judge; None only for `auto` where there is nothing to judge by.

    Raises:
        UsageError: there is no such reward model, too little to fit one to, or a reward function that does not work.
    """
    if not isinstance(config, PpoStage) or not config.reward_function:
        return _learned(held, config, setting)
    learned = _learned(held, config, setting) if config.reward_model != NONE else None
    return _with_functions(held, config, setting, learned)


def _learned(held: HeldJob, config: PolicyStage, setting: Setting) -> Rewards | None:
    examples = controlled(setting.examples, config.control, config.seed)
    if config.control == Control.CONSTANT:
        held.share(lambda: jobs.link_ratings(held.database, held.job, examples.rating_ids))
        return Rewards(ConstantReward(), Judge(ConstantReward()), examples)
    wanted = config.reward_model
    if wanted == TABLE:
        held.share(lambda: jobs.link_ratings(held.database, held.job, examples.rating_ids))
        table = TableReward.of(examples, setting.apart)
        return Rewards(table, Judge(table), examples)
    if config.control == Control.SHUFFLED:
        wanted = NEW  # one that was fitted to the real ratings would give them away
    if wanted == AUTO:
        digest, begun = setting.base.base_digest, setting.begun
        if held.share(lambda: reward_models.find(held.database, digest, begun=begun)) is not None:
            try:
                return existing(held, None, config, setting)
            except EarlierReleaseError as error:
                held.say(f"{error.message}; a new one is fitted where ratings suffice")
        try:
            check_enough(examples, config.reward.minimum)
        except UsageError as error:
            held.say(f"nothing judges the answers: {error.message}")
            return None
        wanted = NEW
    if wanted == NEW:
        return fitted(held, config, setting, examples)[0]
    return existing(held, None if wanted == LATEST else wanted, config, setting)


def _with_functions(held: HeldJob, config: PpoStage, setting: Setting, learned: Rewards | None) -> Rewards:
    """Functions added to a learned reward and to its judge alike; alone they are the goal itself, and judge it.

    What they say of a few of the base model's answers is told first: a function that fails does so before any step.
    """
    functions = read_all(config.reward_function, config.reward_function_sha256)
    if learned is None:
        mixture = Mixture(None, functions)
        rewards = Rewards(mixture, Judge(mixture), setting.examples)
    else:
        judge = dataclasses.replace(learned.judge, reward=Mixture(learned.judge.reward, functions))
        rewards = dataclasses.replace(learned, optimised=Mixture(learned.optimised, functions), judge=judge)
    if held.resuming:
        return rewards
    said = rewards.optimised.rate(reference_answers(setting, config.seed, 1))
    for name, values in said.parts.items():
        listed = values.tolist()
        held.say(f"reward {name}: {statistics.fmean(listed):+.2f}, deviation {statistics.pstdev(listed):.2f}, "
                 f"over {counted(len(listed), 'answer')} of the base model")  # fmt: skip
    most = float(said.rewards.abs().max())
    if most > config.ppo.score_clip:
        held.say(f"rewards reach {most:.3g}, and are clipped at {config.ppo.score_clip:g} (--score-clip): "
                 f"put a smaller weight behind the function, such as =0.1")  # fmt: skip
    return rewards


def existing(held: HeldJob, name: str | None, config: RewardStage, setting: Setting) -> Rewards:
    """A reward model fitted earlier, with its judge: the named one, or what was the newest of this base model when the
    job began, whatever was fitted while it was paused."""
    begun = None if name else setting.begun
    record = held.share(lambda: reward_models.find(held.database, setting.base.base_digest, name, begun))
    if record is None:
        raise UsageError(
            f"there is no reward model {name!r} for {setting.base.base_model}"
            if name
            else f"no reward model was fitted for {setting.base.base_model} yet",
            "fit one with `trainer reward`, or use `trainer run`, which fits its own; a reward function alone needs "
            "none (--reward-model none)",
        )
    file = held.workspace.root / record.file
    held.say(f"reward: {record.name}")
    optimised, _ = RewardModel.read(setting.backbone, file)
    optimised.caution = config.reward.caution
    beside = file.parent.parent / JUDGE / FILES[JUDGE]
    if not held.share(beside.exists):
        return Rewards(optimised, Judge(optimised, lacks=f"{record.name} has no judge beside it"), setting.examples)
    judge, facts = RewardModel.read(setting.backbone, beside)
    judge.caution = config.reward.caution
    taught = without(setting.examples, set(facts["prompts"]))
    return Rewards(optimised, _judge(judge, facts), taught)


def fitted(
    held: HeldJob, config: RewardStage, setting: Setting, examples: Examples
) -> tuple[Rewards, RewardModelRecord | None]:
    """The reward model of this job and its judge: those an earlier attempt finished, or freshly fitted ones.

    Returns:
        both, and their record; none is made of a control's, which nothing else must ever learn from.

    Raises:
        UsageError: too few or one-sided ratings.
    """
    check_enough(examples, config.reward.minimum)
    counts = ", ".join(f"{language} {count}" for language, count in examples.languages().items())
    held.say(f"learning from {counted(examples.count(), 'rating')}: {counts}")
    for rater, by_language in examples.judges().items():
        heard = ", ".join(f"{language} {count} at {weight:.2f}" for language, (count, weight) in by_language.items())
        held.say(f"of them by {rater}, a model, each weighs by its agreement with people: {heard} of a person's")
    held.share(lambda: jobs.link_ratings(held.database, held.job, examples.rating_ids))
    optimised, judged = folds(examples, config.reward.held_out, config.reward.minimum)
    seed = config.seed
    if judged.count():
        model, facts = _fit(held, config, setting, JUDGE, seed + 1, judged, optimised)
        judge = _judge(model, facts)
        held.say(f"the judge learned from {judged.count()} of them, of other prompts: agrees with the rest by "
                 f"{judge.agreement or 'an unknown amount'} (rank correlation within languages)")  # fmt: skip
    model, facts = _fit(held, config, setting, REWARD, seed, optimised, judged)
    if not judged.count():
        judge = Judge(
            model,
            lacks=f"{counted(examples.count(), 'rating is', 'ratings are')} too few "
            f"to fit a judge apart from the reward",
        )
    rewards = Rewards(model, judge, optimised)
    if _is_control(config):
        return rewards, None
    figures = {key: value for key, value in facts.items() if key != "prompts"}
    agreed = judge.agreement
    figures["judge_agreement"] = agreed.mean if agreed else None
    figures["judge_agreement_interval"] = agreed.bounds if agreed else None
    figures["judge_examples"] = judged.count()
    figures["by_ai"] = sum(one.by_judge for one in optimised.every())

    def record() -> RewardModelRecord:
        found = reward_models.of_job(held.database, held.job.id)
        if found is not None:
            return found
        file = held.folder / REWARD / FILES[REWARD]
        digest = versions.sha256_of(file)
        with held.database.transaction():
            jobs.check(held.database, held.job)
            return reward_models.add(
                held.database,
                base=setting.base,
                file=str(file.relative_to(held.workspace.root)),
                sha256=digest,
                data_digest=examples.digest(),
                job_id=held.job.id,
                metrics=figures,
            )

    made = held.share(record)
    held.say(f"{made.name}: {facts['sentence']}")
    return rewards, made


def _fit(
    held: HeldJob,
    config: RewardStage,
    setting: Setting,
    name: str,
    seed: int,
    learned: Examples,
    unseen: Examples,
) -> tuple[RewardModel, dict[str, Any]]:
    """One model, of some examples and measured on others; one that an earlier attempt stored is read.

    Returns:
        the model, and what was found of it: its report, its agreement with the others, the prompts it learned from.
    """
    backbone, file = setting.backbone, held.folder / name / FILES[name]
    unseen = to_measure(unseen)
    if held.share(file.exists):
        return RewardModel.read(backbone, file)
    kind = LinearFit if config.reward.kind == RewardKind.LINEAR else RewardFit
    fit = kind(backbone, learned, config.reward, seed, held.processes, unseen, name)
    learn(held, fit, CHECKPOINT_EVERY)
    model, report = fit.model, fit.report()
    heap.release()
    answers = reference_answers(setting, seed, REFERENCE_ANSWERS)
    model.normalise(
        [answer.prompt_ids for answer in answers],
        [answer.completion.token_ids for answer in answers],
        [answer.prompt.language for answer in answers],
    )
    model.support = _support(model, learned, unseen)
    model.caution = config.reward.caution
    agreed = agreement(model, unseen)
    facts = dataclasses.asdict(report) | {
        "sentence": report.sentence(),
        "agreement": dataclasses.asdict(agreed) if agreed else None,
        "prompts": sorted({example.prompt.id for example in learned.every()}),
    }
    if name == REWARD:
        names = ("within_prompt_accuracy", "between_prompts_spearman", "spearman", "pair_accuracy")
        figures = {(f"reward/{name}", None): getattr(report, name) for name in names}
        held.record(fit.step, {name: value for name, value in figures.items() if value is not None})

    def save() -> None:
        with whole_folder(file.parent) as partial:
            model.save(partial / file.name, facts)

    held.share(save)
    return model, facts


def _support(model: RewardModel, learned: Examples, unseen: Examples) -> Support:
    """What the rated answers were like; how unsure the model may be of one is told by those it did not learn from."""

    def known(examples: Examples) -> list[Response]:
        return list(dict.fromkeys(answer for example in examples.every() for answer in responses_of(example)))

    own, others = known(learned), known(unseen)
    everything = [*own, *others]
    encoded = [encode(model.backbone, response) for response in everything]
    asked, said = [asked for asked, _ in encoded], [said for _, said in encoded]
    languages = [response.prompt.language for response in everything]
    rewards, deviations = model.score_with_uncertainty(asked, said, languages)
    return Support.of(
        [len(ids) for ids in said],
        languages,
        rewards.tolist(),
        deviations[len(own) :].tolist() if others else deviations.tolist(),
    )


def _judge(model: RewardModel, facts: dict[str, Any]) -> Judge:
    """A judge with what is known of it."""
    agreed = facts["agreement"]
    if agreed is None:
        return Judge(model, lacks="too few ratings are left to see whether the judge foretells any that it never saw")
    return Judge(model, Interval(**agreed))


def _is_control(config: RewardStage) -> bool:
    return isinstance(config, PolicyStage) and config.control != Control.NONE


def reference_answers(setting: Setting, seed: int, answers: int) -> list[Rollout]:
    """What the base model says to a few practice prompts, in balance over languages."""
    practice = setting.split.practice
    prompts = PromptSampler(practice, LANGUAGE_BALANCE, seed).draw(0, min(REFERENCE_PROMPTS, max(8, len(practice))))
    sampling = Sampling(temperature=1.0, max_new_tokens=setting.answer_tokens)
    decoder, tokenizer = setting.backbone.decoder(), setting.backbone.tokenizer
    return collect(decoder, tokenizer, prompts, answers, sampling, round_seed(seed, 1 << 40))
