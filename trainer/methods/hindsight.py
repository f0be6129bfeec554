"""Hindsight: learn from all rated answers, told afterwards what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.config import Control, HindsightStage
from trainer.lazily import lazily
from trainer.methods.method import SHUFFLED, Ask, Learned, Method, Recipe, Supply
from trainer.methods.sft import asks, memory_of
from trainer.supervised_config import HindsightConfig

if TYPE_CHECKING:
    from trainer import outcomes, preview
    from trainer.algorithms import crossfit, supervised
    from trainer.algorithms import hindsight as algorithm
    from trainer.preview import Material, Taught
    from trainer.task import Task
else:
    algorithm, crossfit = lazily("trainer.algorithms.hindsight"), lazily("trainer.algorithms.crossfit")
    supervised, outcomes = lazily("trainer.algorithms.supervised"), lazily("trainer.outcomes")
    preview = lazily("trainer.preview")


def learn(task: Task[HindsightStage]) -> Learned:
    """Imitate relabelled answers; where nothing judges answers, measure the loss on prompts not learned from."""
    held, setting, config = task.held, task.setting, task.config
    own, stage, backbone, start = config.hindsight, algorithm.STAGE, setting.backbone, setting.start
    digest, begun = setting.base.base_digest, setting.begun
    # A control has nothing to say of outcomes in words, which cannot be permuted without telling another story.
    told = (
        held.share(lambda: outcomes.text_outcomes(held.database, digest, begun))
        if config.control == Control.NONE
        else []
    )
    rows = algorithm.relabelled_rows(backbone, outcomes.outcomes(task.taught, told), told, own)
    task.link([*setting.examples.rating_ids, *(outcome.rating_id for outcome in told)])
    if task.rewards is None:
        return Learned(*crossfit.learn_measured(held, stage, backbone, rows, own, config.seed, start))
    learner = supervised.SupervisedLearner(stage, backbone, rows, own, config.seed, start, held.processes)
    task.learn(learner, own.checkpoint_every)
    return Learned(learner)


def previewed(material: Material, config: HindsightStage) -> list[Taught]:
    """The relabelled answers. Raises UsageError: too few outcomes, or nothing to compare."""
    found, told = outcomes.outcomes(material.examples, material.told), material.told
    algorithm.check_enough(found, told, config.hindsight)
    return preview.of_relabelled(algorithm.relabelled(found, told, config.hindsight))


FEWEST = HindsightConfig().minimum

METHOD = Method(
    name="hindsight",
    summary="learn from all answers by what became of them, also from outcomes in words",
    manual=f"""Learn from all answers by what became of them.

    Each prompt is relabelled with the outcome that its answer then had, and good and bad answers are learned from
    alike; the plain prompt means the best outcome. Use it for outcomes that are told after the fact. {SHUFFLED}

    \b
      trainer hindsight --show 5
      trainer hindsight --relabelling chain
    """,
    settings=HindsightStage,
    own="hindsight",
    learn=learn,
    preview=previewed,
    memory=lambda config, whole, sampled: memory_of(config.hindsight, whole),
    board="sft",
    recipes=(
        Recipe(
            "h", "hindsight",
            "Learn from all answers, good and bad: each prompt is extended by the outcome that its answer then had.",
            asks("hindsight", Ask("hindsight.levels", "grades", "of outcomes, 2 to 10")),
            ((Supply.OUTCOMES, FEWEST),), {"hindsight.relabelling": "instruction"},
        ),
        Recipe(
            "c", "hindsight chain", "Learn to give the better answer after a worse one to the same prompt.",
            asks("hindsight"), ((Supply.RATED, FEWEST), (Supply.COMPARED, 1)), {"hindsight.relabelling": "chain"},
        ),
    ),
)  # fmt: skip
