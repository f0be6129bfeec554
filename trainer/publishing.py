"""Turning a trained policy into a version: complete, synced and hashed before anybody can see it."""

from __future__ import annotations

import os
import shutil
from typing import Any

from storage import jobs, versions
from storage.database import Database, sync_folder
from storage.records import Job, Version
from storage.workspace import Workspace
from trainer.evaluation.gate import GateReport
from trainer.job import HeldJob
from trainer.policy.full import Snapshot
from trainer.setting import Setting


def finish(
    held: HeldJob, candidate: Snapshot, report: GateReport, setting: Setting, step: int, *, publish: bool
) -> Version:
    """Record a candidate with what the gate found, and publish or reject it."""
    database, workspace = held.database, held.workspace
    with database.transaction():
        version = add_candidate(
            database, workspace, held.job, candidate,
            base=setting.base, parent=setting.parent.name, step=step, metrics=report.metrics(),
        )  # fmt: skip
        versions.record_gates(database, version.name, report.gates, {})
        failed = [gate["gate"] for gate in report.gates if not gate["passed"]]
        if failed:
            return versions.reject(database, version.name, f"did not pass: {', '.join(failed)}")
        if publish:
            return versions.publish(database, workspace, version.name, "passed the gate")
        return versions.get(database, version.name)


def add_candidate(
    database: Database,
    workspace: Workspace,
    job: Job,
    candidate: Snapshot,
    *,
    base: Version,
    parent: str,
    step: int,
    metrics: dict[str, Any],
) -> Version:
    """Write the weights' files and record them as a candidate.

    Raises:
        LeaseLostError: another worker has taken the job over; nothing is recorded.
    """
    partial = workspace.versions / f".{job.id}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    file = candidate.write(partial, base.base_model)
    digest = versions.sha256_of(file)
    sync_folder(partial)
    with database.transaction():
        jobs.check(database, job)
        name = versions.next_name(database)
        folder = workspace.versions / name
        if folder.exists():  # left by a crash between rename and commit: no row names it
            shutil.rmtree(folder)
        os.replace(partial, folder)
        sync_folder(workspace.versions)
        return versions.add_candidate(
            database,
            base=base,
            parent=parent,
            kind=candidate.kind,
            file=str((folder / file.name).relative_to(workspace.root)),
            sha256=digest,
            job_id=job.id,
            step=step,
            metrics=metrics,
        )
