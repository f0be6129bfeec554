"""Nothing that was said, asked or rated is ever changed, deleted or replaced: the schema refuses, whoever asks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from storage.database import Database
from storage.feedback import log
from storage.records import Sample
from storage.workspace import Workspace

TABLES = ("ratings", "samples", "prompts")
WHAT_IS_SAID = {"ratings": "rater", "samples": "text", "prompts": "text"}


@pytest.fixture
def bare(workspace: Workspace, database: Database, answer: Sample) -> Iterator[sqlite3.Connection]:
    """A connection of the standard library, without any of our settings, to a workspace with one row in each table."""
    log.append(database, log.score(answer.id, 4, "ana"))
    connection = sqlite3.connect(workspace.database, isolation_level=None)
    connection.execute("PRAGMA recursive_triggers = OFF")
    connection.execute("PRAGMA foreign_keys = OFF")
    yield connection
    connection.close()


def everything(connection: sqlite3.Connection) -> list[list[tuple]]:
    return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES]


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE {table} SET {said} = 'else'",
        "UPDATE OR REPLACE {table} SET {said} = 'else'",
        "UPDATE OR REPLACE {table} SET id = 'else'",
        "UPDATE OR REPLACE {table} SET sequence = 7",
        "UPDATE OR REPLACE {table} SET rowid = 7",
        "UPDATE OR IGNORE {table} SET {said} = 'else', created_at = ''",
        "DELETE FROM {table}",
    ],
)
def test_no_row_is_changed_or_deleted(bare: sqlite3.Connection, table: str, sql: str) -> None:
    before = everything(bare)
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        bare.execute(sql.format(table=table, said=WHAT_IS_SAID[table]))
    assert everything(bare) == before


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("how", ["INSERT", "INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE"])
@pytest.mark.parametrize("same", ["id", "sequence", "all"])
def test_no_row_is_replaced_through_its_id_or_its_place(
    bare: sqlite3.Connection, table: str, how: str, same: str
) -> None:
    before = everything(bare)
    fresh = {"id": "'another'", "sequence": "NULL", "text_key": "'another'", WHAT_IS_SAID[table]: "'else'"}
    kept = [same] if same != "all" else ["id", "sequence", "text_key"]
    names = columns(bare, table)
    values = [name if name in kept else fresh.get(name, name) for name in names]
    with pytest.raises(sqlite3.DatabaseError, match="append-only: there is"):
        bare.execute(f"{how} INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table}")
    assert everything(bare) == before


def test_a_prompt_is_not_replaced_through_its_text(bare: sqlite3.Connection) -> None:
    before = everything(bare)
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        bare.execute(
            """INSERT OR REPLACE INTO prompts (id, text, text_key, language, created_at)
               SELECT 'another', 'else', text_key, language, created_at FROM prompts"""
        )
    assert everything(bare) == before


def test_the_split_and_the_task_of_a_prompt_may_be_settled_later(bare: sqlite3.Connection) -> None:
    bare.execute("UPDATE prompts SET split = 'ethics', task = 'dialogue'")
    assert bare.execute("SELECT split, task FROM prompts").fetchall() == [("ethics", "dialogue")]


def test_other_programs_may_add_rows(bare: sqlite3.Connection, database: Database) -> None:
    bare.execute("INSERT INTO prompts (id, text, text_key, language, created_at) VALUES ('p', 'a', 'a', 'en', '')")
    bare.execute("INSERT INTO samples (id, prompt_id, text, created_at) VALUES ('s', 'p', 'b', '')")
    assert database.scalar("SELECT max(sequence) FROM samples") == 2
    assert log.effects_differ(database) == 0
