"""Where a job's reward comes from: a model fitted now, one fitted earlier, or the scores themselves as a table."""

from __future__ import annotations

import dataclasses

from storage import jobs, reward_models, versions
from storage.errors import UsageError
from storage.records import RewardModel as RewardModelRecord
from storage.records import Sampling
from trainer import heap
from trainer.algorithms.rollouts import PromptSampler, Rollout, collect, round_seed
from trainer.checkpoints import whole_folder
from trainer.config import RewardConfig
from trainer.examples import check_enough
from trainer.job import HeldJob
from trainer.reward.fitting import RewardFit
from trainer.reward.model import RewardModel
from trainer.reward.protocol import Reward
from trainer.reward.table import TableReward
from trainer.running import learn
from trainer.setting import Setting

REWARD_FILE = "reward.safetensors"
CHECKPOINT_EVERY = 10  # updates
# The reference policy's answers on which rewards get mean 0 and deviation 1.
REFERENCE_PROMPTS, REFERENCE_ANSWERS = 32, 2
LANGUAGE_BALANCE = 0.4
LATEST = "latest"


def obtain(held: HeldJob, wanted: str, config: RewardConfig, seed: int, setting: Setting) -> Reward | None:
    """The reward that a configuration names; None only for `auto` where there is nothing to judge by.

    Raises:
        UsageError: there is no such reward model, or too little to fit one to.
    """
    match wanted:
        case "table":
            held.share(lambda: jobs.link_ratings(held.database, held.job, setting.examples.rating_ids))
            return TableReward.of(setting.examples, setting.apart)
        case "new":
            return fitted(held, config, seed, setting)[0]
        case "auto":
            digest = setting.base.base_digest
            if held.share(lambda: reward_models.find(held.database, digest)) is not None:
                return existing(held, None, setting)
            try:
                check_enough(setting.examples, config.minimum)
            except UsageError as error:
                held.say(f"nothing judges the answers: {error.message}")
                return None
            return fitted(held, config, seed, setting)[0]
    return existing(held, None if wanted == LATEST else wanted, setting)


def existing(held: HeldJob, name: str | None, setting: Setting) -> RewardModel:
    """A reward model fitted earlier: the named one, or the newest of this base model."""
    record = held.share(lambda: reward_models.find(held.database, setting.base.base_digest, name))
    if record is None:
        raise UsageError(
            f"there is no reward model {name!r} for {setting.base.base_model}"
            if name
            else f"no reward model was fitted for {setting.base.base_model} yet",
            "fit one with `trainer reward`, or use `trainer run`, which fits its own",
        )
    model = RewardModel.read(setting.backbone, held.workspace.root / record.file)
    held.say(f"reward: {record.name}")
    return model


def fitted(held: HeldJob, config: RewardConfig, seed: int, setting: Setting) -> tuple[RewardModel, RewardModelRecord]:
    """The reward model of this job: the one an earlier attempt finished, or a freshly fitted one.

    Raises:
        UsageError: too few or one-sided ratings.
    """
    backbone, base, examples = setting.backbone, setting.base, setting.examples
    file = held.folder / "reward" / REWARD_FILE
    finished = held.share(lambda: reward_models.of_job(held.database, held.job.id))
    if finished:
        return RewardModel.read(backbone, file), finished
    check_enough(examples, config.minimum)
    counts = ", ".join(f"{language} {count}" for language, count in examples.languages().items())
    held.say(f"learning from {examples.count()} ratings: {counts}")
    held.share(lambda: jobs.link_ratings(held.database, held.job, examples.rating_ids))

    fit = RewardFit(backbone, examples, config, seed, held.processes)
    learn(held, fit, CHECKPOINT_EVERY)
    model, report = fit.model, fit.report()
    heap.release()
    answers = reference_answers(setting, config, seed, REFERENCE_ANSWERS)
    model.normalise([answer.prompt_ids for answer in answers], [answer.completion.token_ids for answer in answers])

    def save() -> RewardModelRecord:
        with whole_folder(held.folder / "reward") as partial:
            model.save(partial / REWARD_FILE, dataclasses.asdict(report))
        with held.database.transaction():
            jobs.check(held.database, held.job)
            return reward_models.add(
                held.database,
                base=base,
                file=str(file.relative_to(held.workspace.root)),
                sha256=versions.sha256_of(file),
                data_digest=examples.digest(),
                job_id=held.job.id,
                metrics=dataclasses.asdict(report),
            )

    figures = {("reward/spearman", None): report.spearman, ("reward/pair_accuracy", None): report.pair_accuracy}
    held.record(fit.step, {name: value for name, value in figures.items() if value is not None})
    record = held.share(save)
    held.say(f"{record.name}: {report.sentence()}")
    return model, record


def reference_answers(setting: Setting, config: RewardConfig, seed: int, answers: int) -> list[Rollout]:
    """What the base model says to a few practice prompts, in balance over languages."""
    practice = setting.split.practice
    prompts = PromptSampler(practice, LANGUAGE_BALANCE, seed).draw(0, min(REFERENCE_PROMPTS, max(8, len(practice))))
    sampling = Sampling(temperature=1.0, max_new_tokens=config.reference_tokens)
    decoder, tokenizer = setting.backbone.decoder(), setting.backbone.tokenizer
    return collect(decoder, tokenizer, prompts, answers, sampling, round_seed(seed, 1 << 40))
