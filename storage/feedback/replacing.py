"""Which rating a new one takes the place of: the same rater's, of the same name (`kinds.name_of`), that counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from storage.database import Database
from storage.feedback import kinds
from storage.feedback.projection import encoded
from storage.records import Rating


def with_replaced(database: Database, ratings: list[Rating]) -> list[Rating]:
    """The ratings, each naming the one that it replaces: one that counts, or an earlier one of these."""
    about = {key for rating in ratings for key in (rating.sample_id, rating.other_sample_id) if key is not None}
    places = _places(database, about)
    earlier: dict[kinds.Name, Rating] = {}
    found = []
    for rating in ratings:
        name = kinds.name_of(rating)
        if name is not None and rating.sample_id in places:
            if rating.supersedes is None:
                before = earlier.get(name)
                key = before.id if before is not None else _replaced(database, rating, places)
                if before is None or before.gesture is None or before.gesture != rating.gesture:
                    rating = msgspec.structs.replace(rating, supersedes=key)
            earlier[name] = rating
        found.append(rating)
    return found


def replaced_by(database: Database, rating: Rating) -> str | None:
    """The key of the rating that counts and that one which is not stored yet takes the place of, if there is one. Its
    samples are stored."""
    if kinds.name_of(rating) is None:
        return None
    about = [key for key in (rating.sample_id, rating.other_sample_id) if key is not None]
    return _replaced(database, rating, _places(database, about))


def _places(database: Database, sample_ids: Iterable[str]) -> dict[str, int]:
    """The sequences of samples, by their keys."""
    rows = database.rows(
        "SELECT id, sequence FROM samples WHERE id IN (SELECT value FROM json_each(?))", (encoded(sorted(sample_ids)),)
    )
    return {row["id"]: row["sequence"] for row in rows}


def _replaced(database: Database, rating: Rating, places: Mapping[str, int]) -> str | None:
    """The rating that counts and has the name of this one (`kinds.name_of`); the newest, should there be several.

    Args:
        places: the sequences of samples, by their keys.
    """
    a, b = places[rating.sample_id or ""], places.get(rating.other_sample_id or "", 0)
    sample, other = (min(a, b), max(a, b)) if b else (a, 0)
    attribute = rating.attribute if "attribute" in (kinds.of(rating).names or ()) else None
    return database.scalar(
        """SELECT ratings.id FROM counted JOIN ratings ON ratings.sequence = counted.sequence
           WHERE counted.sample = ? AND counted.rater = ? AND counted.other = ? AND counted.kind = ?
             AND counted.source = ? AND (?6 IS NULL OR counted.attribute = ?6)
           ORDER BY counted.sequence DESC LIMIT 1""",
        (sample, rating.rater, other, rating.kind, rating.source, attribute),
    )
