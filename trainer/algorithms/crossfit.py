"""Measuring what imitation teaches where there are too few prompts to keep any back: cross-fitting.

The prompts are dealt into folds. For each fold a learner of the same settings learns from the other folds, and how far
the loss on the fold's own prompts falls is measured with it. So every prompt is measured by a model that never saw it,
and still the learner whose result is kept learns from all of them. It learns from more than those that were measured,
so that the gain told of it is rather too low than too high. (Cross-validation, Stone 1974. Prompts of different folds
share most of what was learned for them, so that the interval, which takes them for independent, is approximate.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from storage.errors import UsageError
from storage.wording import counted
from trainer import heap
from trainer.algorithms.supervised import PromptLoss, Row, SupervisedLearner, fitting, hold_out
from trainer.checkpoints import whole_folder
from trainer.evaluation.intervals import Interval, mean_interval
from trainer.examples import fingerprint
from trainer.job import HeldJob
from trainer.learner import Figures
from trainer.policy.backbone import Backbone
from trainer.policy.full import Snapshot
from trainer.running import learn
from trainer.supervised_config import SupervisedConfig

# Where a job would keep back fewer prompts than this, none is kept back and the gain is cross-fitted.
FEWEST_MEASURED = 12
FOLDS = 4
STAGE = "cross-fitting"
_FILE = "losses.json"


def learn_measured(
    held: HeldJob,
    stage: str,
    backbone: Backbone,
    rows: Sequence[Row],
    config: SupervisedConfig,
    seed: int,
    parent: Snapshot | None = None,
    *,
    needed: bool = True,
) -> tuple[SupervisedLearner, Interval | None]:
    """Imitate, and measure how many nats a token the loss fell on prompts that were not learned from.

    Args:
        stage, rows, config, seed, parent: as of :class:`SupervisedLearner`.
        needed: whether nothing else judges what was learned.

    Returns:
        The learner after its last step, and the gain with prompts as units; None where all answers are to one prompt.

    Raises:
        UsageError: all answers are to one prompt, and the gain is needed; or none fits into the model's context.
        CancelledError: it was told to stop; what is finished is not done again.
    """
    usable = fitting(rows, backbone.config.max_position_embeddings)
    prompts = {row.group for row in usable}
    if needed and len(prompts) == 1:
        raise UsageError(
            f"all {counted(len(usable), 'answer to learn from is', 'answers to learn from are')} to one prompt, "
            "so that nothing would show what was learned",
            "add answers to another prompt, or rate answers for a reward model to judge by",
        )
    kept = {row.group for row in hold_out(usable, config.held_out)[1]}
    if len(kept) >= FEWEST_MEASURED:
        learner = SupervisedLearner(stage, backbone, rows, config, seed, parent, held.processes)
        learn(held, learner, config.checkpoint_every)
        return learner, learner.held_out_gain()
    losses = cross_fitted(held, backbone, usable, config, seed, parent) if len(prompts) > 1 else {}
    everything = msgspec.structs.replace(config, held_out=0.0)
    learner = SupervisedLearner(stage, backbone, rows, everything, seed, parent, held.processes)
    learn(held, learner, config.checkpoint_every)
    if not losses:
        return learner, None
    held.record(0, loss_figures(losses, after=False))
    held.record(learner.steps, loss_figures(losses, after=True))
    return learner, mean_interval([loss.gain for loss in losses.values()])


def cross_fitted(
    held: HeldJob,
    backbone: Backbone,
    rows: Sequence[Row],
    config: SupervisedConfig,
    seed: int,
    parent: Snapshot | None = None,
) -> dict[str, PromptLoss]:
    """The loss of each prompt's answers before learning and after it, by a learner that never saw the prompt.

    Each finished fold's losses are kept in the job's folder, so that a resumed job does not learn it again.

    Args:
        rows: to at least two prompts; all of them fit into the model's context.
    """
    parts = folds(rows)
    found: dict[str, PromptLoss] = {}
    held.say(
        f"measuring on {counted(len({row.group for row in rows}), 'prompt')} by {counted(len(parts), 'fold')}, "
        "then learning from all"
    )
    for number, prompts in enumerate(parts):
        folder = held.folder / "folds" / str(number + 1)
        losses = held.share(partial(_read, folder))
        if losses is None or set(losses) != set(prompts):
            learner = SupervisedLearner(STAGE, backbone, rows, config, seed, parent, held.processes, kept=prompts)
            losses = _learned(held, learner, number, len(parts))
            del learner
            heap.release()
            held.share(partial(_keep, folder, losses))
        found |= losses
    return found


def _learned(held: HeldJob, learner: SupervisedLearner, number: int, count: int) -> dict[str, PromptLoss]:
    """The losses of a fold after all steps of its learner; of the steps nothing is recorded but how far it is."""
    while learner.step < learner.steps:
        held.check()
        report = learner.advance()
        heap.release()
        held.progress(STAGE, number * learner.steps + learner.step, count * learner.steps, **report.headline)
    return learner.held_out_losses()


def _keep(folder: Path, losses: dict[str, PromptLoss]) -> None:
    with whole_folder(folder) as partly:
        (partly / _FILE).write_bytes(msgspec.json.encode(losses))


def _read(folder: Path) -> dict[str, PromptLoss] | None:
    """The losses of a finished fold; None where there are none, or one that was not finite."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=dict[str, PromptLoss])
    except (OSError, msgspec.DecodeError):
        return None


def folds(rows: Sequence[Row], count: int = FOLDS) -> list[list[str]]:
    """The prompts dealt into folds, of which none is empty: language by language in a fixed pseudo-random order, so
    that each fold has its share of every language and sizes differ by one at most.
    """
    language = {row.group: row.language for row in rows}
    ordered = sorted(language, key=lambda group: (language[group], fingerprint(group)))
    return [ordered[place::count] for place in range(min(count, len(ordered)))]


def loss_figures(losses: Mapping[str, PromptLoss], *, after: bool) -> Figures:
    """`loss/held_out` in nats a token over the answers to some prompts, overall and by language, and how many prompts
    that is of."""
    nats: dict[str | None, float] = {}
    tokens: dict[str | None, int] = {}
    for loss in losses.values():
        for language in (None, loss.language):
            nats[language] = nats.get(language, 0.0) + (loss.after if after else loss.before)
            tokens[language] = tokens.get(language, 0) + loss.tokens
    figures: Figures = {("loss/held_out", language): nats[language] / tokens[language] for language in nats}
    figures["data/cross_fitted", None] = float(len(losses))
    return figures
