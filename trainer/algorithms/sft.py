"""Supervised fine-tuning: imitate demonstrations and corrected answers, by maximum likelihood of their tokens."""

from __future__ import annotations

from trainer.algorithms.supervised import Row, SupervisedLearner, make_row
from trainer.demonstrations import Demonstrations, check_enough
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot
from trainer.processes import Processes
from trainer.supervised_config import SftConfig

STAGE = "demonstrations"


def demonstrated_rows(backbone: Backbone, found: Demonstrations, minimum: int) -> list[Row]:
    """Each answer under its plain prompt, its end-of-turn token included. Raises UsageError: there are too few."""
    check_enough(found, minimum)
    return [make_row(backbone, response) for response in found.responses]


def sft(
    backbone: Backbone,
    found: Demonstrations,
    config: SftConfig,
    seed: int,
    parent: Snapshot | None = None,
    processes: Processes | None = None,
) -> SupervisedLearner:
    """A learner that imitates.

    Args:
        parent: the version to go on from.
        processes: those that work on this together.

    Raises:
        UsageError: there are too few answers, or the parent is of another kind.
    """
    rows = demonstrated_rows(backbone, found, config.minimum)
    return SupervisedLearner(STAGE, backbone, rows, config, seed, parent, processes)
