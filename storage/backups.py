"""Backups: the whole database as one checked file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from storage.durable import sync_file, sync_folder
from storage.errors import WorkbenchError
from storage.sqlite import sqlite3

if TYPE_CHECKING:
    from storage.database import Database


def backup(database: Database, destination: Path) -> Path:
    """Copy the whole database to a new file and check the copy.

    Raises:
        WorkbenchError: the destination exists, or the copy did not pass `integrity_check`.
    """
    if destination.exists():
        raise WorkbenchError(f"{destination} exists already", "name a new file: a backup never overwrites one")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(destination.name + ".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_RDWR, 0o600))
    copy = sqlite3.connect(str(partial), isolation_level=None)
    try:
        database.connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        copy.close()
    if verdict != "ok":
        raise WorkbenchError(f"the copy in {partial} is not sound: {verdict}", "run `workbench doctor`")
    sync_file(partial)
    os.replace(partial, destination)
    sync_folder(destination.parent)
    return destination
