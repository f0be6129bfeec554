"""A thread that works on the database for the desk, one thing after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from storage import faults
from storage.database import Database, open_database, read_database
from storage.errors import WorkbenchError
from storage.troubles import is_known, kindly
from storage.workspace import Workspace

T = TypeVar("T")
Work = Callable[[Database], Any]


class Hand:
    """A thread with a connection of its own, which does one thing after the other.

    It ends with the process, whatever it waits for: a transaction that was not committed leaves nothing behind.
    """

    def __init__(self, name: str, workspace: Workspace, patience: float, *, reading: bool) -> None:
        self._workspace = workspace
        self._patience = patience
        self._reading = reading
        self._asked: SimpleQueue[tuple[Work, Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[Database], T]) -> asyncio.Future[T]:
        """Ask for something to be done; the future has its result, or a WorkbenchError."""
        future: Future[T] = Future()
        self._asked.put((work, future))
        return asyncio.wrap_future(future)

    def end(self) -> None:
        """Do what was asked so far, and close the connection."""
        self._asked.put(None)

    def _work(self) -> None:
        database: Database | None = None
        while (asked := self._asked.get()) is not None:
            work, future = asked
            if not future.set_running_or_notify_cancel():
                continue  # who asked has gone
            try:
                database = database or self._opened()
                future.set_result(work(database))
            except BaseException as error:  # whatever it was: who asked must hear it, and the thread go on
                future.set_exception(self._told(error))
        if database is not None:
            database.close()

    def _opened(self) -> Database:
        database = read_database(self._workspace) if self._reading else open_database(self._workspace)
        database.execute(f"PRAGMA busy_timeout = {round(1000 * self._patience)}")
        return database

    def _told(self, error: BaseException) -> WorkbenchError:
        if not is_known(error):
            return faults.in_words(error, self._workspace)
        if self._reading:
            return kindly(error, safe="what is on screen stays as it is", refused="cannot be read")
        return kindly(error, safe="nothing was stored")
