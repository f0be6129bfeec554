"""What a job starts from: the model, the version to go on from, and what was rated and asked when it began."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from storage import versions
from storage.records import Version
from trainer.config import PolicyStage, RewardStage
from trainer.examples import Examples, PromptSplit, check_enough, split_prompts
from trainer.examples import collect as collect_examples
from trainer.job import HeldJob
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot, read_version


@dataclass(frozen=True)
class Setting:
    """The same for every attempt at a job, whatever was rated and published since it began.

    Attributes:
        parent: the version that the policy goes on from.
        start: what that version changes in the base model; None where it is the base model itself.
    """

    backbone: Backbone
    base: Version
    parent: Version
    start: Snapshot | None
    split: PromptSplit
    examples: Examples
    begun: str | None


def set_up(held: HeldJob, config: RewardStage) -> Setting:
    """Read what there is to learn from, then load the model.

    Raises:
        UsageError: too few ratings or prompts, or no such model or device.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    device, dtype = devices.choose(config.device, config.dtype)
    folder = held.share(lambda: models.resolve(config.model, held.workspace, lambda text, _: held.say(text)))
    begun = held.job.started_at

    def read() -> tuple[Examples, PromptSplit, Version, Version]:
        database = held.database
        examples, split = collect_examples(database, folder.digest, begun), split_prompts(database, begun)
        if not isinstance(config, PolicyStage) or config.reward_model == "new":
            check_enough(examples, config.reward.minimum)
        base = versions.ensure_base(database, folder.name, folder.digest)
        served = versions.served(database, begun)
        parent = served if served is not None and served.base_digest == base.base_digest else base
        return examples, split, base, parent

    examples, split, base, parent = held.share(read)
    torch.manual_seed(config.seed)
    backbone = Backbone(folder, device, dtype, config.upper_share, checkpointing=config.gradient_checkpointing)
    start = read_version(held.workspace.root / parent.file, folder.path) if parent.file else None
    return Setting(backbone, base, parent, start, split, examples, begun)
