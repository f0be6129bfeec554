"""How a session of judging goes: what was judged since it began, how fast, and how much of it in each language.

All of it is told by the log from the sequence at which the session began, so that a break of a minute or of a week, and
the end of an app, change nothing.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from storage.database import Database
from storage.feedback.kinds import SETTLING, RatingKind

RECENT = 10  # items that the pace is told of


class Progress(msgspec.Struct, frozen=True):
    """What counts of a session.

    Attributes:
        items: how many items were judged, those passed over included.
        kinds: ratings by kind; the pairs of one gesture are one ranking.
        languages: items by language.
        taken_back: how often the rater took something back, and did not bring it back again.
        pace: seconds an item, over the latest ones; None before the first.
        seconds: of judging, in all.
    """

    items: int = 0
    kinds: dict[str, int] = {}
    languages: dict[str, int] = {}
    taken_back: int = 0
    pace: float | None = None
    seconds: float = 0.0


def since(database: Database, rater: str, sequence: int) -> Progress:
    """What a rater has judged since a sequence of the log."""
    rows = database.rows(
        """SELECT counted.kind, counted.language, counted.prompt, counted.sample, counted.other, gesture, duration_ms
           FROM counted JOIN ratings ON ratings.sequence = counted.sequence
           WHERE counted.sequence > ? AND counted.rater = ? AND counted.source != 'imported'
           ORDER BY counted.sequence""",
        (sequence, rater),
    )
    acts: dict[object, str] = {}
    languages: dict[object, str] = {}
    times: dict[object, dict[object, float]] = {}
    for row in rows:
        item = row["gesture"] or (row["sample"], row["other"])
        many = row["gesture"] is not None and row["kind"] == RatingKind.PAIR
        act = row["gesture"] or (item, row["kind"], len(acts))
        acts[act] = "ranking" if many else row["kind"]
        if row["kind"] in SETTLING:
            languages[item] = row["language"]
        if row["duration_ms"] is not None:
            times.setdefault(item, {})[act] = row["duration_ms"] / 1000
    taken_back = database.scalar(
        """SELECT count(*) FROM ratings WHERE sequence > ?1 AND rater = ?2 AND kind = 'undo' AND NOT EXISTS (
               SELECT 1 FROM ratings AS redone WHERE redone.supersedes = ratings.id AND redone.kind = 'redo')""",
        (sequence, rater),
    )
    spent = [sum(times[item].values()) for item in languages if item in times]
    latest = spent[-RECENT:]
    return Progress(
        len(languages), dict(Counter(acts.values()).most_common()), dict(Counter(languages.values()).most_common()),
        taken_back, sum(latest) / len(latest) if latest else None, sum(spent),
    )  # fmt: skip
