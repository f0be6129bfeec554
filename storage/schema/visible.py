"""What a connection sees: the tables of the schema without the rows of an import that is not finished.

Temporary views take the names of the tables, so that no query needs to know of imports. Who writes names the table
itself, `main.prompts`. Outside this program nothing stands before the tables.
"""

from __future__ import annotations

from typing import Any

# By table: the column of `unfinished_import` with its first hidden sequence, and the sequences shown all the same.
HIDING = {
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
    for table, (first, shown) in HIDING.items():
        # The subqueries are evaluated once a statement. The + keeps SQLite from looking rows up by them.
        connection.execute(
            f"""CREATE TEMP VIEW {table} AS SELECT * FROM main.{table}
                WHERE +sequence < ifnull((SELECT {first} FROM main.unfinished_import), {_NO_SEQUENCE})
                   OR +sequence IN (SELECT sequence FROM main.{shown})"""
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
    for table in ("effective_ratings", *TALLIES, *HIDING):
        connection.execute(f"DROP VIEW temp.{table}")
