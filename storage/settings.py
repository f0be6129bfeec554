"""Small facts the app remembers between sessions, as JSON under a name."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.database import Database, no_text


def get(database: Database, key: str, default: Any = None) -> Any:
    """The stored value, or `default`."""
    found = database.scalar("SELECT value FROM settings WHERE key = ?", (key,))
    return default if found is None else msgspec.json.decode(found)


def put(database: Database, key: str, value: Any) -> None:
    """Store a value that JSON can hold. Raises UsageError for half of a surrogate pair."""
    try:
        written = msgspec.json.encode(value).decode()
    except UnicodeEncodeError as error:
        raise no_text(error) from error
    with database.transaction():
        database.execute(
            "INSERT INTO settings VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, written)
        )
