"""What a judge is asked about: answers and pairs that no person has judged, and some that people did, to calibrate it.

Only training prompts are taken to be judged. To calibrate, held-out prompts serve as well; ethics prompts never do.
What the judge has said by the same rubric is not asked again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from storage import conversations
from storage.database import Database
from storage.feedback.agreement import OVERALL
from storage.feedback.kinds import RatingKind, sql_list
from storage.records import Prompt, Sample, Source

ALONE = (RatingKind.SCORE, RatingKind.LABEL)


class Item(msgspec.Struct, frozen=True):
    """One answer to be scored, or two to be compared; `calibrates` where people have judged it."""

    prompt: Prompt
    answers: tuple[Sample, ...]
    calibrates: bool

    @property
    def kind(self) -> RatingKind:
        """What is said of it."""
        return RatingKind.PAIR if len(self.answers) == 2 else RatingKind.SCORE


class Asked(msgspec.Struct, frozen=True):
    """Who judges, by which rubric (what its ratings name as their guideline), and what.

    Attributes:
        kinds: scores, pairs or both. languages: none is all of them; `pt` takes `pt-BR` along.
        limit: items that nobody has judged; None for all. calibrate: items that people have judged.
    """

    rater: str
    guideline: str
    kinds: tuple[RatingKind, ...] = (RatingKind.SCORE, RatingKind.PAIR)
    languages: tuple[str, ...] = ()
    limit: int | None = None
    calibrate: int = 50


def items(database: Database, asked: Asked) -> tuple[list[Item], int]:
    """What is to be judged now, the calibrating items first; and how many the judge has judged by this rubric."""
    places: list[tuple[tuple[int, int], bool]] = []
    for place, kind in enumerate(asked.kinds):
        calibrating = _places(database, asked, _JUDGED[kind], _share(asked.calibrate, asked.kinds, place))
        places += [(found, True) for found in calibrating if not _said(database, asked, found)]
    fresh = [_places(database, asked, _FRESH[kind], -1 if asked.limit is None else asked.limit) for kind in asked.kinds]
    limits = [None] * len(fresh) if asked.limit is None else shared(asked.limit, [len(found) for found in fresh])
    for found, limit in zip(fresh, limits, strict=True):
        places += [(one, False) for one in found[:limit]]
    already = database.scalar(
        f"""SELECT count(*) FROM counted JOIN ratings ON ratings.sequence = counted.sequence
            WHERE counted.rater = ? AND counted.source = '{Source.AI}' AND ratings.guideline = ?""",
        (asked.rater, asked.guideline),
    )
    return [_item(database, place, calibrates) for place, calibrates in places], already


def shared(many: int, there: Sequence[int]) -> list[int]:
    """So many of things of which there are some of each kind, as evenly as they go."""
    shares = [0] * len(there)
    for kinds, place in zip(range(len(there), 0, -1), sorted(range(len(there)), key=there.__getitem__), strict=True):
        shares[place] = min(there[place], -(-many // kinds))
        many -= shares[place]
    return shares


def _share(many: int, kinds: Sequence[RatingKind], place: int) -> int:
    """What comes to one of the kinds; together they have as many as there are."""
    return many // len(kinds) + (place < many % len(kinds))


def _places(database: Database, asked: Asked, sql: str, limit: int) -> list[tuple[int, int]]:
    """The sequences of the answers of each item; the second is 0 where there is one."""
    parameters = {f"tag{place}": tag for place, tag in enumerate(asked.languages)}
    languages = " OR ".join(f"prompts.language = :{tag} OR prompts.language LIKE :{tag} || '-%'" for tag in parameters)
    given = {"rater": asked.rater, "guideline": asked.guideline, "limit": limit, **parameters}
    rows = database.rows(sql.replace("LANGUAGES", f"({languages or 1})"), given)
    return [(row["sample"], row["other"]) for row in rows]


def _item(database: Database, place: tuple[int, int], calibrates: bool) -> Item:
    answers = tuple(
        sample
        for sequence in place
        for sample in database.records(Sample, "SELECT * FROM samples WHERE sequence = ?", (sequence,))
    )  # no sample has the sequence 0
    return Item(conversations.get(database, answers[0].prompt_id), answers, calibrates)


def _is_judged(sample: str, other: str) -> str:
    """In SQL: whether the judge has judged it by this rubric."""
    return f"""EXISTS (SELECT 1 FROM counted JOIN ratings ON ratings.sequence = counted.sequence
                       WHERE counted.sample = {sample} AND counted.other = {other} AND counted.rater = :rater
                         AND counted.source = '{Source.AI}' AND ratings.guideline = :guideline)"""


def _said(database: Database, asked: Asked, place: tuple[int, int]) -> bool:
    given = {"sample": place[0], "other": place[1], "rater": asked.rater, "guideline": asked.guideline}
    return bool(database.scalar(f"SELECT {_is_judged(':sample', ':other')}", given))


def _open(sample: str, other: str, kinds: tuple[RatingKind, ...]) -> str:
    """In SQL: that neither people nor the judge have judged it."""
    return f"""NOT EXISTS (SELECT 1 FROM counted WHERE counted.sample = {sample} AND counted.other = {other}
                           AND counted.kind IN {sql_list(kinds)} AND counted.attribute = '{OVERALL}'
                           AND counted.source != '{Source.AI}')
               AND NOT {_is_judged(sample, other)}"""


def _judged(kinds: tuple[RatingKind, ...]) -> str:
    """What people have judged, in the order of lots (the random ends of keys)."""
    return f"""SELECT DISTINCT counted.sample, counted.other, substr(samples.id, -8) AS lot
               FROM counted JOIN samples ON samples.sequence = counted.sample
               JOIN prompts ON prompts.sequence = counted.prompt
               WHERE counted.kind IN {sql_list(kinds)} AND counted.attribute = '{OVERALL}'
                 AND counted.source IN ('{Source.HUMAN}', '{Source.IMPORTED}')
                 AND rater NOT IN (SELECT name FROM raters WHERE kind != 'human')
                 AND prompts.split != 'ethics' AND LANGUAGES ORDER BY lot, counted.other LIMIT :limit"""


# Of answers in the same words the first is judged; two neighbours make a pair.
_FRESH = {
    RatingKind.SCORE: f"""SELECT answers.sample, 0 AS other FROM answers
        JOIN prompts ON prompts.sequence = answers.prompt
        WHERE prompts.split = 'train' AND answers.sample = answers.words AND LANGUAGES
          AND {_open("answers.sample", "0", ALONE)} ORDER BY answers.sample DESC LIMIT :limit""",
    RatingKind.PAIR: f"""WITH distinct_answers AS (
            SELECT prompt, sample, row_number() OVER (PARTITION BY prompt ORDER BY sample) AS place
            FROM answers WHERE sample = words)
        SELECT a.sample, b.sample AS other FROM distinct_answers AS a
        JOIN distinct_answers AS b ON b.prompt = a.prompt AND b.place = a.place + 1
        JOIN prompts ON prompts.sequence = a.prompt
        WHERE a.place % 2 = 1 AND prompts.split = 'train' AND LANGUAGES
          AND {_open("a.sample", "b.sample", (RatingKind.PAIR,))} ORDER BY a.sample DESC LIMIT :limit""",
}  # fmt: skip
_JUDGED = {RatingKind.SCORE: _judged(ALONE), RatingKind.PAIR: _judged((RatingKind.PAIR,))}
