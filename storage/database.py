"""The one way to open the workspace database.

The rules (each has a test): `busy_timeout` before anything else; write-ahead logging only on an SQLite without the
checkpoint race and on a local file system; `synchronous=FULL`, so that a commit that returned is on disk; writes in
`BEGIN IMMEDIATE`; migrations in one transaction each, after a backup; a newer schema is refused; what only reads
(`read_database`) leaves no file behind.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from storage import clock
from storage.backups import backup
from storage.errors import SchemaTooNewError, UsageError, WorkbenchError
from storage.schema.migrations import CURRENT, FUNCTIONS, MIGRATIONS
from storage.schema.visible import hide_unfinished
from storage.sqlite import DatabaseError as DatabaseError
from storage.sqlite import sqlite3, sqlite_version, write_ahead_log_is_safe
from storage.troubles import READING_GOES_ON, ReadOnlyError, is_locked, kindly, told_of_file
from storage.workspace import Workspace

if TYPE_CHECKING:
    from sqlite_utils import Database as Tables

BUSY_TIMEOUT_MS = 75_000  # a program that holds the lock for a minute is waited for
CACHE_KIB = -32_768  # as SQLite wants it: negative for KiB; taken as it is needed
Record = TypeVar("Record", bound=msgspec.Struct)
IntegrityError = sqlite3.IntegrityError


class Database:
    """One connection to the workspace database, for one thread of one process."""

    def __init__(
        self, connection: Any, path: Path, journal_mode: str, copied: TemporaryDirectory[str] | None = None
    ) -> None:
        self.connection = connection
        self.path = path
        self.journal_mode = journal_mode
        self._copied = copied  # what is read is in there, not at the path

    @property
    def tables(self) -> Tables:
        """The same connection through sqlite-utils, which is slow to import: not for the app's way."""
        from sqlite_utils import Database as Tables

        return Tables(self.connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write atomically. The commit is synced to disk before this returns; an inner call joins the outer one.

        Raises:
            WorkbenchError: another program holds the database for longer than the busy timeout.
        """
        if self.connection.in_transaction:
            yield
            return
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise WorkbenchError(
                f"{self.path} is locked by another program", "nothing was stored; try again once that one is done"
            ) from error
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> int:
        """Run one writing statement; returns the number of rows it changed."""
        return self._run(sql, parameters).rowcount

    def insert(self, table: str, record: msgspec.Struct | dict[str, Any], **overrides: Any) -> None:
        """Insert a record whose field names are the table's columns; lists and objects are stored as JSON."""
        values = msgspec.to_builtins(record) if isinstance(record, msgspec.Struct) else dict(record)
        self.insert_many(table, [values | overrides])

    def insert_many(self, table: str, records: Iterable[msgspec.Struct | dict[str, Any]]) -> None:
        """Insert records of one kind, in their order, as :meth:`insert` does; in a transaction of the caller's."""
        plain = (msgspec.to_builtins(one) if isinstance(one, msgspec.Struct) else one for one in records)
        first = next(plain, None)
        if first is None:
            return
        marks = ", ".join("?" * len(first))
        columns = ([_to_column(value) for value in values.values()] for values in chain([first], plain))
        try:
            self.connection.executemany(f"INSERT INTO main.{table} ({', '.join(first)}) VALUES ({marks})", columns)
        except UnicodeEncodeError as error:
            raise no_text(error) from error

    def _run(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> Any:
        """Run a statement; half of a surrogate pair, which is no text, goes no further. Raises UsageError for it."""
        try:
            return self.connection.execute(sql, parameters)
        except UnicodeEncodeError as error:
            raise no_text(error) from error

    def cursor(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Any:
        """The rows of a query as tuples, read as they are asked for."""
        return self._run(sql, parameters)

    def rows(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """All rows of a query, each a dictionary by column name."""
        cursor = self._run(sql, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def row(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> dict[str, Any] | None:
        """The first row of a query, or None."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def records(self, kind: type[Record], sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Record]:
        """All rows of a query as records of `storage.records`; columns that hold JSON are decoded."""
        as_json = _json_fields(kind)
        found = []
        for row in self.rows(sql, parameters):
            for name in as_json & row.keys():
                if row[name] is not None:
                    row[name] = msgspec.json.decode(row[name])
            found.append(msgspec.convert(row, kind, strict=False))
        return found

    def record(self, kind: type[Record], sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Record | None:
        """The first row of a query as a record, or None."""
        found = self.records(kind, sql, parameters)
        return found[0] if found else None

    def scalar(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Any:
        """The first column of the first row, or None."""
        found = self._run(sql, parameters).fetchone()
        return found[0] if found else None

    def has_table(self, name: str) -> bool:
        """Whether there is a table of this name."""
        return self.scalar("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)) is not None

    def data_version(self) -> int:
        """A number that moves when another connection commits (never on our own commits)."""
        return self.scalar("PRAGMA data_version")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment; nobody is kept from writing. Inside a transaction it is that one."""
        if self.connection.in_transaction:
            yield
            return
        self.connection.execute("BEGIN")
        try:
            yield
        finally:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        self.connection.close()
        if self._copied is not None:
            self._copied.cleanup()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(workspace: Workspace, *, create: bool = True) -> Database:
    """Open the database of a workspace to read and write, creating it (unless told not to) or migrating it.

    Raises:
        UsageError: there is none, and none is to be created.
        SchemaTooNewError: a newer program wrote it.
        ReadOnlyError: it may not be written; `read_database` can read it.
        WorkbenchError: the file is damaged or cannot be read.
    """
    path = workspace.database
    if path.exists() and not (os.access(path, os.W_OK) and os.access(workspace.root, os.W_OK)):
        raise ReadOnlyError(f"{workspace.root} can only be read", READING_GOES_ON)
    if create and not workspace.was_emptied:
        workspace.prepare()
        with told_of_file(f"cannot create {path}"):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    else:
        workspace.existing()
    with _told(workspace), ExitStack() as undo:
        connection = _connected(str(path))
        undo.callback(connection.close)
        version = _version(connection, path)
        wanted = "WAL" if write_ahead_log_is_safe(sqlite_version(), path) else "DELETE"
        database = Database(connection, path, _set_journal_mode(connection, wanted))
        if version < CURRENT:
            _migrate(database, workspace)
        hide_unfinished(connection)
        undo.pop_all()
    return database


def read_database(workspace: Workspace) -> Database:
    """Open the database of a workspace to read alone. Nothing is created, and neither a folder that may not be written
    nor a full disk is in the way; a schema of an earlier release is migrated first.

    Raises:
        UsageError: there is none.
        SchemaTooNewError: a newer program wrote it.
        ReadOnlyError: an earlier release wrote it, and it may not be written.
        WorkbenchError: the file is damaged or cannot be read.
    """
    path = workspace.existing().database
    with _told(workspace), ExitStack() as undo:
        connection, copied = _connected_to_read(path)
        undo.callback(connection.close)
        if _version(connection, path) < CURRENT:
            open_database(workspace, create=False).close()
        database = Database(connection, path, connection.execute("PRAGMA journal_mode").fetchone()[0], copied)
        hide_unfinished(connection)
        connection.execute("PRAGMA query_only = ON")
        undo.pop_all()
    return database


@contextmanager
def _told(workspace: Workspace) -> Iterator[None]:
    """Inside, what keeps a database from being opened is told in words."""
    path = workspace.database
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_locked(error):
            raise WorkbenchError(
                f"{path} is locked by another program", "close the program that holds it, then try again"
            ) from error
        told = kindly(error, safe="nothing was changed", refused="cannot be used", folder=workspace.root)
        raise type(told)(f"cannot open {path}: {told.message}", told.hint) from error


def _connected(address: str, *, uri: bool = False) -> Any:
    """A connection with the rules that hold for each: the time to wait comes before anything else."""
    connection = sqlite3.connect(address, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000, uri=uri)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = {CACHE_KIB}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    for name, (arguments, function) in FUNCTIONS.items():
        connection.create_function(name, arguments, function, deterministic=True)
    return connection


def _connected_to_read(path: Path) -> tuple[Any, TemporaryDirectory[str] | None]:
    """A connection that can read; and the folder of the copy that it reads, where there had to be one.

    With a write-ahead log SQLite wants to create two small files even to read. Where it cannot, nobody has the
    database open (or they would be there), so that it can be taken as it is; what a killed program left in the log is
    read from a copy of both.
    """
    try:
        connection = _connected(str(path))
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection, None
    except sqlite3.OperationalError as error:
        if not any(said in str(error) for said in ("unable to open", "I/O", "full", "readonly")):
            raise
    written_ahead = path.with_name(f"{path.name}-wal")
    if not written_ahead.exists() or not written_ahead.stat().st_size:
        return _connected(f"{path.as_uri()}?immutable=1", uri=True), None
    folder = TemporaryDirectory(prefix="workbench-")
    with told_of_file(f"cannot copy {path}, to read it from the copy"):
        for file in (path, written_ahead):
            shutil.copyfile(file, Path(folder.name) / file.name)
    return _connected(str(Path(folder.name) / path.name)), folder


def _version(connection: Any, path: Path) -> int:
    """The schema. Raises SchemaTooNewError."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > CURRENT:
        raise SchemaTooNewError(
            f"{path} has schema {version}; this program knows up to {CURRENT}",
            "upgrade the program: nothing was changed in the database",
        )
    return version


def _set_journal_mode(connection: Any, wanted: str) -> str:
    """Switch the journal mode and return the one in force.

    SQLite answers "locked" at once, without the busy timeout, when two processes switch together: try again until it
    has passed.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            return connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _migrate(database: Database, workspace: Workspace) -> None:
    """Bring the schema up to date, each step in a transaction of its own, after a backup of what was there."""
    connection = database.connection
    before = connection.execute("PRAGMA user_version").fetchone()[0]
    if before > 0:
        backup(database, workspace.backups / f"before-schema-{before + 1}-{clock.now().replace(':', '')}.db")
    connection.execute("PRAGMA cache_size = -262144")  # KiB: indexes are made of whole tables
    connection.execute("PRAGMA foreign_keys = OFF")  # a table that is made anew is dropped while others refer to it
    try:
        for migration in MIGRATIONS:
            with database.transaction():
                # Read again under the write lock: another process may have migrated while this one waited.
                if connection.execute("PRAGMA user_version").fetchone()[0] >= migration.number:
                    continue
                if not migration.needs_search or has_full_text_search(connection):
                    for statement in _statements(migration.sql):
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {migration.number}")
    finally:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = {CACHE_KIB}")


def has_full_text_search(connection: Any) -> bool:
    """Whether this SQLite can find any three characters of a text by an index."""
    try:
        connection.execute("CREATE VIRTUAL TABLE temp.attempt USING fts5(text, tokenize = 'trigram')")
        connection.execute("DROP TABLE temp.attempt")
    except sqlite3.OperationalError:
        return False
    return True


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements (`executescript` would commit the transaction around it)."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        raise ValueError("a migration ends in the middle of a statement")


@cache
def _json_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The fields of a record that are stored as JSON text: its lists, objects and nested records."""
    nested = (
        msgspec.inspect.DictType, msgspec.inspect.ListType, msgspec.inspect.VarTupleType, msgspec.inspect.StructType,
    )  # fmt: skip
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    names = set()
    for field in described.fields:
        options = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        if any(isinstance(option, nested) for option in options):
            names.add(field.name)
    return frozenset(names)


def no_text(error: UnicodeEncodeError) -> UsageError:
    """What to say of half of a surrogate pair, as a byte that is no UTF-8 becomes it in an argument or a file name."""
    return UsageError(
        f"half of a surrogate pair is no text: {ascii(error.object)[:60]}", "give it as UTF-8; nothing was stored"
    )


def _to_column(value: Any) -> Any:
    kind = type(value)
    if kind is str or value is None or kind is int or kind is float:
        return value
    if isinstance(value, str):  # a member of an enumeration
        return str.__str__(value)
    if isinstance(value, dict | list | tuple | msgspec.Struct):
        return msgspec.json.encode(value).decode()
    return int(value) if isinstance(value, bool) else value
