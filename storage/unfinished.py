"""Imports that are not finished: they begin, store their rows unseen, and end by the switch or by being swept away.

There is one at a time. Its rows are in the tables from its first transaction on, and hidden from every connection
(storage/schema/visible.py) until one short transaction shows all of them.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from storage import clock
from storage.database import Database
from storage.schema.visible import HIDING, TALLIES, hide_unfinished, show_unfinished, tally_columns

# One transaction keeps others waiting for about as long as this, in seconds; between two of them they have time to come
# in: SQLite looks every 25 ms for whether it is its turn, after the first tries.
SHORT = 0.03
BETWEEN = 0.03
MOST_ROWS = 5_000
_TABLES = ("ratings", "samples", "prompts")  # in the order in which they refer to each other


class Unfinished(msgspec.Struct, frozen=True):
    """An import that has begun and not ended; `records` is how many it is about to store."""

    file: str
    started_at: str
    records: int


def find(database: Database) -> Unfinished | None:
    """The import that is not finished, if there is one."""
    return database.record(Unfinished, "SELECT file, started_at, records FROM unfinished_import")


def first_hidden(database: Database) -> dict[str, int]:
    """The sequence from which on an unfinished import stores rows, by table; empty where there is none."""
    found = database.row(
        "SELECT first_prompt AS prompts, first_sample AS samples, first_rating AS ratings FROM unfinished_import"
    )
    return found or {}


def newest(database: Database, table: str) -> int:
    """The sequence of the newest row of prompts, samples or ratings that is seen, found without a look at all of them;
    0 where there is none. It moves at the switch as well."""
    first, shown = HIDING[table]
    return database.scalar(
        f"""SELECT ifnull((SELECT max({first} - 1, ifnull((SELECT max(sequence) FROM main.{shown}), 0))
                           FROM main.unfinished_import),
                          ifnull((SELECT max(sequence) FROM main.{table}), 0))"""
    )


def sweep_after_the_dead(database: Database) -> None:
    """Take away what an import left that was killed; one that is under way is let alone."""
    if find(database) is not None and not is_under_way(database):
        with turn(database):
            pass


def is_under_way(database: Database) -> bool:
    """Whether a process is importing at this moment."""
    try:
        with _lock_file(database).open("rb") as lock:
            return not _taken(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False


@contextmanager
def turn(database: Database, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Be the only import inside. Another one is waited for (`wait` is called before), one that died is swept away.

    The turn is a lock on a file, which the system gives back however the process ends.
    """
    with _lock_file(database).open("ab") as lock:
        if not _taken(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            wait()
            _taken(lock, fcntl.LOCK_EX)
        with everything(database), _unsynced(database):
            if find(database) is not None:
                sweep(database)
            yield


@contextmanager
def everything(database: Database) -> Iterator[None]:
    """Inside, this connection sees the rows of the unfinished import too."""
    reads_only = database.scalar("PRAGMA query_only")  # which keeps views that are temporary from changing too
    database.execute("PRAGMA query_only = OFF")
    show_unfinished(database.connection)
    database.execute(f"PRAGMA query_only = {reads_only}")
    try:
        yield
    finally:
        database.execute("PRAGMA query_only = OFF")
        hide_unfinished(database.connection)
        database.execute(f"PRAGMA query_only = {reads_only}")


@contextmanager
def _unsynced(database: Database) -> Iterator[None]:
    """Inside, a commit does not wait for the disk: what is hidden may be lost, and the switch syncs all before it."""
    if database.journal_mode.lower() == "wal":  # whose file stays sound without
        database.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        database.execute("PRAGMA synchronous = FULL")


def begin(database: Database, file: str, records: int) -> None:
    """From here on what :func:`storing` stores is hidden."""
    with database.transaction():
        database.execute(
            """INSERT INTO unfinished_import
                   (one, file, started_at, records, first_prompt, first_sample, first_rating)
               SELECT 1, ?, ?, ?, (SELECT ifnull(max(sequence), 0) + 1 FROM main.prompts),
                      (SELECT ifnull(max(sequence), 0) + 1 FROM main.samples),
                      (SELECT ifnull(max(sequence), 0) + 1 FROM main.ratings)""",
            (file, clock.now(), records),
        )


@contextmanager
def storing(database: Database, pace: Pace) -> Iterator[None]:
    """A transaction of the import: what is stored in it is hidden, and so is what it adds to the tallies."""
    with pace, database.transaction():
        database.execute("UPDATE unfinished_import SET storing = 1")
        before = _tallies(database)
        yield
        for table, counted in _tallies(database).items():
            was = before[table]
            more = [
                (*key, *(new - old for new, old in zip(sums, was.get(key, (0,) * len(sums)), strict=True)))
                for key, sums in counted.items()
                if sums != was.get(key)
            ]
            if more:
                _, names = tally_columns(database.connection, table)
                added = ", ".join(f"{name} = {name} + excluded.{name}" for name in names)
                marks = ", ".join("?" * len(more[0]))
                database.connection.executemany(
                    f"INSERT INTO unseen_in_{table} VALUES ({marks}) ON CONFLICT DO UPDATE SET {added}", more
                )
        database.execute("UPDATE unfinished_import SET storing = 0")
    # Moved into the database in the time of others, or one of them would have to with its own next commit.
    database.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _tallies(database: Database) -> dict[str, dict[tuple[object, ...], tuple[int, ...]]]:
    """All sums, those of hidden rows included, by table and key."""
    found = {}
    for table in TALLIES:
        keys, names = tally_columns(database.connection, table)
        rows = database.connection.execute(f"SELECT {', '.join([*keys, *names])} FROM main.{table}")
        found[table] = {row[: len(keys)]: row[len(keys) :] for row in rows}
    return found


@contextmanager
def switching(database: Database) -> Iterator[None]:
    """The transaction after which the import is finished: all that it stored is seen, and on disk."""
    database.execute("PRAGMA synchronous = FULL")
    with database.transaction():
        yield
        _end(database)


def sweep(database: Database) -> None:
    """Take away everything that the unfinished import stored, in short transactions. What others stored stays."""
    for table, hidden in (("counted", "hidden_ratings"), *((table, f"hidden_{table}") for table in _TABLES)):
        pace, gone = Pace(), 1
        while gone:
            with storing(database, pace):
                # The newest first: a rating may supersede an earlier one.
                gone = database.execute(
                    f"""DELETE FROM main.{table} WHERE sequence IN (
                            SELECT sequence FROM main.{table} WHERE sequence IN (SELECT sequence FROM main.{hidden})
                            ORDER BY sequence DESC LIMIT ?)""",
                    (pace.rows,),
                )
    with database.transaction():
        _end(database)


class Pace:
    """The pace of many transactions: entered for each of them, it lets others in between, and tells by how long the
    last one took how many rows the next may have."""

    def __init__(self) -> None:
        self.rows = 100
        self._began = self._ended = 0.0

    def __enter__(self) -> None:
        time.sleep(max(0.0, self._ended + BETWEEN - time.monotonic()))
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        took = max(self._ended - self._began, 1e-3)
        self.rows = max(1, min(MOST_ROWS, int(self.rows * min(2.0, SHORT / took))))


def show_prompt(database: Database, prompt_key: str, system: str, language: str) -> bool:
    """Show the prompt with this key that the import has stored, if it has: someone asks it now, and it stays."""
    found = database.row(
        """SELECT sequence, language, split FROM main.prompts WHERE text_key = ? AND system = ? AND language = ?
           AND sequence IN (SELECT sequence FROM main.hidden_prompts)""",
        (prompt_key, system, language),
    )
    if found is None:
        return False
    database.execute("INSERT INTO shown_prompts VALUES (?)", (found["sequence"],))
    database.execute(
        "UPDATE unseen_in_tally_of_prompts SET prompts = prompts - 1 WHERE language = ? AND split = ?",
        (found["language"], found["split"]),
    )
    return True


def _end(database: Database) -> None:
    database.execute("DELETE FROM unfinished_import")
    for table in (*(f"shown_{table}" for table in _TABLES), *(f"unseen_in_{table}" for table in TALLIES)):
        database.execute(f"DELETE FROM {table}")


def _lock_file(database: Database) -> Path:
    return database.path.with_name("import.lock")


def _taken(lock: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        return False
    return True
