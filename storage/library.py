"""What there is, to be looked through: prompts by the page, and of one its answers with all that was ever said of them.

A page costs what is on it, however much is stored: it goes on below the last sequence of the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from storage import conversations
from storage.database import Database
from storage.feedback import log
from storage.feedback.kinds import JUDGING, TURNS, RatingKind, sql_list
from storage.records import Prompt, Rating, Sample

PAGE = 100


class Shelved(Prompt, frozen=True):
    """A prompt as it stands in the library, with how many answers it has and how many ratings of them count."""

    sequence: int = 0
    answers: int = 0
    ratings: int = 0


class Standing(StrEnum):
    """What has become of an event."""

    COUNTS = "counts"
    REPLACED = "replaced"
    TAKEN_BACK = "taken back"
    TURN = "turn"  # an undo or a redo


class Told(msgspec.Struct, frozen=True):
    """An event about an answer, and what has become of it."""

    rating: Rating
    standing: Standing


class Answered(msgspec.Struct, frozen=True):
    """One of the answers to a prompt: the `place`th of `count`, and all that was ever said of it, oldest first."""

    sample: Sample
    place: int
    count: int
    told: tuple[Told, ...]


def page(
    database: Database,
    search: str = "",
    before: int | None = None,
    limit: int = PAGE,
    only: Mapping[str, str] | None = None,
) -> list[Shelved]:
    """The newest prompts, as :func:`storage.conversations.newest` finds them."""
    columns = f"""prompts.*, (SELECT count(*) FROM samples WHERE prompt_id = prompts.id) AS answers,
        (SELECT count(*) FROM counted
         WHERE counted.prompt = prompts.sequence AND kind IN {sql_list(JUDGING)}) AS ratings"""
    return conversations.newest(database, Shelved, columns, limit, search, before, only)


def prompt(database: Database, prompt_id: str) -> Shelved | None:
    """One prompt by its key; None where there is none."""
    return next(iter(page(database, limit=1, only={"id": prompt_id})), None)


def moved_with(database: Database, prompt_id: str) -> tuple[int, int]:
    """How many prompts share a prompt's split (they open with the same text, itself included), and how many ratings of
    them teach."""
    same = "SELECT sequence FROM prompts WHERE opening = (SELECT opening FROM prompts WHERE id = ?)"
    prompts = database.scalar(f"SELECT count(*) FROM ({same})", (prompt_id,))
    ratings = database.scalar(f"SELECT count(*) FROM counted WHERE teaches AND prompt IN ({same})", (prompt_id,))
    return prompts, ratings


def answer(database: Database, prompt_id: str, place: int) -> Answered | None:
    """An answer to a prompt by its place in their order, from 0, counted round the end; None where there is none."""
    count = database.scalar("SELECT count(*) FROM samples WHERE prompt_id = ?", (prompt_id,))
    if not count:
        return None
    found = database.record(
        Sample,
        "SELECT * FROM samples WHERE prompt_id = ? ORDER BY sequence LIMIT 1 OFFSET ?",
        (prompt_id, place % count),
    )
    assert found is not None, "it is one of those that were counted"
    return Answered(found, place % count, count, told(database, found.id))


def told(database: Database, sample_id: str) -> tuple[Told, ...]:
    """Every event about an answer, oldest first, and what has become of each."""
    events = log.history(database, sample_id)
    counting = {rating.id for rating in log.effective(database, sample_id=sample_id)}
    redone = {event.supersedes for event in events if event.kind == RatingKind.REDO}
    undone = {event.supersedes for event in events if event.kind == RatingKind.UNDO and event.id not in redone}
    gestures = {
        event.gesture for key in undone if key is not None for event in log.act(database, log.get(database, key))
    }

    def standing(event: Rating) -> Standing:
        if event.kind in TURNS:
            return Standing.TURN
        if event.id in counting:
            return Standing.COUNTS
        back = event.id in undone or (event.gesture is not None and event.gesture in gestures)
        return Standing.TAKEN_BACK if back else Standing.REPLACED

    return tuple(Told(event, standing(event)) for event in events)
