"""Backups: the whole database as one checked file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from storage.durable import sync_file, sync_folder
from storage.errors import WorkbenchError
from storage.signs import one_line
from storage.sqlite import DatabaseError, sqlite3

if TYPE_CHECKING:
    from storage.database import Database


PAGES = 1000  # between two looks at how far the copy is


def backup(
    database: Database,
    destination: Path,
    *,
    progress: Callable[[str, int, int], None] = lambda doing, done, of: None,
) -> Path:
    """Copy the whole database to a new file and check the copy. `progress` is told the pages that are done, and all.

    Raises:
        WorkbenchError: the destination exists.
        DatabaseError: the copy did not pass `integrity_check`, since what was copied would not; nothing is left of it.
    """
    if destination.exists():
        raise WorkbenchError(f"{destination} exists already", "name a new file: a backup never overwrites one")
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(destination.name + ".partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_RDWR, 0o600))
    copy = sqlite3.connect(str(partial), isolation_level=None)
    try:
        with database.snapshot():  # of one moment: without it, every write of others begins the copy anew
            database.scalar("SELECT count(*) FROM sqlite_schema")  # the moment is that of the first read
            database.connection.backup(
                copy, pages=PAGES, sleep=0, progress=lambda _, left, of: progress("copying", of - left, of)
            )
        progress("checking the copy", 0, 0)
        copy.execute("PRAGMA journal_mode = DELETE")
        verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            raise DatabaseError(f"malformed, as its copy shows: {one_line(verdict)}")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        copy.close()
    sync_file(partial)
    os.replace(partial, destination)
    sync_folder(destination.parent)
    return destination
