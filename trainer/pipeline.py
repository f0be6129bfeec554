"""The whole pipeline, top to bottom: ratings -> reward model -> policy -> gate -> publish."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch

from storage import jobs, metrics, reward_models, versions
from storage.database import Database
from storage.errors import UsageError
from storage.records import Prompt, Sampling, Version
from storage.records import RewardModel as RewardModelRecord
from trainer.algorithms.ppo import Ppo, RoundReport
from trainer.algorithms.rollouts import PromptSampler, collect, round_seed
from trainer.checkpoints import load_ppo, save_ppo, whole_folder
from trainer.config import RunConfig
from trainer.evaluation.gate import GateReport, judge
from trainer.examples import Examples, PromptSplit, check_enough, split_prompts
from trainer.examples import collect as collect_examples
from trainer.job import CancelledError, HeldJob
from trainer.policy import devices, models
from trainer.policy.adapters import Adapter, read_adapter
from trainer.policy.backbone import Backbone
from trainer.publishing import add_candidate
from trainer.reward.fitting import fit
from trainer.reward.model import RewardModel

REWARD_FILE = "reward.safetensors"
# The reference policy's answers on which rewards get mean 0 and deviation 1.
REFERENCE_PROMPTS, REFERENCE_ANSWERS = 32, 2
ROLLOUTS_KEPT = 4  # a step, for the eye


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a job starts from; the same for every attempt at it, whatever was rated and published since it began."""

    backbone: Backbone
    base: Version
    split: PromptSplit
    begun: str | None


def run(held: HeldJob, config: RunConfig) -> dict[str, Any]:
    """Learn from the ratings and publish what passes the gate.

    Returns:
        `{version, state, parent, gates, reward, kl, ...}`, the job's result.
    """
    database, workspace = held.database, held.workspace
    made = next((version for version in versions.every(database) if version.job_id == held.job.id), None)
    if made:  # an earlier attempt ended between its last commit and saying so
        return _result(made, made.metrics)
    new = config.reward_model == "new"
    setting, examples = _set_up(held, config, needs_ratings=new)
    parent = _parent(database, setting.base, setting.begun)
    backbone = setting.backbone
    if new:
        reward_model, _ = _fitted(held, config, setting, examples)
    else:
        reward_model = _existing(held, config, setting)

    adapter = _adapter_of(workspace.root, parent)
    ppo = Ppo(backbone, reward_model, setting.split.practice, config.ppo, config.seed, adapter)
    train(held, ppo)

    held.progress("gate", ppo.step, ppo.config.steps)
    parent_decoder = ppo.base_decoder if adapter is None else ppo.base_decoder.with_version(adapter)
    report = judge(
        backbone, reward_model, ppo.policy, parent_decoder, setting.split.held_out, config.gate, ppo.sampling
    )
    version = _finish(held, ppo, report, setting.base, parent, publish=config.publish)
    shutil.rmtree(held.folder / "checkpoints", ignore_errors=True)
    return _result(version, report.metrics())


def fit_reward(held: HeldJob, config: RunConfig) -> dict[str, Any]:
    """Fit a reward model to the ratings, and nothing more; the result is its record."""
    setting, examples = _set_up(held, config, needs_ratings=True)
    _, record = _fitted(held, config, setting, examples)
    return {"reward_model": record.name, **record.metrics}


def _set_up(held: HeldJob, config: RunConfig, *, needs_ratings: bool) -> tuple[Setting, Examples]:
    """Check that there is enough to learn from, then load the model.

    Raises:
        UsageError: too few or one-sided ratings, or too few prompts.
    """
    database = held.database
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = models.resolve(config.model, held.workspace, lambda text, _: held.say(text))
    begun = held.job.started_at
    examples = collect_examples(database, folder.digest, begun)
    if needs_ratings:
        check_enough(examples, config.reward.minimum)
        counts = ", ".join(f"{language} {count}" for language, count in examples.languages().items())
        held.say(f"learning from {examples.count()} ratings: {counts}")
    split = split_prompts(database, begun)
    base = versions.ensure_base(database, folder.name, folder.digest)
    device, dtype = devices.choose(config.device, config.dtype)
    torch.manual_seed(config.seed)
    return Setting(Backbone(folder, device, dtype, config.upper_share), base, split, begun), examples


def train(held: HeldJob, ppo: Ppo) -> None:
    """Run the rounds that are left, from the last checkpoint if there is one; leave one when cancelled."""
    if held.job.checkpoint:
        load_ppo(held.workspace.root / held.job.checkpoint, ppo)
        held.say(f"going on from step {ppo.step}")
    steps = ppo.config.steps
    held.progress("policy", ppo.step, steps)
    while ppo.step < steps:
        try:
            held.check()
        except CancelledError:
            _checkpoint(held, ppo)
            raise
        report = ppo.round()
        held.record(ppo.step, report.figures, _shown(held.job.id, ppo.step, report))
        held.progress(
            "policy",
            ppo.step,
            steps,
            reward=report.figures["objective/scores", None],
            kl=report.figures["objective/kl", None],
        )
        if ppo.step % ppo.config.checkpoint_every == 0 and ppo.step < steps:
            _checkpoint(held, ppo)


def _existing(held: HeldJob, config: RunConfig, setting: Setting) -> RewardModel:
    """A reward model fitted earlier: the named one, or the newest of this base model."""
    wanted = None if config.reward_model == "latest" else config.reward_model
    record = reward_models.find(held.database, setting.base.base_digest, wanted)
    if record is None:
        raise UsageError(
            f"there is no reward model {wanted!r} for {setting.base.base_model}"
            if wanted
            else f"no reward model was fitted for {setting.base.base_model} yet",
            "fit one with `trainer reward`, or use `trainer run`, which fits its own",
        )
    model = RewardModel(setting.backbone, config.reward, config.seed)
    model.load(held.workspace.root / record.file)
    held.say(f"reward: {record.name}")
    return model


