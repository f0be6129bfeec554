"""Turning a trained adapter into a version: complete, synced and hashed before anybody can see it."""

from __future__ import annotations

import os
import shutil
from typing import Any

from storage import jobs, versions
from storage.database import Database, sync_folder
from storage.records import Job, Version
from storage.workspace import Workspace
from trainer.policy.adapters import FILE_NAME, write_adapter
from trainer.policy.lora import LoraAdapter


def add_candidate(
    database: Database,
    workspace: Workspace,
    job: Job,
    adapter: LoraAdapter,
    *,
    base: Version,
    parent: str,
    step: int,
    metrics: dict[str, Any],
) -> Version:
    """Write the adapter's files and record them as a candidate.

    Raises:
        LeaseLostError: another worker has taken the job over; nothing is recorded.
    """
    partial = workspace.versions / f".{job.id}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    snapshot = adapter.snapshot()
    write_adapter(partial / FILE_NAME, snapshot.pairs, alpha=adapter.alpha, base=base.base_model)
    digest = versions.sha256_of(partial / FILE_NAME)
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
            file=str((folder / FILE_NAME).relative_to(workspace.root)),
            sha256=digest,
            job_id=job.id,
            step=step,
            metrics=metrics,
        )
