"""One sitting at the log: what an open app has said. Undo and redo turn to that first, whatever another app of the same
rater says meanwhile, and then to what was there when the sitting began.

Only keys are kept here; what counts is asked of the log each time. So an event whose transaction failed is as if it had
never been said.
"""

from __future__ import annotations

from collections.abc import Iterable

from storage.database import Database
from storage.feedback import log
from storage.feedback.projection import encoded
from storage.records import Rating, RatingKind


class Sitting:
    """Appends to the log as :mod:`storage.feedback.log` does, and remembers it.

    Args:
        began: where the log ended when it began (:func:`storage.feedback.log.position`).
    """

    def __init__(self, began: int) -> None:
        self._began = began
        self._said: list[tuple[str, ...]] = []  # the keys of each act's ratings, or that of an undo, in order

    def append(self, database: Database, rating: Rating) -> Rating:
        """As :func:`storage.feedback.log.append`."""
        return self.gesture(database, [rating])[0]

    def gesture(self, database: Database, ratings: Iterable[Rating]) -> list[Rating]:
        """As :func:`storage.feedback.log.gesture`."""
        stored = log.gesture(database, ratings)
        self._said.append(tuple(rating.id for rating in stored))
        return stored

    def undo(self, database: Database, rater: str) -> Rating | None:
        """Take back the rater's newest act of this sitting, else the newest that counts of those from before. None when
        there is none. Returns the act's last rating.

        An act of this sitting that another app has replaced is taken back all the same: it does not count again when
        what replaced it is taken back.
        """
        with database.transaction():
            own = (_not_taken_back(database, keys, rater) for keys in reversed(self._said))
            last = next((rating for rating in own if rating is not None), None)
            last = last or log.newest(database, rater, self._began)
            if last is not None:
                self._said.append((log.take_back(database, last).id,))
            return last

    def redo(self, database: Database, rater: str) -> Rating | None:
        """Bring back what the newest undo of this sitting took away, else the newest from before, unless something was
        rated here since. None when there is none."""
        with database.transaction():
            for keys in reversed(self._said):
                event = database.record(Rating, "SELECT * FROM ratings WHERE id = ?", (keys[0],))
                if event is None or event.rater != rater:
                    continue
                if event.kind != RatingKind.UNDO:
                    return None
                if not database.scalar("SELECT 1 FROM ratings WHERE supersedes = ? AND kind = 'redo'", (event.id,)):
                    return log.bring_back(database, event)
            last = log.newest_undo(database, rater, self._began)
            return None if last is None else log.bring_back(database, last)


def _not_taken_back(database: Database, keys: tuple[str, ...], rater: str) -> Rating | None:
    """The last rating of an act. None for an undo, and for an act that was taken back or never committed."""
    return database.record(
        Rating,
        """WITH said AS (SELECT value AS id FROM json_each(?1))
           SELECT * FROM ratings WHERE id IN said AND rater = ?2 AND kind NOT IN ('undo', 'redo') AND NOT EXISTS (
               SELECT 1 FROM ratings AS undone WHERE undone.supersedes IN said AND undone.kind = 'undo' AND NOT EXISTS (
                   SELECT 1 FROM ratings AS redone WHERE redone.supersedes = undone.id AND redone.kind = 'redo'))
           ORDER BY sequence DESC LIMIT 1""",
        (encoded(keys), rater),
    )
