"""How a session of judging goes: what was judged since it began, how fast, and how much of it in each language.

All of it is told by the log from the sequence at which the session began, so that a break of a minute or of a week, and
the end of an app, change nothing.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from storage.database import Database
from storage.feedback.kinds import JUDGING, SETTLING, RatingKind

RECENT = 10  # items that the pace is told of


class Progress(msgspec.Struct, frozen=True):
    """What counts of a session.

    Attributes:
        items: how many items were judged: what a goal is of.
        passed_over: how many were skipped, or said not to be the rater's to judge, and not judged otherwise.
        kinds: ratings by kind; the pairs of one gesture are one ranking.
        languages: judged items by language.
        taken_back: how often the rater took something back, and did not bring it back again.
        pace: seconds a judged item, over the latest ones; None before the first.
        seconds: spent on items, in all.
    """

    items: int = 0
    passed_over: int = 0
    kinds: dict[str, int] = {}
    languages: dict[str, int] = {}
    taken_back: int = 0
    pace: float | None = None
    seconds: float = 0.0

    @property
    def settled(self) -> int:
        """Items that are behind the rater, judged or passed over."""
        return self.items + self.passed_over


def since(database: Database, rater: str, sequence: int) -> Progress:
    """What a rater has judged since a sequence of the log."""
    rows = database.rows(
        """SELECT counted.kind, counted.language, counted.sample, counted.other, duration_ms,
                  ifnull(gesture, counted.sequence) AS act
           FROM counted JOIN ratings ON ratings.sequence = counted.sequence
           WHERE counted.sequence > ? AND counted.rater = ? AND counted.source != 'imported'
           ORDER BY counted.sequence""",
        (sequence, rater),
    )
    answers: dict[object, set[object]] = {}  # what each act is about
    for row in rows:
        answers.setdefault(row["act"], set()).update(number for number in (row["sample"], row["other"]) if number)
    acts: dict[object, str] = {}
    settled: dict[frozenset[object], None] = {}  # a set that keeps the order
    languages: dict[frozenset[object], str] = {}  # of what was judged
    times: dict[frozenset[object], dict[object, float]] = {}
    for row in rows:
        act, item = row["act"], frozenset(answers[row["act"]])
        acts[act] = "ranking" if row["kind"] == RatingKind.PAIR and len(item) > 2 else row["kind"]
        if row["kind"] in SETTLING:
            settled[item] = None
            if row["kind"] in JUDGING:
                languages[item] = row["language"]
        if row["duration_ms"] is not None:
            times.setdefault(item, {})[act] = row["duration_ms"] / 1000
    taken_back = database.scalar(
        """SELECT count(*) FROM ratings WHERE sequence > ?1 AND rater = ?2 AND kind = 'undo' AND NOT EXISTS (
               SELECT 1 FROM ratings AS redone WHERE redone.supersedes = ratings.id AND redone.kind = 'redo')""",
        (sequence, rater),
    )
    spent = {item: sum(times[item].values()) for item in settled if item in times}
    latest = [seconds for item, seconds in spent.items() if item in languages][-RECENT:]
    return Progress(
        items=len(languages),
        passed_over=len(settled.keys() - languages.keys()),
        kinds=dict(Counter(acts.values()).most_common()),
        languages=dict(Counter(languages.values()).most_common()),
        taken_back=taken_back,
        pace=sum(latest) / len(latest) if latest else None,
        seconds=sum(spent.values()),
    )
