"""What a connection sees: the tables of the schema without the rows of an import that is not finished.

Temporary views take the names of the tables, so that no query needs to know of imports; they can be written like the
tables, which `main.prompts` and so on name for those who write much. Outside this program nothing stands before them.
"""

from __future__ import annotations

from typing import Any

# By table: the column of `unfinished_import` with its first hidden sequence, and the sequences shown all the same.
_HIDING = {
    "prompts": ("first_prompt", "shown_prompts"),
    "samples": ("first_sample", "shown_samples"),
    "ratings": ("first_rating", "shown_ratings"),
    "counted": ("first_rating", "shown_ratings"),
}
TALLIES = ("tally_of_prompts", "tally_of_samples", "tally_of_ratings", "tally_of_raters", "tally_of_lessons")
_NO_SEQUENCE = 2**63 - 1
_COLUMNS: dict[str, tuple[list[str], list[str]]] = {}  # of tallies, once they were looked up


def hide_unfinished(connection: Any) -> None:
    """Let this connection see finished imports only; a database of an earlier schema has no others."""
    if not connection.execute("PRAGMA main.table_info(unfinished_import)").fetchall():
        return
    for table, (first, shown) in _HIDING.items():
        columns = connection.execute(f"PRAGMA main.table_info({table})").fetchall()
        names = [name for _, name, *_ in columns]
        given = [
            f"ifnull(NEW.{name}, {default})" if default else f"NEW.{name}" for _, name, _, _, default, _ in columns
        ]
        # The subqueries are evaluated once a statement. The + keeps SQLite from looking rows up by them.
        connection.execute(
            f"""CREATE TEMP VIEW {table} AS SELECT * FROM main.{table}
                WHERE +sequence < ifnull((SELECT {first} FROM main.unfinished_import), {_NO_SEQUENCE})
                   OR +sequence IN (SELECT sequence FROM main.{shown})"""
        )
        connection.execute(
            f"""CREATE TEMP TRIGGER {table}_insert INSTEAD OF INSERT ON {table} BEGIN
                    INSERT INTO main.{table} ({", ".join(names)}) VALUES ({", ".join(given)});
                END"""
        )
        connection.execute(
            f"""CREATE TEMP TRIGGER {table}_update INSTEAD OF UPDATE ON {table} BEGIN
                    UPDATE main.{table} SET {", ".join(f"{name} = NEW.{name}" for name in names)}
                    WHERE sequence = OLD.sequence;
                END"""
        )
        connection.execute(
            f"""CREATE TEMP TRIGGER {table}_delete INSTEAD OF DELETE ON {table} BEGIN
                    DELETE FROM main.{table} WHERE sequence = OLD.sequence;
                END"""
        )
    for table in TALLIES:
        keys, sums = tally_columns(connection, table)
        seen = [f"{name} - ifnull((SELECT {name} {_unseen(table, keys)}), 0) AS {name}" for name in sums]
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {', '.join([*keys, *seen])} FROM main.{table} AS tally")
    connection.execute(
        """CREATE TEMP VIEW effective_ratings AS
           SELECT ratings.* FROM counted JOIN ratings ON ratings.sequence = counted.sequence"""
    )


def tally_columns(connection: Any, table: str) -> tuple[list[str], list[str]]:
    """The columns of a tally: by what it counts, and what."""
    if table not in _COLUMNS:
        columns = connection.execute(f"PRAGMA main.table_info({table})").fetchall()
        keys = [name for _, name, *_, key in columns if key]
        _COLUMNS[table] = keys, [name for _, name, *_, key in columns if not key]
    return _COLUMNS[table]


def _unseen(table: str, keys: list[str]) -> str:
    same = " AND ".join(f"unseen.{name} = tally.{name}" for name in keys)
    return f"FROM main.unseen_in_{table} AS unseen WHERE {same}"


def show_unfinished(connection: Any) -> None:
    """Let this connection see everything again: for the import itself, and for sweeping up after one."""
    for table in ("effective_ratings", *TALLIES, *_HIDING):
        connection.execute(f"DROP VIEW temp.{table}")