def _fitted(
    held: HeldJob, config: RunConfig, setting: Setting, examples: Examples
) -> tuple[RewardModel, RewardModelRecord]:
    """The reward model of this job: the one an earlier attempt finished, or a freshly fitted one."""
    backbone, base = setting.backbone, setting.base
    file = held.folder / "reward" / REWARD_FILE
    model = RewardModel(backbone, config.reward, config.seed)
    finished = reward_models.of_job(held.database, held.job.id)
    if finished:
        model.load(file)
        return model, finished
    jobs.link_ratings(held.database, held.job, examples.rating_ids)

    def on_step(step: int, steps: int, loss: float) -> None:
        held.check()
        held.record(step, {("loss/reward", None): loss})
        held.progress("reward model", step, steps, loss=loss)

    model, report = fit(backbone, examples, config.reward, config.seed, on_step)
    prompts = _reference_prompts(setting.split.practice, config)
    sampling = Sampling(temperature=config.ppo.temperature, max_new_tokens=config.ppo.max_new_tokens)
    seed = round_seed(config.seed, 1 << 40)
    answers = collect(backbone.decoder(), backbone.tokenizer, prompts, REFERENCE_ANSWERS, sampling, seed)
    model.normalise([answer.prompt_ids for answer in answers], [answer.completion.token_ids for answer in answers])
    figures = {("reward/spearman", None): report.spearman, ("reward/pair_accuracy", None): report.pair_accuracy}
    held.record(0, {name: value for name, value in figures.items() if value is not None})
    with whole_folder(held.folder / "reward") as partial:
        model.save(partial / REWARD_FILE, dataclasses.asdict(report))
    with held.database.transaction():
        jobs.check(held.database, held.job)
        record = reward_models.add(
            held.database,
            base=base,
            file=str(file.relative_to(held.workspace.root)),
            sha256=versions.sha256_of(file),
            data_digest=examples.digest(),
            job_id=held.job.id,
            metrics=dataclasses.asdict(report),
        )
    held.say(f"{record.name}: {report.sentence()}")
    return model, record


def _reference_prompts(practice: list[Prompt], config: RunConfig) -> list[Prompt]:
    sampler = PromptSampler(practice, config.ppo.language_balance, config.seed)
    return sampler.draw(0, min(REFERENCE_PROMPTS, max(8, len(practice))))


def _parent(database: Database, base: Version, begun: str | None) -> Version:
    """What this run goes on from: the version served when it began if it is of the same base model, else the base."""
    served = versions.served(database, begun)
    return served if served is not None and served.base_digest == base.base_digest else base


def _adapter_of(root: Path, version: Version) -> Adapter | None:
    return read_adapter(root / version.file) if version.file else None


def _finish(held: HeldJob, ppo: Ppo, report: GateReport, base: Version, parent: Version, *, publish: bool) -> Version:
    """Record the candidate with what the gate found, and publish or reject it."""
    database, workspace = held.database, held.workspace
    held.progress("publish", ppo.step, ppo.config.steps)
    with database.transaction():
        candidate = add_candidate(
            database, workspace, held.job, ppo.policy,
            base=base, parent=parent.name, step=ppo.step, metrics=report.metrics(),
        )  # fmt: skip
        versions.record_gates(database, candidate.name, report.gates, {})
        failed = [gate["gate"] for gate in report.gates if not gate["passed"]]
        if failed:
            version = versions.reject(database, candidate.name, f"did not pass: {', '.join(failed)}")
        elif publish:
            version = versions.publish(database, workspace, candidate.name, "passed the gate")
        else:
            version = versions.get(database, candidate.name)
    for gate in report.gates:
        held.say(f"  {'passed' if gate['passed'] else 'FAILED'}  {gate['gate']}: {gate['detail']}")
    held.say(f"{version.name} is {version.state}")
    return version


def _result(version: Version, figures: dict[str, Any]) -> dict[str, Any]:
    """The job's result."""
    return {
        "version": version.name,
        "state": str(version.state),
        "parent": version.parent,
        "gates": version.gates,
        **figures,
    }


def _checkpoint(held: HeldJob, ppo: Ppo) -> None:
    """Save the run beside its last checkpoint, name the new one in the job, and only then drop the old one."""
    folder = held.folder / "checkpoints" / f"step-{ppo.step}"
    name = str(folder.relative_to(held.workspace.root))
    if name == jobs.get(held.database, held.job.id).checkpoint:  # nothing was learned since
        return
    save_ppo(folder, ppo)
    jobs.set_checkpoint(held.database, held.job, name)
    for earlier in folder.parent.iterdir():
        if earlier != folder:
            shutil.rmtree(earlier)


def _shown(job_id: str, step: int, report: RoundReport) -> list[Any]:
    """The best, the worst and a few other rollouts of a round."""
    ordered = sorted(report.rollouts, key=lambda item: item[1])
    spaced = {round(place * (len(ordered) - 1) / (ROLLOUTS_KEPT - 1)) for place in range(ROLLOUTS_KEPT)}
    chosen = [ordered[place] for place in sorted(spaced, reverse=True)]
    return [
        metrics.new_rollout(
            job_id, step, rollout.prompt.text, rollout.prompt.language, rollout.text, score, kl,
            len(rollout.completion.token_ids),
        )
        for rollout, score, kl in chosen
    ]  # fmt: skip


def steps_of(config: RunConfig) -> int:
    """The number of policy steps a configuration asks for."""
    return config.ppo.steps


def as_dictionary(config: RunConfig) -> dict[str, Any]:
    """A configuration as plain data, to store with its job."""
    return msgspec.to_builtins(config)
