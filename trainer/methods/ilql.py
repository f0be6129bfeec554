"""ILQL: offline Q-learning from rated answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.errors import UsageError
from trainer.config import IlqlStage
from trainer.lazily import lazily
from trainer.methods.method import SHUFFLED, Ask, Learned, Method, Recipe, Supply
from trainer.methods.sft import memory_of
from trainer.supervised_config import IlqlConfig

if TYPE_CHECKING:
    from trainer import outcomes, preview
    from trainer.algorithms import critics
    from trainer.algorithms import ilql as algorithm
    from trainer.preview import Material, Taught
    from trainer.task import Task
else:
    critics, preview = lazily("trainer.algorithms.critics"), lazily("trainer.preview")
    algorithm, outcomes = lazily("trainer.algorithms.ilql"), lazily("trainer.outcomes")


def learn(task: Task[IlqlStage]) -> Learned:
    """Learn the value of every token from the rated answers."""
    setting, config = task.setting, task.config
    if task.rewards is None:
        raise UsageError("nothing judges what is learned", "rate more answers, or fit a reward model first")
    found = outcomes.outcomes(task.taught)
    learner = algorithm.Ilql(setting.backbone, found, config.ilql, config.seed, setting.start, task.held.processes)
    task.link(setting.examples.rating_ids)
    task.learn(learner, config.ilql.checkpoint_every)
    return Learned(learner, critic=critics.of_ilql(learner))


def previewed(material: Material, config: IlqlStage) -> list[Taught]:
    """The rated answers with their outcomes. Raises UsageError: there are too few, or all alike."""
    found = outcomes.outcomes(material.examples)
    outcomes.check_enough(found, config.ilql.minimum)
    return preview.of_outcomes(found)


METHOD = Method(
    name="ilql",
    summary="learn from the logged ratings alone, without sampling",
    manual=f"""Offline Q-learning from the logged ratings.

    Samples nothing: it learns the value of every token from the rated answers alone, and decodes by
    log pi + beta (Q - V). Use it when answers are dear and ratings exist already. {SHUFFLED}

    \b
      trainer ilql --steps 100 --beta 2
    """,
    settings=IlqlStage,
    own="ilql",
    learn=learn,
    preview=previewed,
    memory=lambda config, whole, sampled: memory_of(config.ilql, whole),
    board="ilql",
    watched=False,  # its decoding shifts the output head as well, which the watch does not see
    recipes=(
        Recipe(
            "q", "ILQL",
            "Learn the value of every token from the rated answers alone, and say what is worth more. Nothing is "
            "sampled.",
            (
                Ask("ilql.steps", hint="of 10 updates each"),
                Ask("ilql.batch", hint="answers an update"),
                Ask("ilql.head_learning_rate", "learning rate", "falls to 0"),
                Ask("ilql.beta", hint="weight of Q - V"),
                Ask("seed", hint="the same seed, the same run"),
            ),
            ((Supply.RATED, IlqlConfig().minimum), (Supply.JUDGED, 1)),
        ),
    ),
)  # fmt: skip
