"""The whole pipeline: imitate where there is something to imitate, then improve against a reward fitted today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from storage.wording import counted
from trainer.config import FEWEST_SCORED, RewardConfig, RunConfig
from trainer.lazily import lazily
from trainer.methods import ppo
from trainer.methods.method import Ask, Learned, Method, Recipe, Supply

if TYPE_CHECKING:
    from trainer import checkpoints, preview
    from trainer.algorithms import sft
    from trainer.policy import full
    from trainer.policy.full import Snapshot
    from trainer.preview import Material, Taught
    from trainer.task import Task
else:
    preview = lazily("trainer.preview")
    checkpoints, full = lazily("trainer.checkpoints"), lazily("trainer.policy.full")
    sft = lazily("trainer.algorithms.sft")


def learn(task: Task[RunConfig]) -> Learned:
    """Improve the policy against the reward, from demonstrations where there are enough, else the parent version."""
    return ppo.improve(task, imitated(task) if task.config.demonstrations else task.setting.start)


def previewed(material: Material, config: RunConfig) -> list[Taught]:
    """What is imitated first, where there is enough of it, and the ratings that the reward is fitted to."""
    shown = material.demonstrations if config.demonstrations else None
    first = preview.of_demonstrations(shown) if shown is not None and shown.count() >= config.sft.minimum else []
    return [*first, *preview.of_examples(material.examples)]


def imitated(task: Task[RunConfig]) -> Snapshot | None:
    """What the policy starts from: trained on demonstrations where there are enough, else the parent version."""
    held, config, setting = task.held, task.config, task.setting
    folder = held.folder / "imitation"
    if held.share(folder.exists):  # an earlier attempt got so far
        return full.read_version(next(folder.glob("*.safetensors")), setting.backbone.folder.path)
    found = task.demonstrations
    if found.count() < config.sft.minimum:
        return setting.start
    shaped = config.ppo  # which goes on from here, so that it must be of the same shape
    shape = {name: getattr(shaped, name) for name in ("rank", "alpha", "tuning", "policy_share")}
    # Nothing is judged by its loss here, so that none of the answers is kept back to measure it.
    own = msgspec.structs.replace(config.sft, held_out=0.0, **shape)
    learner = sft.sft(setting.backbone, found, own, config.seed, setting.start, held.processes)
    task.link(found.rating_ids)
    held.say(f"imitating {counted(found.count(), 'demonstration')} and edits first")
    task.learn(learner, config.sft.checkpoint_every)
    result = learner.result()
    held.share(lambda: keep(result, folder, setting.base.base_model))
    return result


def keep(result: Snapshot, folder: Path, base_model: str) -> None:
    """Store what imitation led to: it is not learned again."""
    with checkpoints.whole_folder(folder) as partial:
        result.write(partial, base_model)


KINDS = Ask(
    "ppo.advantage", "method", "ppo, rloo, reinforce, grpo",
    {"ppo": "gae", "rloo": "rloo", "reinforce": "reinforce", "grpo": "grpo"},
)  # fmt: skip
ASKS = (ppo.ROUNDS, KINDS, ppo.KL_TARGET, ppo.BATCH, *ppo.POLICY)

METHOD = Method(
    name="run",
    summary="everything in its order; the one to begin with",
    manual="""The whole pipeline: demonstrations, reward model, policy, gate, publish.

    Learns from today's feedback on training prompts; held-out and ethics prompts are never trained on. The policy goes
    on from the served version. Demonstrations and edits are imitated first where there are enough of them. Of the rated
    prompts, 3 in 5 teach the reward and the others a judge. A candidate is published when the judge foretells ratings
    that it never saw, finds a gain on held-out prompts that is above zero with 95% and a loss in no language;
    when few answers are unlike those that were rated, the KL is in bounds, and nothing is infinite.

    Rewards are lowered by what is not known of them (--reward-caution), and nothing is taken for a missing end
    (--missing-eos-penalty 0). With --control shuffled or constant the ratings say nothing: it goes through every gate,
    to see what a run gains without them, and is never published.

    \b
      trainer run --steps 40 --seed 1
      trainer run --steps 40 --seed 1 --control shuffled
      trainer run --config recipe.toml --json
    """,
    settings=RunConfig,
    own="ppo",
    learn=learn,
    preview=previewed,
    memory=ppo.memory,
    ready=ppo.with_files,
    recipes=(
        Recipe(
            "w", "whole pipeline",
            "Imitate demonstrations if there are any, fit a reward model and a judge to the ratings, improve the "
            "policy on the one, and publish what passes the gate by the other.",
            ASKS, ((Supply.RATINGS, RewardConfig().minimum),),
        ),
        Recipe(
            "t", "table reward",
            "Improve the policy on the scores themselves: known answers get their score, others one by likeness. No "
            "reward model is fitted.",
            ASKS, ((Supply.SCORED, FEWEST_SCORED),), {"reward_model": "table"},
        ),
    ),
)  # fmt: skip
