"""The SQLite that this program uses: that of `pysqlite3` where it is installed, since many Pythons link an older one.

The choice is the one of sqlite-utils, made without importing it: it takes a third of a second.
"""

from __future__ import annotations

try:
    import pysqlite3.dbapi2 as sqlite3
except ImportError:
    import sqlite3

DatabaseError = sqlite3.DatabaseError

__all__ = ["DatabaseError", "sqlite3"]
