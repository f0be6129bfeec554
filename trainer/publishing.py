"""Turning a trained policy into a version: complete, proven, synced and hashed before anybody can see it.

All that takes long is done beside the database, in a folder that no row names. One short transaction then checks that
the job is still ours, writes the rows, and gives the folder its name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import jobs, versions
from storage.database import Database
from storage.durable import sync_file, sync_folder
from storage.feedback import winning
from storage.records import Job, Version
from storage.workspace import Workspace
from trainer.algorithms.critics import Critic
from trainer.evaluation.gate import GateReport, Verdict
from trainer.job import HeldJob
from trainer.policy import probe
from trainer.policy.full import Snapshot
from trainer.policy.probe import Probe
from trainer.setting import Setting

PARTIAL = ".partial"


@dataclass(frozen=True)
class Files:
    """A version's files before it has a name: whole, synced and hashed.

    Attributes:
        folder: where they lie. weights: the file of the weights in it. sha256: of that file.
    """

    folder: Path
    weights: str
    sha256: str


def finish(
    held: HeldJob,
    candidate: Snapshot,
    report: GateReport,
    setting: Setting,
    step: int,
    answer: Probe | None,
    record: Callable[[Database, str], None],
    critic: Critic | None = None,
    *,
    publish: bool,
    win_rate: float = 0.0,
) -> Version:
    """Record a candidate with what the gate found, and publish or reject it.

    Args:
        answer: what the candidate answers to the fixed prompts, sampled from as at the gate.
        win_rate: the share of blind pairs that people must prefer it in first: it stays a candidate until they have.
        critic: what the run foretold answers by, to be kept beside the weights.
        record: stores what else belongs to the version of that name, in the same transaction.

    Raises:
        LeaseLostError: another worker has taken the job over; nothing is recorded.
    """
    database, workspace, base = held.database, held.workspace, setting.base
    sweep(database, workspace)
    with (
        written(workspace, held.job, candidate, setting.backbone.folder.reference, answer, critic) as files,
        database.transaction(),
    ):
        made = add_candidate(
            database, workspace, held.job, files,
            base=base, parent=setting.parent.name, kind=candidate.kind, step=step, metrics=report.metrics(),
        )  # fmt: skip
        versions.record_gates(database, made.name, report.gates, {})
        failed = [gate["gate"] for gate in report.gates if not gate["passed"]]
        if failed:
            versions.reject(database, made.name, f"did not pass: {', '.join(failed)}")
        elif win_rate:
            waiting = _until_it_has_won(made, win_rate)
            versions.record_gates(database, made.name, [*report.gates, waiting], {})
        elif publish:  # of a file that was hashed a moment ago
            versions.serve(database, made.name, "passed the gate")
        record(database, made.name)
        name_folder(workspace, files, made)
        return versions.get(database, made.name)


def _until_it_has_won(version: Version, rate: float) -> Verdict:
    detail = (
        f"nobody has compared it yet: review pairs of {version.name} against {version.parent}, then "
        f"`workbench publish {version.name} --if-won {rate:g}`"
    )
    return {"gate": winning.GATE, "passed": False, "value": None, "bound": rate, "detail": detail}


@contextmanager
def written(
    workspace: Workspace,
    job: Job,
    candidate: Snapshot,
    reference: str,
    answer: Probe | None,
    critic: Critic | None = None,
) -> Iterator[Files]:
    """Write a version's files into a folder without a name; where it has got none by the end, it is removed.

    `reference` is what peft opens the base model by.
    The folder is this attempt's own: a worker whose job was taken over may still be writing into its.
    """
    partial = workspace.versions / f".{job.id}-{job.fence}{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    try:
        file = candidate.write(partial, reference)
        if answer is not None:
            sync_file(probe.write(partial, answer))
        if critic is not None:
            critic.write(partial)
        digest = versions.sha256_of(file)
        sync_folder(partial)
        yield Files(partial, file.name, digest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def add_candidate(
    database: Database,
    workspace: Workspace,
    job: Job,
    files: Files,
    *,
    base: Version,
    parent: str,
    kind: str,
    step: int,
    metrics: dict[str, Any],
) -> Version:
    """Record a candidate; to be called in the transaction that ends with :func:`name_folder`.

    Raises:
        LeaseLostError: another worker has taken the job over; nothing is recorded.
    """
    jobs.check(database, job)
    place = workspace.versions / versions.next_name(database) / files.weights
    return versions.add_candidate(
        database,
        base=base,
        parent=parent,
        kind=kind,
        file=str(place.relative_to(workspace.root)),
        sha256=files.sha256,
        job_id=job.id,
        step=step,
        metrics=metrics,
    )


def name_folder(workspace: Workspace, files: Files, version: Version) -> None:
    """Give the files their place, synced, as the last thing before the rows are committed."""
    folder = workspace.versions / version.name
    if folder.exists():  # left by a crash between rename and commit: no row named it
        shutil.rmtree(folder)
    os.replace(files.folder, folder)
    sync_folder(workspace.versions)


def sweep(database: Database, workspace: Workspace) -> None:
    """Remove what attempts left that were killed while they wrote."""
    writing = {f".{job.id}-{job.fence}{PARTIAL}" for job in jobs.every(database) if jobs.is_alive(job)}
    for folder in workspace.versions.glob(f".*{PARTIAL}"):
        if folder.name not in writing:
            shutil.rmtree(folder, ignore_errors=True)
