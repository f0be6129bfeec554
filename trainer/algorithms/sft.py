"""Supervised fine-tuning: imitate demonstrations and corrected answers, by maximum likelihood of their tokens."""

from __future__ import annotations

from trainer.algorithms.supervised import SupervisedLearner, make_row
from trainer.config import SftConfig
from trainer.demonstrations import Demonstrations, check_enough
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot
from trainer.processes import Processes


def sft(
    backbone: Backbone,
    found: Demonstrations,
    config: SftConfig,
    seed: int,
    parent: Snapshot | None = None,
    processes: Processes | None = None,
) -> SupervisedLearner:
    """A learner that imitates: each answer under its plain prompt, its end-of-text token included.

    Args:
        parent: the version to go on from.
        processes: those that work on this together.

    Raises:
        UsageError: there are too few answers, or the parent is of another kind.
    """
    check_enough(found, config.minimum)
    rows = [make_row(backbone, response) for response in found.responses]
    return SupervisedLearner("demonstrations", backbone, rows, config, seed, parent, processes)
