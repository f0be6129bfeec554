"""Three or four answers of one version beside each other, ranked at once, in place of their pairs one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from storage.database import Database
from storage.feedback.kinds import SETTLING, sql_list
from storage.feedback.projection import encoded
from storage.feedback.queue import ReviewItem
from storage.records import Sample

FEWEST, MOST = 3, 4


def widened(database: Database, rater: str, items: Iterable[ReviewItem]) -> list[ReviewItem]:
    """The items, with each pair of one version's answers grown to all of them where they are three or four and the
    rater has compared no two of them yet; what a ranking asks is not asked as a pair as well."""
    found: list[ReviewItem] = []
    taken: set[str] = set()  # answers in rankings
    for item in items:
        if item.kind == "pair" and item.slice == "acquisition":
            if taken.issuperset(sample.id for sample in item.samples):
                continue
            if (answers := _all_answers(database, rater, item)) is not None:
                taken |= {sample.id for sample in answers}
                shown = tuple(sorted(answers, key=lambda sample: _place(rater, sample.id)))
                item = msgspec.structs.replace(
                    item, kind="ranking", samples=shown, shown_order=None, why=f"{len(shown)} answers not compared yet",
                    reason=f"{len(shown)} answers not compared yet",
                )  # fmt: skip
        found.append(item)
    return found


def _place(rater: str, key: str) -> bytes:
    """Where an answer stands among others: at random, but the same each time this rater meets them."""
    return hashlib.sha256(f"{rater}\0{key}".encode()).digest()


def _all_answers(database: Database, rater: str, item: ReviewItem) -> list[Sample] | None:
    rows = database.rows(
        """SELECT min(sample) AS sample FROM answers
           WHERE (prompt, version) = (SELECT prompt, answers.version FROM answers
                                      JOIN samples ON samples.sequence = sample WHERE samples.id = ?)
           GROUP BY words""",
        (item.samples[0].id,),
    )
    sequences = [row["sample"] for row in rows]
    if not FEWEST <= len(sequences) <= MOST:
        return None
    compared = database.scalar(
        f"""SELECT 1 FROM counted WHERE rater = ?1 AND kind IN {sql_list(SETTLING)}
            AND sample IN (SELECT value FROM json_each(?2)) AND other IN (SELECT value FROM json_each(?2)) LIMIT 1""",
        (rater, encoded(sequences)),
    )
    if compared:
        return None
    return database.records(
        Sample, "SELECT * FROM samples WHERE sequence IN (SELECT value FROM json_each(?))", (encoded(sequences),)
    )
