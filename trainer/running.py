"""Running a learner to its end: metrics each step, a checkpoint now and then, and one when it is told to stop."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage import jobs, metrics
from trainer import heap
from trainer.checkpoints import gathered, load, write
from trainer.job import CancelledError, HeldJob
from trainer.learner import Figures, Learner, StepReport
from trainer.reward.function import RewardFunctionError

ROLLOUTS_KEPT = 4  # a step, for the eye
MEASURE_EVERY = 10  # steps


def learn(
    held: HeldJob, learner: Learner, checkpoint_every: int, measure: Callable[[StepReport], Figures] | None = None
) -> None:
    """Take the steps that are left, from this stage's last checkpoint if there is one.

    The last step leaves a checkpoint too: what follows may take long, and be stopped.

    Args:
        measure: gives more figures of the learner as it is; asked every few steps.

    Raises:
        CancelledError: it was told to stop; a checkpoint was left.
        RewardFunctionError: a reward of the user's own failed; a checkpoint was left.
    """
    name = held.share(lambda: jobs.get(held.database, held.job.id).checkpoint)
    if name and Path(name).parent.name == _folder_name(learner):
        load(held.workspace.root / name, learner)
        held.say(f"{learner.stage}: going on from step {learner.step}")
    held.progress(learner.stage, learner.step, learner.steps)
    while learner.step < learner.steps:
        try:
            held.check()
        except CancelledError:
            checkpoint(held, learner)
            raise
        try:
            report = learner.advance()
        except RewardFunctionError:  # before anything was learned of that step
            if held.processes.count == 1:  # all of them would have to save, and only one has failed
                checkpoint(held, learner)
            raise
        heap.release()
        figures = report.figures
        if measure and learner.step % MEASURE_EVERY == 0:
            figures = figures | measure(report)
        held.record(learner.step, figures, _shown(held.job.id, learner.step, report))
        held.progress(learner.stage, learner.step, learner.steps, **report.headline)
        if learner.step % checkpoint_every == 0 or learner.step == learner.steps:
            checkpoint(held, learner)


def checkpoint(held: HeldJob, learner: Learner) -> None:
    """Save a learner beside its last checkpoint, name the new one in the job, and only then drop the old ones."""
    checkpoints = held.folder / "checkpoints"
    folder = checkpoints / _folder_name(learner) / f"step-{learner.step}"
    name = str(folder.relative_to(held.workspace.root))
    tensors = gathered(learner, keep=held.processes.main)

    def keep() -> None:
        if name == jobs.get(held.database, held.job.id).checkpoint:  # nothing was learned since
            return
        write(folder, learner, tensors)
        jobs.set_checkpoint(held.database, held.job, name)
        for earlier in (*folder.parent.iterdir(), *checkpoints.iterdir()):
            if earlier not in (folder, folder.parent):
                shutil.rmtree(earlier)

    held.share(keep)


def _folder_name(learner: Learner) -> str:
    return learner.stage.replace(" ", "-")


def _shown(job_id: str, step: int, report: StepReport) -> list[Any]:
    """The best, the worst and a few other rollouts of a step."""
    ordered = sorted(report.rollouts, key=lambda item: item[1])
    spaced = {round(place * (len(ordered) - 1) / (ROLLOUTS_KEPT - 1)) for place in range(ROLLOUTS_KEPT)}
    chosen = [ordered[place] for place in sorted(spaced, reverse=True)] if ordered else []
    return [
        metrics.new_rollout(
            job_id, step, rollout.prompt.transcript, rollout.prompt.language, rollout.text, score, kl,
            len(rollout.completion.token_ids),
        )
        for rollout, score, kl in chosen
    ]  # fmt: skip
