"""What a window was at when it closed, however it closed, so that the next start goes on there: the text that was not
sent, the prompts that wait, and the answers on screen.

Several apps on one workspace are several windows: each has a seat of its own, the first one free, and keeps what it was
at under that seat's number.
"""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import msgspec

from storage import clock, conversations, samples, settings
from storage.database import Database
from storage.feedback.revisiting import Ahead
from storage.records import Prompt
from storage.workspace import Workspace
from workbench.engine.protocol import Generate
from workbench.screens.prompt.conversation import Ask, Draft, Exchange, Place
from workbench.text import one_line

MOST_SEATS = 99


class Asked(msgspec.Struct, frozen=True):
    """A prompt, by its key, and how it was asked."""

    prompt: str
    generate: Generate


class Reviewing(msgspec.Struct, frozen=True):
    """What a rater was at on Review: where the log ended when the session began, and the items that wait."""

    rater: str = ""
    began: int | None = None
    ahead: tuple[Ahead, ...] = ()


class Left(msgspec.Struct, frozen=True):
    """What is kept of a window. `samples` are the keys of the answers to what was `shown`, `chosen` is the place of the
    one that one goes on from."""

    draft: str = ""
    draft_of: str = ""
    waiting: tuple[Asked, ...] = ()
    shown: Asked | None = None
    samples: tuple[str, ...] = ()
    half_written: dict[str, str] = {}  # edits, notes and outcomes, by what they are of
    reviewing: Reviewing = Reviewing()
    draft_place: Place | None = None
    chosen: int | None = None
    goes_on: bool = False


@dataclass(frozen=True)
class Found:
    """What is left, with all that it names."""

    draft: Draft
    waiting: list[Exchange]
    shown: Exchange | None
    half_written: dict[str, str]
    reviewing: Reviewing


def left(
    draft: Draft,
    half_written: dict[str, str],
    waiting: Sequence[Exchange],
    shown: Exchange | None,
    reviewing: Reviewing | None = None,
) -> Left:
    """What to keep."""
    answered = shown if shown is not None and shown.samples else None
    keys = list(answered.samples) if answered is not None else []
    return Left(
        draft.text,
        draft.of.id if draft.of is not None else "",
        tuple(_asked(exchange) for exchange in waiting),
        _asked(answered) if answered is not None else None,
        tuple(sample.id for sample in answered.samples.values()) if answered is not None else (),
        dict(half_written),
        reviewing or Reviewing(),
        draft.place,
        keys.index(answered.chosen) if answered is not None and answered.chosen in keys else None,
        answered is not None and answered.goes_on,
    )


def _asked(exchange: Exchange) -> Asked:
    return Asked(exchange.ask.prompt.id, exchange.ask.generate)


def words_of(half_written: dict[str, str]) -> str:
    """What is said of texts about answers that were half written when the app closed."""
    first, *others = half_written.values()
    begun = f"“{one_line(first, 30)}” and {len(others)} more are" if others else f"“{one_line(first, 30)}” is"
    return f"{begun} half written, about an answer: the same key on that answer goes on with it"


def seats(database: Database) -> list[int]:
    """The seats whose window has left something that it had not sent."""
    found = []
    for row in database.rows("SELECT key FROM settings WHERE key GLOB 'left-[1-9]*'"):
        number = int(row["key"].removeprefix("left-"))
        kept = _kept(database, number)
        if kept.draft or kept.half_written or kept.waiting:
            found.append(number)
    return sorted(found)


def keep(database: Database, seat: int, kept: Left) -> None:
    """Remember what the window in a seat is at."""
    settings.put(database, f"left-{seat}", msgspec.to_builtins(kept))


def find(database: Database, seat: int) -> Found:
    """What the last window in this seat was at; what cannot be found again any more is left out."""
    kept = _kept(database, seat)
    waiting = [Exchange(ask) for asked in kept.waiting if (ask := _ask(database, asked)) is not None]
    draft = Draft(kept.draft, _prompt(database, kept.draft_of), kept.draft_place)
    return Found(draft, waiting, _shown(database, kept), kept.half_written, kept.reviewing)


def _kept(database: Database, seat: int) -> Left:
    stored = settings.get(database, f"left-{seat}")
    if stored is None:  # before there were seats, the draft was kept with the session
        stored = {"draft": settings.get(database, "session", {}).get("draft", "")} if seat == 1 else {}
    try:
        return msgspec.convert(stored, Left)
    except ValueError:  # of another version of the program
        return Left()


def _prompt(database: Database, key: str) -> Prompt | None:
    try:
        return conversations.get(database, key)
    except KeyError:
        return None


def _ask(database: Database, asked: Asked) -> Ask | None:
    """As it was asked, under a name of its own: what was said of it before the end is a group of answers by itself."""
    prompt = _prompt(database, asked.prompt)
    return None if prompt is None else Ask(prompt, msgspec.structs.replace(asked.generate, request=clock.new_id()))


def _shown(database: Database, kept: Left) -> Exchange | None:
    """What was on screen, as it was asked and answered."""
    asked = _ask(database, kept.shown) if kept.shown is not None else None
    try:
        stored = [samples.get(database, key) for key in kept.samples]
    except KeyError:
        return None
    if asked is None or not stored:
        return None
    exchange = Exchange.answered(asked.prompt, stored)
    exchange.ask = Ask(asked.prompt, msgspec.structs.replace(asked.generate, count=len(stored)))
    exchange.chosen = kept.chosen if kept.chosen in exchange.samples else None
    exchange.goes_on = kept.goes_on or exchange.goes_on
    return exchange


class Seat:
    """A number that no other open app has. It is a lock on a file, which the system gives back however the app ends."""

    def __init__(self, number: int, lock: IO[bytes] | None) -> None:
        self.number = number
        self._lock = lock

    @classmethod
    def take(cls, workspace: Workspace, left: Sequence[int] = ()) -> Seat:
        """The first one free, before all others of those where something was `left`: the window that is opened again
        need not have the number that it had. Where locks cannot be had, the first."""
        for number in dict.fromkeys([*left, *range(1, MOST_SEATS + 1)]):
            try:
                lock = workspace.root.joinpath(f"app-{number}.lock").open("ab")
            except OSError:
                break
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
            except OSError:
                lock.close()
                break
            else:
                return cls(number, lock)
        return cls(1, None)

    def leave(self) -> None:
        if self._lock is not None:
            self._lock.close()
