"""Whether the times of the log run as its order does. Nothing is ordered by a time; one that runs backwards says that
the clock was set back, unless it is another machine's: at a seam the log goes on by another clock.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from storage import settings
from storage.database import Database

_SEAMS = "seams_of_log"


def seams(database: Database) -> list[str]:
    """The keys of the events after each of which the log goes on by another clock."""
    return msgspec.convert(settings.get(database, _SEAMS, []), list[str])


def add_seams(database: Database, after: Iterable[str]) -> None:
    """Note that the log goes on by another clock after these events."""
    settings.put(database, _SEAMS, list(dict.fromkeys([*seams(database), *after])))


def stretches(keys: Iterable[str], after: Iterable[str]) -> list[int]:
    """The number of the stretch between two seams that each event of a log lies in."""
    ends, number, found = set(after), 0, []
    for key in keys:
        found.append(number)
        number += key in ends
    return found


def set_back(database: Database) -> int:
    """How many events bear an earlier time than the one before them, though the same clock told both."""
    found: int = database.scalar(
        """WITH seams AS (SELECT sequence FROM ratings WHERE id IN (SELECT value FROM json_each(?)))
           SELECT count(*) FROM (
               SELECT created_at < lag(created_at) OVER (PARTITION BY stretch ORDER BY sequence) AS earlier FROM (
                   SELECT sequence, created_at,
                          (SELECT count(*) FROM seams WHERE seams.sequence < ratings.sequence) AS stretch
                   FROM ratings WHERE source != 'imported')) WHERE earlier""",
        (msgspec.json.encode(seams(database)).decode(),),
    )
    return found
