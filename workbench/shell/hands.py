"""The threads that the desk has its work done on, and what a method says of where it runs.

One thread holds the connection that writes, another the one that reads; a read never queues behind a write that waits
for another program's lock. A method marked `@reads` gives a snapshot of one moment, one marked `@writes` is one
transaction, committed and synced to disk when its await returns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

from storage.database import Database
from storage.errors import WorkbenchError
from storage.troubles import is_locked
from storage.workspace import Workspace
from workbench.shell.hand import Hand

PATIENCE = 75.0  # seconds that a write waits for another program: a lock of a minute is waited for
READING_PATIENCE = 5.0  # seconds; where readers never wait for writers (WAL) it does not matter
BETWEEN_TRIES = 0.2  # seconds: so often a waiting write looks whether it should give up

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound="Hands")


def reads(work: Callable[Concatenate[D, Database, P], T]) -> Callable[Concatenate[D, P], Awaitable[T]]:
    """A method that reads: it gets the connection, and runs on the reading thread in a snapshot of one moment."""

    @wraps(work)
    async def ask(desk: D, /, *args: P.args, **more: P.kwargs) -> T:
        return await desk.reading.do(partial(_at_one_moment, lambda database: work(desk, database, *args, **more)))

    return ask


def writes(work: Callable[Concatenate[D, Database, P], T]) -> Callable[Concatenate[D, P], Awaitable[T]]:
    """A method that writes: it gets the connection, and runs on the writing thread as one transaction.

    Whoever awaits it may go away: it is stored all the same.
    """

    @wraps(work)
    async def ask(desk: D, /, *args: P.args, **more: P.kwargs) -> T:
        whole = partial(desk._as_a_whole, lambda database: work(desk, database, *args, **more))
        return await asyncio.shield(desk.writing.do(whole))

    ask.writes = True  # type: ignore[attr-defined]  # see `writes_of`
    return ask


class Hands:
    """A workspace that is worked on by threads of its own."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.closing = False
        self.reading = Hand("reading", workspace, READING_PATIENCE, reading=True)
        self.writing = Hand("writing", workspace, BETWEEN_TRIES, reading=False)
        # What takes long has threads of its own; they open the database when they are first asked.
        self.looking = Hand("looking through", workspace, READING_PATIENCE, reading=True)
        self.importing = Hand("importing", workspace, PATIENCE, reading=False)

    async def read(self, work: Callable[Concatenate[Database, P], T], *args: P.args, **more: P.kwargs) -> T:
        """What a function of `storage` finds, as a method marked `@reads`: for what one screen alone asks."""
        return await self.reading.do(partial(_at_one_moment, lambda database: work(database, *args, **more)))

    async def look_through(self, work: Callable[Concatenate[Database, P], T], *args: P.args, **more: P.kwargs) -> T:
        """As `read`, for what looks through a great deal: what the screens read does not wait for it."""
        return await self.looking.do(partial(_at_one_moment, lambda database: work(database, *args, **more)))

    async def close(self, seconds: float) -> None:
        """Finish what was asked, for at most some seconds; a write that waits for a lock gives up then."""
        done = self.writing.do(lambda database: None)
        self.end()
        try:
            await asyncio.wait_for(done, seconds)
        except TimeoutError:
            self.closing = True
        except WorkbenchError:
            pass

    def end(self) -> None:
        for hand in (self.reading, self.writing, self.looking, self.importing):
            hand.end()

    def _as_a_whole(self, work: Callable[[Database], T], database: Database) -> T:
        """Run work in one transaction; while another program holds the lock, try again, for as long as is bearable."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with database.transaction():
                    if self.closing:
                        raise WorkbenchError("the app is being closed", "nothing was stored")
                    return work(database)
            except Exception as error:
                if not is_locked(error) or self.closing or time.monotonic() > deadline:
                    raise


def _at_one_moment(work: Callable[[Database], T], database: Database) -> T:
    """Run work on a snapshot: what others commit meanwhile is not seen."""
    database.execute("BEGIN")
    try:
        return work(database)
    finally:
        if database.connection.in_transaction:
            database.execute("COMMIT")
