"""The SQLite that this program uses, and what it can be trusted with.

It is that of `pysqlite3` where that is installed, since many Pythons link an older one. The choice is the one of
sqlite-utils, made without importing it: it takes a third of a second.
"""

from __future__ import annotations

from pathlib import Path

from storage.durable import NETWORK_FILE_SYSTEMS, file_system

try:
    import pysqlite3.dbapi2 as sqlite3
except ImportError:
    import sqlite3

DatabaseError = sqlite3.DatabaseError

__all__ = ["DatabaseError", "sqlite3", "sqlite_version", "write_ahead_log_is_safe"]


def write_ahead_log_is_safe(version: tuple[int, ...], path: Path) -> bool:
    """Whether this SQLite is free of the lost-commit race between writers and checkpoints, and the disk is local.

    Fixed in 3.51.3, and in the maintained branches from 3.44.6 and 3.50.7 on.
    """
    release, patch = version[:2], version[2]
    fixed = version >= (3, 51, 3) or (release == (3, 44) and patch >= 6) or (release == (3, 50) and patch >= 7)
    return fixed and file_system(path) not in NETWORK_FILE_SYSTEMS


def sqlite_version() -> tuple[int, ...]:
    """The version of the SQLite that this process is linked with."""
    return sqlite3.sqlite_version_info
