"""Supervised fine-tuning: imitate demonstrations and edits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trainer.config import SftStage
from trainer.lazily import lazily
from trainer.methods.method import GATED, Ask, Learned, Method, Need, Recipe, Supply
from trainer.supervised_config import SftConfig

if TYPE_CHECKING:
    from trainer import demonstrations as imitation
    from trainer import preview
    from trainer.algorithms import crossfit
    from trainer.algorithms import sft as algorithm
    from trainer.preview import Material, Taught
    from trainer.task import Task
else:
    algorithm, crossfit = lazily("trainer.algorithms.sft"), lazily("trainer.algorithms.crossfit")
    imitation, preview = lazily("trainer.demonstrations"), lazily("trainer.preview")


def learn(task: Task[SftStage]) -> Learned:
    """Imitate; where nothing judges answers, measure the loss on prompts that are not learned from."""
    setting, config = task.setting, task.config
    rows = algorithm.demonstrated_rows(setting.backbone, task.demonstrations, config.sft.minimum)
    task.link(task.demonstrations.rating_ids)
    learner, gain = crossfit.learn_measured(
        task.held, algorithm.STAGE, setting.backbone, rows, config.sft, config.seed, setting.start,
        needed=task.rewards is None,
    )  # fmt: skip
    return Learned(learner, gain)


def previewed(material: Material, config: SftStage) -> list[Taught]:
    """The answers to imitate. Raises UsageError: there are too few."""
    imitation.check_enough(material.demonstrations, config.sft.minimum)
    return preview.of_demonstrations(material.demonstrations)


def asks(section: str, *more: Ask) -> tuple[Ask, ...]:
    """What the form of a method asks for that learns from a fixed set of answers."""
    return (
        Ask(f"{section}.steps", hint="updates"),
        Ask(f"{section}.batch", hint="answers an update"),
        Ask(f"{section}.learning_rate", hint="falls to 0"),
        *more,
        Ask("seed", hint="the same seed, the same run"),
    )


def memory_of(own: Any, whole: Need) -> Need:
    """What learning from a fixed set of answers holds, from its section of the settings."""
    return replace(whole, minibatch=own.batch, rank=own.rank, tuning=own.tuning)


METHOD = Method(
    name="sft",
    summary="you have demonstrations, or edits of answers",
    manual=f"""Supervised fine-tuning on demonstrations and edits.

    Use it when you can show better answers than the model gives. Imported demonstrations and the edits of raters are
    imitated, in balance over languages, none more than --most-repeats times. {GATED} Where no reward model and too few
    ratings exist to judge answers, the loss on demonstrations that were not learned from decides.

    \b
      trainer sft --steps 100 --learning-rate 2e-4
    """,
    settings=SftStage,
    own="sft",
    learn=learn,
    preview=previewed,
    memory=lambda config, whole, sampled: memory_of(config.sft, whole),
    board="sft",
    recipes=(
        Recipe(
            "s", "SFT", "Imitate demonstrations and edits: for when you can show better answers than the model gives.",
            asks("sft"), ((Supply.DEMONSTRATIONS, SftConfig().minimum),),
        ),
    ),
)  # fmt: skip
