"""Workspaces of earlier schemas, filled with the rows that the programs of then wrote."""

from __future__ import annotations

from typing import Any

from storage import clock
from storage import database as storage_database
from storage.database import Database, open_database
from storage.forms import text_key
from storage.schema.migrations import MIGRATIONS
from storage.workspace import Workspace


def open_earlier(workspace: Workspace, schema: int) -> Database:
    """The database of a workspace as the program of that schema made it."""
    now = storage_database.MIGRATIONS, storage_database.CURRENT
    storage_database.MIGRATIONS, storage_database.CURRENT = MIGRATIONS[:schema], schema
    try:
        return open_database(workspace)
    finally:
        storage_database.MIGRATIONS, storage_database.CURRENT = now


def insert(database: Database, table: str, **row: Any) -> str:
    """Insert a row with a fresh key; returns the key."""
    row = {"id": clock.new_id(), "created_at": clock.now(), **row}
    database.insert(table, row)
    return row["id"]


def ask(database: Database, text: str, split: str = "train", language: str = "und", **row: Any) -> str:
    return insert(database, "prompts", text=text, text_key=text_key(text), split=split, language=language, **row)


def answer(database: Database, prompt_id: str, text: str, **row: Any) -> str:
    return insert(database, "samples", prompt_id=prompt_id, text=text, **row)


def begin(database: Database, kind: str, **row: Any) -> str:
    """A job that has begun."""
    row = {"state": "running", "started_at": clock.now(), **row}
    return insert(database, "jobs", kind=kind, config="{}", **row)


def rate(database: Database, sample_id: str | None, kind: str, *, counts: bool = True, **row: Any) -> str:
    row = {"rater": "ana", "source": "human", **row}
    if kind == "score":
        row = {"value": 3.0, "scale_low": 1.0, "scale_high": 5.0, **row}
    key = insert(database, "ratings", sample_id=sample_id, kind=kind, **row)
    database.execute("INSERT INTO rating_effects VALUES (?, ?)", (key, counts))
    return key
